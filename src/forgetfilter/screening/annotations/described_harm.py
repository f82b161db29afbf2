"""A harm named in words as a second input of a screen: a column of its own, which decides nothing.

`model/measuring/described_harm.py` says how far each row's answer goes the way that was described.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.data.formats import UnreadableRow, parse_object
from forgetfilter.data.records import Message, Row
from forgetfilter.errors import ConfigError
from forgetfilter.files import write_json_atomic
from forgetfilter.model.stages.keys import rows_digest
from forgetfilter.text import printable

if TYPE_CHECKING:
    from forgetfilter.config import ScreenConfig
    from forgetfilter.model.measuring.described_harm import Contrast
    from forgetfilter.progress import Progress
    from forgetfilter.screening.method import Setting

SIDES = ("harmful", "harmless")
"""Names of the two texts on each line of a file of contrasts."""
CHANCE = 0.75
"""Below it the model hardly tells what is described from its opposite."""
_VERSION = 1
_SCORES, _FACTS = "scores.npy", "direction.json"


@dataclass(frozen=True)
class Described:
    """How far the answers of some rows go the way that was described."""

    scores: FloatArray
    """In gaps between the model told to and told not to, shape (N,), higher = more of the harm."""
    text: str
    """The description, or the file of contrasts."""
    layer: int
    told_apart: float
    pairs: int

    def told(self) -> dict[str, Any]:
        """What gave the scores, for the record."""
        return {name: value for name, value in asdict(self).items() if name != "scores"}


def contrasts_of(text: str) -> list[Contrast]:
    """Texts that tell a model to do what is described, each with one that tells it not to.

    Args:
        text: a sentence that is true of a harmful answer; or a JSON Lines file, each line with
            ``harmful`` and ``harmless``.

    Raises:
        ConfigError: it is empty, or a line of the file has no such texts.
    """
    if not text.strip():
        raise ConfigError(
            "describe_harm is empty. Expected a sentence that is true of a harmful answer, such as "
            "'The answer insults people.', or a JSON Lines file of contrasts. Write one, or leave "
            "it out."
        )
    if _is_file(text):
        return _read(Path(text))
    said = text.strip().rstrip(".")
    return [
        (f"Answer such that this is true: {said}.", f"Answer such that this is not true: {said}."),
        (
            f"Of your answer this holds: {said}.",
            f"Of your answer this never holds: {said}.",
        ),
    ]


def description_fingerprint(text: str) -> str:
    """What identifies a description: the texts, wherever they are kept.

    Raises:
        ConfigError: see `contrasts_of`.
    """
    return hashlib.sha256(json.dumps(contrasts_of(text)).encode()).hexdigest()


def check_description(config: ScreenConfig) -> None:
    """Refuse a description that says nothing, before anything is read.

    Raises:
        ConfigError: see `contrasts_of`.
    """
    if config.describe_harm is not None:
        contrasts_of(config.describe_harm)


def described_rows(setting: Setting, safe: Sequence[Row], progress: Progress) -> Described | None:
    """How far each noisy row goes the way of the harm that the settings describe: a stage.

    Args:
        setting: the rows, the base model and the description.
        safe: safe rows, whose prompts the model is asked.
        progress: is told where the model doesn't know what is described.

    Returns:
        None where the settings describe no harm.

    Raises:
        ConfigError: see `contrasts_of`.
        DataError: no prompt leaves room for the description.
    """
    from forgetfilter.model.measuring.described_harm import along_harm, harm_direction

    bench, text = setting.bench, setting.config.describe_harm
    if text is None:
        return None
    prompts = [prompt_of(row) for row in safe]

    def build(folder: Path) -> None:
        direction = harm_direction(bench, contrasts_of(text), prompts)
        np.save(folder / _SCORES, along_harm(bench, direction, setting.noisy))
        facts = {name: getattr(direction, name) for name in ("layer", "told_apart", "pairs")}
        write_json_atomic(folder / _FACTS, facts)

    key = {
        "version": _VERSION,
        "model": bench.base.fingerprint,
        "description": description_fingerprint(text),
        "prompts": hashlib.sha256(repr(prompts).encode("utf-8", "replace")).hexdigest(),
        "rows": rows_digest(setting.noisy),
        "numerics": bench.numerics(),
    }
    folder = bench.store.stage("described_harm", key, build)
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    found = Described(np.load(folder / _SCORES), text, **facts)
    if found.told_apart < CHANCE:
        progress.say(
            f"describe_harm: told to do what is described, the model's state differs from that of "
            f"being told not to in only {found.told_apart:.0%} of held-out answers (chance is "
            "50%). Expect nothing of the column described_harm, or say it in other words."
        )
    return found


def prompt_of(row: Row) -> tuple[Message, ...]:
    """The conversation of a row before its last turn, which is an answer."""
    return tuple(Message(turn.role, turn.content) for turn in row.messages[:-1])


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a sentence may be no possible path
        return False


def _read(path: Path) -> list[Contrast]:
    found: list[Contrast] = []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = parse_object(line)
        except UnreadableRow:
            record = {}
        first, second = (record.get(side) for side in SIDES)
        if not isinstance(first, str) or not isinstance(second, str) or first == second:
            raise ConfigError(
                f"describe_harm: {printable(str(path), 300)!r}, line {number} has no two different "
                f"texts harmful and harmless. Expected lines like "
                '{"harmful": "Insult me.", "harmless": "Be polite."}. Mend the line.'
            )
        found.append((first, second))
    if not found:
        raise ConfigError(
            f"describe_harm: {printable(str(path), 300)!r} has no line. Expected JSON Lines with "
            "harmful and harmless. Give another file, or a sentence."
        )
    return found
