"""Export the kept rows of a run for LLaMA-Factory: a ShareGPT file and its dataset_info.json entry.

Rows are written anew from the conversations that were judged, so that what is trained on is what
was judged whatever the screened file looked like. LLaMA-Factory drops rows that it can't read
with a line in its log; here they are left out, counted and listed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetfilter.data.records import Message, Row
from forgetfilter.data.writing import write_records
from forgetfilter.errors import ConfigError
from forgetfilter.files import write_json_atomic
from forgetfilter.integrations.exporting import (
    Exported,
    NotHeld,
    chosen_name,
    refuse_others_files,
    refuse_pairs,
    require_any,
    write_left_out,
)
from forgetfilter.integrations.settled import kept_rows
from forgetfilter.places import require_writable_folder
from forgetfilter.runs.inputs import input_fingerprint
from forgetfilter.text import printable

INFO_FILE = "dataset_info.json"
OWN_KEY = "forgetfilter"
"""The key of an entry that says what it was made from; LLaMA-Factory doesn't look at it."""

_MASK_HISTORY = (
    "Set `mask_history: true` for the training run: of these rows only the last answer is learned, "
    "and that alone was judged."
)


def export(
    run: str | Path, output_dir: str | Path, name: str = "", *, overwrite: bool = False
) -> Exported:
    """Write the kept rows as ``NAME.jsonl`` and their entry into ``dataset_info.json``.

    All other entries of that file stay, in their order. What people have decided of rows since the
    run was decided is applied first. An export of the same screened file is replaced.

    Args:
        run: the run folder.
        output_dir: LLaMA-Factory's data folder (its ``dataset_dir``); made where it is missing.
        name: of the data set; empty: made of the screened file's name.
        overwrite: replace an entry or a file of that name that is none of this export's.

    Raises:
        ConfigError: a name that can't be used, an entry or a file that is there already, or a
            ``dataset_info.json`` that can't be read.
        DataError: the run isn't finished or decided, kept no row, was edited by hand, or holds
            preference pairs; or none of its kept rows can be held.
        RunExistsError: the run is in use, or the folder can't be written to.
    """
    run, folder = Path(run), Path(output_dir)
    kept, summary = kept_rows(run)
    refuse_pairs(kept, run)
    name = chosen_name(name, run, str(summary.get("noisy_data", "")))
    data, info = folder / f"{name}.jsonl", folder / INFO_FILE
    made_from = {"input": input_fingerprint(run), "decision": str(summary["decision"])}
    entries = read_info(info)
    is_ours = _is_ours(entries.get(name), made_from["input"])
    if name in entries and not (is_ours or overwrite):
        raise ConfigError(
            f"{printable(str(info), 300)!r} has an entry {name!r} already, which isn't an export "
            "of the same screened file. Expected a free name. Choose another --name, or add "
            "--overwrite to replace it."
        )
    refuse_others_files([data], is_ours=is_ours, overwrite=overwrite)
    rows, left_out = _rows(kept)
    require_any(rows, left_out, "LLaMA-Factory")
    is_last_only = any(_loss(row) == "last" for row, _ in rows)
    has_tools = any(row.tools for row, _ in rows)
    require_writable_folder(folder)
    write_records(data, (_record(row, turns, has_tools=has_tools) for row, turns in rows))
    listed = write_left_out(folder / f"{name}_left_out.jsonl", left_out)
    entry = {
        "file_name": data.name,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", **({"tools": "tools"} if has_tools else {})},
        OWN_KEY: made_from,
    }
    write_json_atomic(info, {**entries, name: entry})
    notes = (_MASK_HISTORY,) if is_last_only else ()
    return Exported(data, info, name, len(rows), len(left_out), listed, notes)


def read_info(path: Path) -> dict[str, Any]:
    """The entries of a ``dataset_info.json``; none where there is no such file.

    Raises:
        ConfigError: it can't be read, is no JSON object, or names an entry twice, so that writing
            it again would lose something.
    """
    if not path.exists():
        return {}
    try:
        found: Any = json.loads(path.read_bytes(), object_pairs_hook=_once)
    except OSError as error:
        said = error.strerror or "it can't be read"
    except (ValueError, RecursionError) as error:
        said = str(error) or "no JSON"
    else:
        if isinstance(found, dict):
            return found  # type: ignore[no-any-return]
        said = f"it holds {type(found).__name__}"
    raise ConfigError(
        f"{printable(str(path), 300)!r}: {printable(said, 150)}. Expected a JSON object of entries "
        "by name, each name once. Mend the file, or choose another --output-dir."
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _is_ours(entry: Any, fingerprint: str) -> bool:
    made_from: Any = entry.get(OWN_KEY) if isinstance(entry, dict) else None  # type: ignore[union-attr]
    return isinstance(made_from, dict) and made_from.get("input") == fingerprint  # type: ignore[union-attr]


def _rows(
    kept: Sequence[Row],
) -> tuple[list[tuple[Row, list[dict[str, str]]]], list[tuple[Row, str]]]:
    """Rows with their turns as LLaMA-Factory reads them, and those that it can't hold."""
    held: list[tuple[Row, list[dict[str, str]]]] = []
    left_out: list[tuple[Row, str]] = []
    learns_all = any(_loss(row) == "all" for row in kept)
    for row in kept:
        try:
            if _loss(row) == "some" or (learns_all and _loss(row) == "last"):
                raise NotHeld(
                    "has answers that are not learned, and LLaMA-Factory would learn all of them"
                )
            held.append((row, _turns(row)))
        except NotHeld as reason:
            left_out.append((row, str(reason)))
    return held, left_out


def _loss(row: Row) -> str:
    """Which of several answers are learned: ``all``, the ``last`` or ``some``; of one, ``one``."""
    learned = [turn.carries_loss for turn in row.messages if turn.role == "assistant"]
    if len(learned) == 1:
        return "one"
    if all(learned):
        return "all"
    return "last" if learned[-1] and not any(learned[:-1]) else "some"


def _turns(row: Row) -> list[dict[str, str]]:
    """The turns, a system text first, then asking and answering turns in turn."""
    turns = list(row.messages)
    found: list[dict[str, str]] = []
    if turns[0].role == "system":
        first = turns.pop(0)
        found = [{"from": "system", "value": first.content}] if first.content else []
    for number, turn in enumerate(turns):
        answers = turn.role == "assistant"
        if turn.role == "system":
            raise NotHeld("has a system turn after its first turn")
        if answers != bool(number % 2):
            raise NotHeld("has two turns of one side in a row, or begins with an answer")
        found.append(_answer(turn) if answers else _asked(turn))
    return found


def _asked(turn: Message) -> dict[str, str]:
    return {"from": "human" if turn.role == "user" else "observation", "value": turn.content}


def _answer(turn: Message) -> dict[str, str]:
    if turn.reasoning:
        raise NotHeld("keeps reasoning apart from its answer, for which there is no place")
    if not turn.tool_calls:
        return {"from": "gpt", "value": turn.content}
    if turn.content.strip():
        raise NotHeld("has a turn that both answers and calls a tool")
    calls = [call["function"] for call in json.loads(turn.tool_calls)]
    return {"from": "function_call", "value": json.dumps(calls, ensure_ascii=False)}


def _record(row: Row, turns: list[dict[str, str]], *, has_tools: bool) -> dict[str, Any]:
    """The same keys for every row, all of them text: tables of mixed types can't be loaded."""
    tools = {"tools": row.tools} if has_tools else {}
    return {"id": row.example_id, "conversations": turns, **tools}
