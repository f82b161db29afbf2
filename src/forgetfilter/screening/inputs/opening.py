"""What is to be screened: opened, and refused before a model is loaded where it can't be used.

Nothing here imports the model's libraries, so a wrong file costs no seconds.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from glob import has_magic
from pathlib import Path
from typing import Any, cast

from forgetfilter.config import ReadingSettings, ScreenConfig, resolve
from forgetfilter.data.containers import EXPECTED
from forgetfilter.data.formats import Reading, formats
from forgetfilter.data.formats.keys import ID_COLUMNS
from forgetfilter.data.formats.mapping import AUTO
from forgetfilter.data.reading import read_sources, repeated_ids
from forgetfilter.data.records import RejectedRow, RowFile
from forgetfilter.data.sources import HUB, Source, is_data, open_sources
from forgetfilter.data.trainers import axolotl, llama_factory
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.pipes import STANDARD_INPUT
from forgetfilter.progress import Progress
from forgetfilter.text import printable

_IDS_TOLD = 3


def reading_of(settings: ReadingSettings) -> Reading:
    """How rows are to be read.

    Raises:
        ConfigError: no such format, or an entry that can't be used.
    """
    reading, _ = _told(settings)
    names = [each.name for each in formats()]
    if settings.format not in (AUTO, *names):
        raise ConfigError(
            f"reading.format is {settings.format!r}; expected auto or one of {', '.join(names)}."
        )
    if settings.format != AUTO:
        reading = replace(reading, format=settings.format)
    return replace(reading, columns={**reading.columns, **settings.columns})


def places_of(settings: ReadingSettings) -> list[str]:
    """Where the entry of a trainer's file says that the rows are; empty where it doesn't."""
    return _told(settings)[1]


def noisy_data_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What to screen, where only the entry of a trainer's file names it; else nothing."""
    told = settings.get("reading")
    if settings.get("noisy_data") or not isinstance(told, Mapping):
        return {}
    known = {name: told[name] for name in ("dataset_info", "axolotl") if told.get(name)}
    places = places_of(resolve(ReadingSettings, known))
    return {"noisy_data": places[0] if len(places) == 1 else places} if places else {}


def open_input(config: ScreenConfig, data: Any = None) -> list[Source]:
    """The sources of ``noisy_data``, or ``data`` in its place, and after them the trusted ones.

    Raises:
        DataError: one can't be used as a whole.
    """
    trusted = _named(config.trusted_data, "trusted_data") if config.trusted_data else []
    marked = [replace(source, is_trusted=True) for source in trusted]
    if data is not None:
        return [*open_sources(data), *marked]
    return [*_named(config.noisy_data, "noisy_data"), *marked]


def _named(where: str | Sequence[str], setting: str) -> list[Source]:
    for name in [where] if isinstance(where, str) else where:
        if name.startswith("<") and not Path(name).exists():
            raise DataError(
                f"{setting} is {name!r}: rows that were given in Python. Expected a file. Give "
                "them again, or name the run's own copy of them (input.jsonl or input-1.parquet)."
            )
        if not (name.startswith(HUB) or has_magic(name) or name == STANDARD_INPUT or _exists(name)):
            raise DataError(
                f"Can't read {setting} {printable(name, 300)!r}: there is no such file. "
                f"{EXPECTED} Check the path."
            )
    return open_sources(where)


def name_of(where: str | Sequence[str]) -> str:
    """What summaries and messages call the input."""
    return where if isinstance(where, str) else ", ".join(where)


def with_data(settings: Mapping[str, Any], data: Any) -> tuple[dict[str, Any], Any]:
    """Settings that name ``data``, and the rows themselves where it is no name of a place."""
    if not is_data(data):
        where = [str(one) for one in data] if isinstance(data, list | tuple) else str(data)
        return {**settings, "noisy_data": where}, None
    return {**settings, "noisy_data": f"<{type(data).__name__}>"}, data


def check_input(config: ScreenConfig) -> None:
    """Read the rows once, before anything costly.

    Raises:
        ConfigError: how they are to be read can't be used.
        DataError: the input can't be used.
    """
    check_rows(read_sources(open_input(config), reading_of(config.reading)), config)


def check_rows(file: RowFile, config: ScreenConfig) -> None:
    """Refuse an input of too many broken rows, or without a row that can be read.

    Raises:
        DataError: it is so.
    """
    most = config.reading.max_malformed
    if file.malformed > most * len(file):
        first = next(row for row in file.rejected)
        raise DataError(
            f"noisy_data {_shown(file)} is damaged: {file.malformed:,} of {len(file):,} rows are "
            f"malformed; the first that can't be used is line {first.line}: "
            f"{printable(first.reason, 300)}. Expected at most {most:.0%} (reading.max_malformed). "
            "Mend or download the file again, or raise the setting."
        )
    if not file.rows:
        raise nothing_to_score(len(file), file.rejected)


def nothing_to_score(count: int, rejected: Sequence[RejectedRow]) -> DataError:
    """What is said where every row is rejected."""
    first = rejected[0]
    return DataError(
        f"noisy_data has no row that can be scored ({count} read, all rejected; the first, line "
        f"{first.line}, because: {printable(first.reason, 600)}). Expected chat, "
        "prompt/completion, instruction or ShareGPT rows, or another format of docs/formats.md. "
        "Check the file's columns; if they have other names, say so: "
        f"--column-map {_map_for(first)}"
    )


def _map_for(row: RejectedRow) -> str:
    """Names for a row's columns, with the first two of text as a guess."""
    try:
        record: Any = json.loads(row.raw)
    except (ValueError, RecursionError):
        record = {}
    items = cast(dict[str, Any], record).items() if isinstance(record, dict) else ()
    texts = [
        name
        for name, value in items
        if isinstance(value, str) and value.strip() and name not in ID_COLUMNS
        if name.isprintable() and not set(name) & {",", "="}
    ]
    known = {name for each in formats() for name in each.needs}
    if len(texts) < 2 or known.issuperset(texts):
        return "prompt=COLUMN,completion=COLUMN"
    return shlex.quote(f"prompt={texts[0]},completion={texts[1]}")


def tell_of_ids(file: RowFile, progress: Progress) -> None:
    """Say where rows share what the file calls them."""
    repeated = repeated_ids(file)
    if repeated:
        shown = ", ".join(repr(printable(name, 40)) for name in repeated[:_IDS_TOLD])
        more = ", …" if len(repeated) > _IDS_TOLD else ""
        progress.say(
            f"noisy_data: {len(repeated)} ids name several rows each ({shown}{more}); "
            "scores.parquet calls these rows row-N, and has the file's id in own_id."
        )


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # told when it is read
        return True


def _told(settings: ReadingSettings) -> tuple[Reading, list[str]]:
    if settings.dataset_info and settings.axolotl:
        raise ConfigError(
            "reading.dataset_info and reading.axolotl are both given; expected one of them."
        )
    if settings.dataset_info:
        return llama_factory(settings.dataset_info)
    return axolotl(settings.axolotl) if settings.axolotl else (Reading(), [])


def _shown(file: RowFile) -> str:
    return repr(printable(file.path, 300))
