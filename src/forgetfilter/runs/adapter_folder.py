"""An adapter in the user's folder: whose it is, and replacing no file but our own.

A small file beside the adapter says from which decision it was made and lists the files that were
written. It is written before them and again after them, so that whoever finds it knows whether a
killed process left them half written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from forgetfilter.errors import RunExistsError
from forgetfilter.files import (
    list_files,
    remove,
    sha256_file,
    write_bytes_atomic,
    write_chunks_atomic,
    write_json_atomic,
)
from forgetfilter.places import require_writable_folder, shown

ORIGIN_FILE = "forgetfilter.json"
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_CARD = "README.md"


@dataclass(frozen=True)
class Origin:
    """What an adapter was made from."""

    decision: str
    """Fingerprint of the decision on the rows."""
    noisy_data: str
    """sha256 of the screened file."""
    model: str
    """Fingerprint of the base model."""
    rows: int
    """How many kept rows it was trained on."""
    seconds: float
    """How long training took."""
    version: str
    """Of forgetfilter."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """sha256 by name of each file that was written."""
    is_complete: bool = False
    """Whether all of them were."""


def read_origin(output: Path) -> Origin | None:
    """What the adapter in a folder was made from; None where nothing says so."""
    try:
        found: Any = json.loads((output / ORIGIN_FILE).read_text(encoding="utf-8"))
        origin = Origin(**cast(dict[str, Any], found))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    names = cast(object, origin.files)
    is_whole = isinstance(names, dict) and all(map(_is_within, cast(dict[str, Any], names)))
    return origin if is_whole else None


def _is_within(name: str) -> bool:
    """Whether a name is that of a file in the folder, wherever the list is from."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def require_place(output: Path, run: Path, decision: str, *, overwrite: bool) -> Origin | None:
    """Raise unless the adapter of ``decision`` may be written to ``output``.

    Returns:
        The origin of the adapter that is there already, if it is the very one and whole.

    Raises:
        RunExistsError: the folder is the run's, holds other files or another adapter, or can't be
            written to.
    """
    place, own = output.resolve(), run.resolve()
    if place == own or own in place.parents or place in own.parents:
        raise RunExistsError(
            f"{shown(output)} is the run folder, or lies in it or around it. Expected a folder "
            "apart from it. Choose another --output-dir."
        )
    require_writable_folder(output)
    origin = read_origin(output)
    is_adapter = (output / _WEIGHTS).is_file()
    if origin is None and not is_adapter:
        if output.is_dir() and any(output.iterdir()):
            raise RunExistsError(
                f"{shown(output)} holds other files. Expected a new or empty folder, or one with "
                "an adapter that may be replaced. Choose another --output-dir."
            )
        return None
    if origin is not None and origin.decision == decision:
        if not origin.is_complete or not is_adapter:
            return None
        changed = [name for name in origin.files if not _is_as_written(output, origin, name)]
        if not {_WEIGHTS, _CONFIG} & set(changed):
            return origin
        found = f"the adapter of this decision, changed since: {', '.join(changed)}"
    elif origin is not None:
        found = "another adapter, of another decision"
    else:
        found = "another adapter, of which nothing says what it was made from"
    if overwrite:
        return None
    raise RunExistsError(
        f"{shown(output)} holds {found}. Expected a new folder, or the adapter of this very "
        "decision. Use --overwrite to replace it (other files beside it stay), or another "
        "--output-dir."
    )


def write_adapter(adapter: Path, output: Path, origin: Origin, card: str) -> None:
    """Copy an adapter to ``output``, over an earlier one of ours; other files are left alone.

    ``card`` takes the place of the empty form that PEFT writes as a model card.
    """
    earlier = read_origin(output)
    text = card.encode("utf-8")
    names = sorted({*list_files(adapter), _CARD})
    files = {name: sha256_file(adapter / name) for name in names if name != _CARD}
    files[_CARD] = hashlib.sha256(text).hexdigest()
    written = {
        name
        for name in names
        # A model card that was edited is the user's.
        if name in (_WEIGHTS, _CONFIG)
        or not (output / name).exists()
        or sha256_file(output / name) == files[name]
        or (earlier is not None and _is_as_written(output, earlier, name))
    }
    gone = [
        name
        for name in (earlier.files if earlier is not None else ())
        if name not in files and _is_as_written(output, earlier, name)
    ]
    record = asdict(origin) | {"files": {name: files[name] for name in sorted(written)}}
    write_json_atomic(output / ORIGIN_FILE, {**record, "is_complete": False})
    # Without its configuration a half written adapter can't be loaded by mistake.
    remove(output / _CONFIG)
    for name in gone:
        remove(output / name)
    for name in sorted(written - {_CONFIG, _CARD}):
        _copy(adapter / name, output / name)
    if _CARD in written:
        write_bytes_atomic(output / _CARD, text)
    _copy(adapter / _CONFIG, output / _CONFIG)
    write_json_atomic(output / ORIGIN_FILE, {**record, "is_complete": True})


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as file:
        write_chunks_atomic(target, iter(lambda: file.read(2**20), b""))


def _is_as_written(output: Path, origin: Origin | None, name: str) -> bool:
    path = output / name
    return (
        origin is not None
        and name in origin.files
        and path.is_file()
        and sha256_file(path) == origin.files[name]
    )
