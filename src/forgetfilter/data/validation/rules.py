"""The reasons for which readers and encoders reject rows, as rules with a name and a way out.

What is wrong with a row is said where it is found out, in one sentence; nothing here judges a row.
Each sentence belongs to one rule, which a test holds for every place that rejects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """One kind of reason."""

    name: str
    pattern: str
    """Of the whole reason. Group ``where`` says which part of the row is meant, ``key`` the key in
    it, ``at`` the character of the line."""
    fix: str
    """What to do, for every reason of the kind."""
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern, re.DOTALL))


@dataclass(frozen=True)
class Told:
    """A reason's rule, and what it says about the place."""

    rule: Rule
    where: str = ""
    """Column and turn, as readers name them: ``messages turn 2``."""
    key: str = ""
    at: int | None = None
    """The character of the line, from 1, where that is known."""


_COLUMN_MAP = "Name the columns (--column-map prompt=COLUMN,completion=COLUMN), or the format"
_MEND = "Mend the line, or take it out"
_PAPER = "Use a model whose template shows it, or --template paper"

RULES = (
    # The line is no record.
    Rule("malformed_json", r"malformed JSON(?: at character (?P<at>\d+))?: .+", f"{_MEND}."),
    Rule("not_an_object", r"not a JSON object but .+", "Write one object on each line."),
    Rule(
        "not_utf8",
        r"not UTF-8: byte 0x\S+ at (?:position|character) (?P<at>\d+)",
        "Save the file as UTF-8, or mend the line.",
    ),
    Rule("line_too_long", r"the line has \d+ bytes; at most .+", "Shorten it, or take it out."),
    Rule(
        "fields_do_not_fit_header",
        r"\d+ fields; the header has \d+",
        "Put fields with the delimiter in them between quotes.",
    ),
    Rule(
        "broken_quotes",
        r"a quote (?:that is never closed|inside a quoted field).+"
        r"|a carriage return in a field without quotes|no record(?:: .+)?",
        "Write quotes in quoted fields twice, and close them.",
    ),
    # The row as a whole.
    Rule("no_known_format", r"no known format: .+", f"{_COLUMN_MAP} (--format NAME)."),
    Rule("no_such_format", r"no format is called .+", "Choose one of the names."),
    Rule(
        "column_not_read",
        r"column (?P<where>'.*?'|\".*?\") is not read beside .+",
        "If your trainer doesn't read it, say so: --column-map NAME=",
    ),
    Rule("two_system_texts", r"two system texts: (?P<where>\w+).*", "Leave one of them."),
    Rule(
        "tools_differ", r"(?P<where>\w+) and .+ offer different tools", "Leave one of the columns."
    ),
    Rule("no_turns", r"no turns: .+", "Take the row out."),
    Rule(
        "last_turn_not_assistant",
        r"the last turn is the .+|(?P<where>chosen) ends in the user's turn; .+",
        "Let it end in an answer: add one, or take out what follows the last one.",
    ),
    Rule("empty_answer", r"empty completion: .+", "Give it an answer, or take the row out."),
    Rule("nothing_to_answer", r"no turn before the answer: .+", "Put a turn before the answer."),
    Rule(
        "nothing_learned",
        r"no answer is learned .+|no answer of it carries loss .+",
        "Give an answer the weight 1, or take the row out.",
    ),
    Rule(
        "text_without_marks",
        r"(?P<where>text) (?:has no mark|starts with ChatML).+|(?P<turn>text turn \d+): no such .+",
        "Give prompt and answer as columns, or write whole marks.",
    ),
    # A part of the row. The order matters: what is told more exactly comes first.
    Rule(
        "mapped_key_twice",
        r"(?P<where>.+) has (?P<key>.+) beside what is mapped to it",
        "Take one of the two keys out.",
    ),
    Rule(
        "key_not_read",
        r"(?P<where>.+) has a key that is not read: (?P<key>'.*?'|\".*?\"|[\w ]+)(?: \(.+\))?",
        "Take the key out where it says nothing, or rename it to one that is read.",
    ),
    Rule(
        "unknown_role",
        r"(?P<where>.+): (?P<key>role) is .+; expected one of .+",
        "Use system, user, assistant or tool.",
    ),
    Rule("role_twice", r"(?P<where>.+) has two roles, .+", "Leave one of them."),
    Rule(
        "text_twice",
        r"(?P<where>.+) has (?:text twice, as|different texts as) (?P<key>.+?) and .+",
        "Leave one of them.",
    ),
    Rule(
        "weight_not_0_or_1",
        r"(?P<where>.+): (?P<key>\w+) is .+; a turn is learned \(1\) or not \(0\)",
        "Write 0 or 1.",
    ),
    Rule(
        "weights_differ", r"(?P<where>.+): .+ and .+ say different things", "Leave one of the keys."
    ),
    Rule(
        "loss_on_other_role",
        r"(?P<where>.+): (?P<key>\w+) asks to learn what the .+",
        "Write 0 there, or take the key out.",
    ),
    Rule(
        "part_not_text",
        r"(?P<where>.+) is not text; .+",
        "Only text can be scored: take the row out, or the part.",
    ),
    Rule(
        "not_encodable",
        r"(?P<where>.+) has half a surrogate pair, .+",
        "Mend the escape (\\ud83d and the like come in pairs).",
    ),
    Rule(
        "not_json_in_text",
        r"(?P<where>.+) is text that is no JSON: .+|(?P<other>.+) holds what JSON has no word .+",
        "Write it as JSON.",
    ),
    Rule(
        "tool_call_not_readable",
        r"(?P<where>.+) (?:has both tool_calls and function_call|is of type .+; only functions .+"
        r"|has (?:tool calls|reasoning), but it is the .+|has no name; expected a function's .+)"
        r"|(?P<other>.+): (?:function is .+; expected an object|arguments are .+; expected .+)",
        "Write calls and tools as OpenAI does: type, function, name, arguments.",
    ),
    Rule(
        "wrong_type",
        r"(?P<where>.+): (?P<key>content) is null or absent; expected text"
        r"|(?P<other>.+) is (?:null or absent|true or false|a number|text|a list|an object); "
        r"expected .+",
        "Write what is expected there, or take the row out.",
    ),
    Rule(
        "not_a_pair",
        r"(?P<where>.+) \d+ is no pair of a question and an answer",
        "Write a list of [question, answer].",
    ),
    # What a model's tokenizer and template make of it.
    Rule(
        "longer_than_context",
        r"longer than the model's context: \d+ tokens, .+",
        "Shorten or split the row, or screen with a model of a longer context.",
    ),
    Rule(
        "control_token",
        r"holds the tokenizer's control token .+",
        "Take the token out of the text; it could forge a turn.",
    ),
    Rule(
        "template_refuses",
        r"the chat template refuses this row: .+",
        "Order the turns as the template asks, or use --template paper.",
    ),
    Rule(  # the paper's blocks have no place for these either
        "template_hides_parts",
        r"the chat template doesn't show (?:all of )?this row's (?:tools|tool_calls|reasoning).+",
        "Write it into content, or use a model whose template shows it.",
    ),
    Rule(
        "template_hides_text",
        r"the chat template doesn't show .+|the chat template marks no answer .+"
        r"|the template leaves no prompt .+",
        f"{_PAPER}.",
    ),
    Rule(
        "template_mixes_turns",
        r"the chat template (?:changes this row's texts|puts|shows|doesn't keep|marks the text).+"
        r"|the tokenizer joins an answer .+",
        "Use another model's template, or --template paper.",
    ),
    Rule(
        "no_place_in_blocks",
        r"has .+, for which the paper's blocks have no place.+",
        "Write it into content, or use a model with a chat template that shows it.",
    ),
)
OTHER = Rule("other", r".+", "See the reason.")
"""A reason that an installed part gives."""

# What is told although the row can be used.
REPEATED_ID = Rule(
    "repeated_id",
    r"an earlier row is called the same .+",
    "Nothing has to be done: such rows are called row-N, and own_id has the file's name.",
)
UNSCORED = {
    name: Rule(f"unscored_{name}", r"the chat template leaves out .+", fix)
    for name, fix in (
        ("reasoning", "Only what the template shows is learned and scored."),
        ("system", "Only what the template shows is learned and scored."),
        ("answer", "The template marks only other answers as generated; those are scored."),
    )
}

_GROUPS = ("where", "turn", "other")


def rule_of(reason: str) -> Told:
    """The rule that a reason belongs to; `OTHER` where none fits."""
    for rule in RULES:
        found = rule.regex.fullmatch(reason)
        if found is None:
            continue
        said = found.groupdict()
        where = next((said[name] for name in _GROUPS if said.get(name)), "")
        at = said.get("at")
        return Told(rule, _bare(where), _bare(said.get("key") or ""), int(at) if at else None)
    return Told(OTHER)


def _bare(name: str) -> str:
    """A name without the quotes that messages put around it."""
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"" else name
