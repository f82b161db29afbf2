"""A file looked through before it is screened: its rows alone, or as a model would see them.

Without a model nothing here imports the model's libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forgetfilter.config import ReadingSettings, resolve
from forgetfilter.data.formats import UnreadableRow, parse_row
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.data.tokens.template_process import stop_worker
from forgetfilter.data.tokens.templates import UnrenderableError
from forgetfilter.data.validation.problems import unfit, unreadable
from forgetfilter.data.validation.validating import find_row, validate
from forgetfilter.errors import ConfigError
from forgetfilter.screening.inputs.opening import places_of, reading_of
from forgetfilter.text import printable

_MOST_TOKEN = 60


@dataclass(frozen=True)
class Against:
    """The model against which rows are checked, and how it sees them."""

    model: str
    template: str = "auto"
    max_length_tokens: int | None = None
    trust_remote_code: bool = False

    def encoder(self) -> Encoder:
        """What turns rows into tokens for it.

        Raises:
            ModelError: the model can't be used.
        """
        from forgetfilter.model.loading.base_model import load_tokenizer, quiet_dependencies
        from forgetfilter.model.loading.encoders import open_encoder

        with quiet_dependencies():
            return open_encoder(
                self.model,
                load_tokenizer(self.model, self.trust_remote_code),
                template=self.template,
                max_length_tokens=self.max_length_tokens,
                trust_remote_code=self.trust_remote_code,
            )


def validate_files(
    where: Sequence[str],
    reading: dict[str, Any],
    against: Against | None = None,
    most_problems: int = 20,
) -> dict[str, Any]:
    """What is wrong with the rows of files, as JSON; docs/validate.md has its keys.

    Args:
        where: files, patterns or ``hub:`` names; by default those that ``reading`` names.
        reading: settings of ``reading``.
        against: a model to check the rows against too.
        most_problems: how many are listed; all are counted.

    Raises:
        ConfigError: no file is named, or how rows are to be read can't be used.
        ModelError: the model can't be used.
    """
    names, how = _told(where, reading)
    encoder = against.encoder() if against else None
    try:
        found = validate(names, how, encoder, most_problems)
    finally:
        if encoder is not None:
            stop_worker()
    told = {**found.as_json(), "model": None}
    if against is not None and encoder is not None:
        told["model"] = {
            "name": printable(against.model, 300),
            "template": encoder.template_reason,
            "max_length_tokens": encoder.max_length_tokens,
            "tokens": found.tokens["total"],
            "tokens_with_loss": found.tokens["with_loss"],
            "longest": found.tokens["longest"],
            "longest_row": found.tokens["longest_row"] if found.tokens["longest"] else None,
        }
    return told


def show_row(
    where: Sequence[str], number: int, reading: dict[str, Any], against: Against
) -> dict[str, Any]:
    """The tokens of one row and which of them carry loss, or why it can't be used, as JSON.

    Raises:
        ConfigError: see `validate_files`.
        DataError: there is no such row, or a file can't be read.
        ModelError: the model can't be used.
    """
    names, how = _told(where, reading)
    place, record, row = find_row(names, number, how)
    told: dict[str, Any] = {
        "status": 1,
        "file": printable(place.file, 300),
        "line": place.line,
        "row": place.row,
        "id": printable(place.own_id, 60),
        "problem": None,
        "tokens": [],
        "unscored": [],
    }
    if row is None:
        reason = record.reason or "no record"
        if record.columns is not None:
            try:
                parse_row(record.columns, how)
            except UnreadableRow as error:
                reason = str(error)
        return {**told, "problem": unreadable(place, record, reason, how).as_json()}
    try:
        encoder = against.encoder()
        encoded = encoder.encode_one(row)
        pieces = encoder.pieces(row)
    except UnrenderableError as error:
        return {**told, "problem": unfit(place, row.messages, str(error)).as_json()}
    finally:
        stop_worker()
    tokens = [
        {"id": token, "text": printable(text, _MOST_TOKEN), "carries_loss": carries_loss}
        for token, (text, carries_loss) in zip(encoded.input_ids.tolist(), pieces, strict=True)
    ]
    return {**told, "status": 0, "tokens": tokens, "unscored": list(encoded.unscored)}


def _told(where: Sequence[str], reading: dict[str, Any]) -> tuple[list[str], Any]:
    settings = resolve(ReadingSettings, reading)
    names = list(where) or places_of(settings)
    if not names:
        raise ConfigError(
            "No file is named. Expected at least one, or --dataset-info or --axolotl with an entry "
            "that names one. Name it: forgetfilter validate FILE"
        )
    return names, reading_of(settings)
