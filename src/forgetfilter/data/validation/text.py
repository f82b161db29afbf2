"""What was found in files, for a terminal: the same as the JSON, from which it is made."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 100
_MOST_NAMES = 20
_BETWEEN = "¦"


def describe(told: Mapping[str, Any]) -> str:
    """Problems, counts and what is ignored, as text.

    Args:
        told: what `Validation.as_json` gives, perhaps with ``model`` beside it.
    """
    lines: list[str] = []
    for problem in told["problems"]:
        lines += _problem(problem)
    hidden = told["problems_found"] - len(told["problems"])
    if hidden:
        lines.append(f"… and {hidden:,} more (--max-problems N shows more, --json too)")
    if told["by_rule"]:
        lines += ["", "by rule:"]
    for rule in told["by_rule"]:
        note = ", which can be used" if rule["severity"] == "note" else ""
        lines.append(
            f"  {rule['rule']}: {_rows(rule['rows'])}{note}; the first: "
            f"{rule['first_file']}, line {rule['first_line']}"
        )
    if told["by_rule"]:
        lines.append("")
    lines += _ignored("columns", told["ignored_columns"])
    lines += _ignored("keys of turns", told["ignored_turn_keys"])
    for file in told["files"]:
        lines += [_file(file), *_formulas(file)]
    if len(told["files"]) > 1:
        lines.append(f"all files: {_counts(told)}")
    repeated = told["repeated_ids"]
    if repeated["rows"]:
        shown = ", ".join(f"{name!r}" for name in list(repeated["most"])[:3])
        lines.append(
            f"ids: {_rows(repeated['rows'])} called as an earlier one ({shown}"
            f"{', …' if len(repeated['most']) > 3 else ''})"
        )
    if told.get("model"):
        lines += _model(told["model"])
    if told["malformed"] * 2 > told["rows"] > 0:
        lines.append(
            f"{_rows(told['malformed'])} of {told['rows']:,} malformed; `screen` stops where more "
            "than half are (reading.max_malformed)"
        )
    if told["status"]:
        lines.append("Not all rows can be used (exit status 1).")
    else:
        lines.append("All rows can be used.")
    return "\n".join(lines)


def _problem(problem: Mapping[str, Any]) -> list[str]:
    name = f" (id {problem['id']!r})" if problem["id"] else ""
    where = f" in {problem['field']}" if problem["field"] else ""
    note = "note: " if problem["severity"] == "note" else ""
    lines = [
        f"{problem['file']}, line {problem['line']}, row {problem['row']}{name}: "
        f"{note}{problem['rule']}{where}"
    ]
    for title, text in (("", problem["reason"]), ("found: ", problem["found"])):
        if text:
            lines += _wrapped(f"{title}{text}")
    return [*lines, *_wrapped(f"do: {problem['fix']}")]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )


def _ignored(what: str, names: Mapping[str, int]) -> list[str]:
    if not names:
        return []
    shown = [f"{name} ({count:,})" for name, count in list(names.items())[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return [f"ignored {what}: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"]


def _file(file: Mapping[str, Any]) -> str:
    if file["error"] and not file["rows"]:
        return file["error"]
    broken = f". It can't be read to its end: {file['error']}" if file["error"] else ""
    return f"{file['file']} ({file['container']}): {_counts(file)}{broken}"


def _formulas(file: Mapping[str, Any]) -> list[str]:
    cells = file["formula_cells"]
    if not cells:
        return []
    begin = "1 cell begins" if cells == 1 else f"{cells:,} cells begin"
    return _wrapped(
        f"{begin} as formulas do (=, +, -, @), which spreadsheets run. Screening doesn't. To open "
        "the file in a spreadsheet, make a copy: forgetfilter convert FILE NEW --guard-formulas"
    )


def _counts(told: Mapping[str, Any]) -> str:
    return f"{_rows(told['rows'])}, {told['readable']:,} usable, {told['rejected']:,} rejected"


def _model(model: Mapping[str, Any]) -> list[str]:
    longest = (
        f", the longest row {model['longest']:,} (row {model['longest_row']})"
        if model["longest"]
        else ""
    )
    return [
        f"with {model['name']}: {model['template']}; {model['tokens']:,} tokens, "
        f"{model['tokens_with_loss']:,} carry loss{longest}; "
        f"{model['max_length_tokens']:,} fit"
    ]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def describe_row(told: Mapping[str, Any]) -> str:
    """The tokens of one row as text, those that carry loss on lines of their own."""
    name = f" (id {told['id']!r})" if told["id"] else ""
    lines = [f"{told['file']}, line {told['line']}, row {told['row']}{name}"]
    if told["problem"]:
        return "\n".join([*lines, *_problem(told["problem"])])
    loss = sum(token["carries_loss"] for token in told["tokens"])
    lines.append(
        f"{len(told['tokens']):,} tokens, {loss:,} carry loss: those of lines that begin with "
        f"LOSS; {_BETWEEN} stands between tokens"
    )
    for carries_loss, pieces in _runs(told["tokens"]):
        start = "  LOSS | " if carries_loss else "       | "
        line = start
        for piece in pieces:
            if len(line) + len(piece) > _WIDTH and line != start:
                lines.append(line)
                line = start
            line += piece + _BETWEEN
        lines.append(line)
    for name in told["unscored"]:
        lines.append(f"The chat template leaves out this row's {name}.")
    return "\n".join(lines)


def _runs(tokens: Sequence[Mapping[str, Any]]) -> list[tuple[bool, list[str]]]:
    """Tokens that carry loss, or don't, as long as they follow each other."""
    found: list[tuple[bool, list[str]]] = []
    for token in tokens:
        piece = token["text"].replace(_BETWEEN, "\\xa6")
        if found and found[-1][0] == token["carries_loss"]:
            found[-1][1].append(piece)
        else:
            found.append((token["carries_loss"], [piece]))
    return found
