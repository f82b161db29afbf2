"""Where rows come from: files, patterns, saved data sets, the Hugging Face Hub, or Python."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from forgetfilter.data.containers import (
    CONTAINERS,
    EXPECTED,
    Container,
    Record,
    container_of,
    decompress,
)
from forgetfilter.data.containers.base import MAX_LINE_BYTES, as_line
from forgetfilter.data.containers.saved_folder import check_saved
from forgetfilter.data.containers.tables import parquet_of, stream_of
from forgetfilter.data.many_rows.line_files import is_large_jsonl, lines_of
from forgetfilter.errors import DataError
from forgetfilter.files import sha256_file
from forgetfilter.pipes import STANDARD_INPUT, is_pipe, read_pipe
from forgetfilter.text import printable

HUB = "hub:"
"""Begins the name of a data set on the Hub: ``hub:owner/name[/subset][@revision][:split]``."""


_PIECE = 2**20


@dataclass(frozen=True)
class Source:
    """One file, or what stands for one."""

    name: str
    """What the user calls it."""
    fingerprint: str
    """sha256 of the bytes as they are stored."""
    container: Container
    path: Path | None
    """The file; None where the bytes were made, or came through a pipe."""
    made: bytes | None = None
    """The bytes, as they would be stored, of what is no file."""
    is_trusted: bool = False
    """Whether its rows are known to be harmless."""

    def stored(self) -> bytes:
        """The bytes as they are stored, compressed perhaps.

        Raises:
            DataError: the file can't be read.
        """
        if self.made is not None:
            return self.made
        assert self.path is not None
        return read_bytes(self.path)

    def chunks(self) -> Iterator[bytes]:
        """The same in pieces."""
        if self.path is None or is_pipe(self.path):
            yield self.stored()
            return
        try:
            with open(self.path, "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except (OSError, ValueError):
            yield read_bytes(self.path)  # which tells what is wrong

    def data(self) -> bytes:
        """The bytes that the container reads."""
        return decompress(self.stored(), quoted(self.name))

    def records(self) -> Iterator[Record]:
        """All records, readable or not; a file of JSON Lines is read as they are asked for.

        Raises:
            DataError: the file as a whole can't be read.
        """
        if self.container.name == "jsonl" and self.path is not None and not is_pipe(self.path):
            return lines_of(self.path, is_whole=True)
        return self.container.records(self.data(), MAX_LINE_BYTES)


def open_sources(where: Any) -> list[Source]:
    """Every source that ``where`` names: a path, a pattern, a Hub name, data, or a list of paths.

    Raises:
        DataError: one of them is not there, or as a whole is not what can be read.
    """
    names = _as_names(where)
    if names is None:
        return [_source_of_data(where)]
    found: list[Source] = []
    for name in names:
        if name.startswith(HUB):
            found.append(_from_hub(name))
        else:
            found += [open_file(path) for path in paths_of(name)]
    return found


def open_file(path: Path, container: str | None = None) -> Source:
    """One file or saved data set; its content says what it is, unless ``container`` does."""
    shown = quoted(path)
    if path.is_dir():
        return _saved(path)
    if container in (None, "jsonl") and is_large_jsonl(path):
        try:
            return Source(str(path), sha256_file(path), CONTAINERS["jsonl"], path)
        except OSError:
            pass  # told by what follows
    stored = read_bytes(path)
    fingerprint = hashlib.sha256(stored).hexdigest()
    data = decompress(stored, shown)
    kind = CONTAINERS[container] if container else container_of(path, shown, data)
    if is_pipe(path):
        return Source(str(path), fingerprint, kind, None, stored)
    return Source(str(path), fingerprint, kind, path)


def is_data(where: Any) -> bool:
    """Whether ``where`` holds rows itself, and doesn't name a place of them."""
    return _as_names(where) is None


def read_bytes(path: Path) -> bytes:
    """A file as it is stored.

    Raises:
        DataError: it isn't there, or can't be read.
    """
    shown = quoted(path)
    try:
        return read_pipe(path) if is_pipe(path) else path.read_bytes()
    except FileNotFoundError:
        found, remedy = f"No file at {shown}.", "Check the path."
    except IsADirectoryError:
        found, remedy = f"{shown} is a folder.", "Name a file in it."
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        found, remedy = f"{shown} can't be read: {reason}.", "Check the path and its permissions."
    raise DataError(f"{found} {EXPECTED} {remedy}")


def quoted(name: str | Path) -> str:
    """A path or name as messages show it."""
    return repr(printable(str(name), 300))


def _as_names(where: Any) -> list[str] | None:
    if isinstance(where, str | Path):
        return [str(where)]
    if isinstance(where, list | tuple):
        items = cast(Sequence[Any], where)
        if items and all(isinstance(item, str | Path) for item in items):
            return [str(item) for item in items]
    return None


def paths_of(name: str) -> list[Path]:
    """The path, or the files that match it where it is a pattern and no file is called so.

    Raises:
        DataError: none matches.
    """
    if name == STANDARD_INPUT:
        return [Path("/dev/stdin")]
    path = Path(name)
    if not glob.has_magic(name):
        return [path]
    try:
        if path.exists():
            return [path]
    except (OSError, ValueError):
        return [path]
    found = sorted(one for one in glob.glob(name, recursive=True) if Path(one).is_file())
    if not found:
        raise DataError(
            f"No file matches {quoted(name)}. {EXPECTED} Check the pattern, and put it between "
            "quotes."
        )
    return [Path(one) for one in found]


def _saved(path: Path) -> Source:
    """A folder that `save_to_disk` has written, as one table."""
    shown = quoted(path)
    if (path / "dataset_dict.json").is_file():
        splits = sorted(one.name for one in path.iterdir() if (one / "state.json").is_file())
        if len(splits) != 1:
            raise DataError(
                f"{shown} holds the splits {', '.join(splits) or '(none)'}. Expected one of them. "
                f"Name it: {quoted(path / (splits[0] if splits else 'train'))}"
            )
        path = path / splits[0]
    if not (path / "state.json").is_file():
        files = sorted(one for one in path.iterdir() if one.is_file())
        suffix = files[0].suffix if files else ".jsonl"
        raise DataError(
            f"{shown} is a folder. {EXPECTED} Name a file in it, or all of a kind between quotes: "
            f"{quoted(path / f'*{suffix}')}"
        )
    from datasets import load_from_disk

    check_saved(path, shown)
    try:
        dataset: Any = load_from_disk(str(path))
    except Exception as error:  # whatever is wrong with its files
        raise DataError(
            f"{shown} can't be read as a saved data set ({printable(str(error), 150)}). Expected "
            "what Dataset.save_to_disk writes. Save it again."
        ) from None
    return _made(str(path), "dataset", stream_of(_table(dataset)))


def _from_hub(name: str) -> Source:
    """One split of a data set on the Hub, or in a folder that stands for one."""
    rest = name.removeprefix(HUB)
    rest, _, split = rest.partition(":")
    rest, _, revision = rest.partition("@")
    parts = rest.split("/")
    is_local = Path(rest).is_dir()
    repo, subset = (rest, "") if is_local else ("/".join(parts[:2]), "/".join(parts[2:]))
    if not repo or any(not part for part in parts[1:]):
        raise DataError(
            f"{quoted(name)} names no data set. Expected {HUB}owner/name, perhaps with /subset, "
            "@revision and :split. Mend the name."
        )
    from datasets import load_dataset

    try:
        dataset: Any = load_dataset(
            repo, subset or None, split=split or "train", revision=revision or None
        )
    except Exception as error:  # the network, the name, a split that isn't there
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"{quoted(name)} can't be loaded: {printable(said, 250)}. Expected {HUB}owner/name, "
            "perhaps with /subset, @revision and :split (train where none is named). Check the "
            "name and the connection, or download a file of it and name that."
        ) from None
    return _made(name, "parquet", parquet_of(_table(dataset)))


def _source_of_data(where: Any) -> Source:
    """Rows that are given in Python: a Dataset, a DataFrame, or a list of dictionaries."""
    kind = type(where).__name__
    if isinstance(where, list | tuple) and all(isinstance(row, dict) for row in where):
        rows = cast(Sequence[dict[str, Any]], where)
        if not rows:
            raise DataError(f"The {kind} of rows is empty. Expected dictionaries. Give it some.")
        return _made(f"<{kind}>", "jsonl", b"".join(as_line(row) + b"\n" for row in rows))
    if kind == "DataFrame" and hasattr(where, "to_parquet"):
        import pyarrow as pa

        try:
            table = pa.Table.from_pandas(where, preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(
                f"The DataFrame fits no table: {printable(str(error), 150)}. Expected one type in "
                "each column. Mend the column, or give a list of dictionaries."
            ) from None
        return _made("<DataFrame>", "parquet", parquet_of(table))
    if kind == "Dataset" and hasattr(where, "data"):
        return _made("<Dataset>", "parquet", parquet_of(_table(where)))
    if kind in ("DatasetDict", "IterableDatasetDict"):
        splits = ", ".join(map(str, where))
        raise DataError(
            f"A {kind} with the splits {splits} was given. Expected one Dataset. Choose a split, "
            "for example data['train']."
        )
    raise DataError(
        f"Rows were given as {kind}. Expected a path, a datasets.Dataset, a pandas DataFrame or a "
        "list of dictionaries. Turn them into one of these."
    )


def _table(dataset: Any) -> Any:
    """A data set's rows as an Arrow table, as they are selected and ordered."""
    table = dataset.with_format("arrow")[
        :
    ]  # writes no file beside the data, unlike flatten_indices
    return table.replace_schema_metadata(dataset.features.arrow_schema.metadata)


def _made(name: str, container: str, data: bytes) -> Source:
    fingerprint = hashlib.sha256(data).hexdigest()
    return Source(name, fingerprint, CONTAINERS[container], None, data)
