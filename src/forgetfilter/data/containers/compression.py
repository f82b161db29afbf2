"""Compressed files, told by their first bytes, and how far they may expand."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from forgetfilter.errors import DataError, MissingExtraError
from forgetfilter.text import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
MAX_RATIO = 200
"""Bytes that one stored byte may stand for. Rows of text seldom reach 20; gzip can reach 1,030 and
zstd far more, with a file that somebody made to fill the memory."""
LEAST_BYTES = 64 * 2**20
"""So many bytes are expanded whatever the ratio: they fit into any memory."""
MAX_BYTES = 8 * 2**30
"""And never more than so many. Nothing limits a file that is stored as it is."""
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
_CHUNK = 2**16
_COMMANDS = {"gzip": "gzip -dk", "zstd": "zstd -d"}


def decompress(stored: bytes, shown: str) -> bytes:
    """The bytes of a file, decompressed where they are gzip or zstd.

    Raises:
        DataError: the file is damaged, or expands beyond what is read.
        MissingExtraError: nothing that is installed reads zstd.
    """
    if not stored.startswith((GZIP, ZSTD)):
        return stored
    whole = io.BytesIO()
    with expanded(io.BytesIO(stored), len(stored), shown) as file:
        while piece := file.read(_CHUNK):
            whole.write(piece)
    return whole.getvalue()


@contextmanager
def expanded(stored: IO[bytes], size: int, shown: str) -> Generator[IO[bytes]]:
    """A file to read from its beginning, decompressed on the way where it is gzip or zstd.

    Args:
        stored: the file as it is stored; it can be set back to its beginning.
        size: how many bytes that are.
        shown: what messages call it.

    Raises:
        DataError: the file is damaged, or expands beyond what is read.
        MissingExtraError: nothing that is installed reads zstd.
    """
    start = stored.read(4)
    stored.seek(0)
    if start.startswith(GZIP):
        kind, source = "gzip", cast(Any, gzip.GzipFile(fileobj=stored))
    elif start.startswith(ZSTD):
        kind, source = "zstd", _zstd(stored, shown)
    else:
        yield stored
        return
    with bounded(source, size, shown, _COMMANDS[kind]) as file:
        try:
            yield file
        except (EOFError, OSError, ValueError, zlib.error) as error:
            # The libraries report damage as an error of the system that has no number.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise damaged(kind, error, shown) from None


def bounded(source: Any, size: int, shown: str, command: str) -> IO[bytes]:
    """What a decompressor gives, up to the limits.

    Args:
        source: the decompressor, a readable binary file.
        size: bytes of the file as it is stored.
        shown: what messages call it.
        command: what decompresses such a file, as messages advise it.
    """
    return io.BufferedReader(_Bounded(source, size, shown, command), _CHUNK)


class _Bounded(io.RawIOBase):
    """Reads on until more has come than a file of its size may hold."""

    def __init__(self, source: Any, size: int, shown: str, command: str) -> None:
        self._source, self._size, self._shown, self._command = source, size, shown, command
        self._given = 0
        self._most = min(MAX_BYTES, max(LEAST_BYTES, MAX_RATIO * size))

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Some more bytes.

        Raises:
            DataError: there are too many.
        """
        count = int(self._source.readinto(buffer))
        self._given += count
        if self._given > self._most:
            raise DataError(
                f"{self._shown} has {self._size:,} bytes and expands to more than "
                f"{self._most:,}. Expected at most {MAX_RATIO} times its size ({LEAST_BYTES:,} "
                f"bytes are always read, {MAX_BYTES:,} at most). If you know what is in it, "
                f"decompress it first ({self._command} FILE) and name the result."
            )
        return count

    def close(self) -> None:
        """Close the decompressor too."""
        if not self.closed:
            self._source.close()
        super().close()


def inner_name(name: str) -> str:
    """A file's name without what says that it is compressed."""
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _zstd(stored: IO[bytes], shown: str) -> Any:
    import pyarrow as pa

    if not pa.Codec.is_available("zstd"):
        raise MissingExtraError(
            f"{shown} is compressed with zstd, which this build of pyarrow can't read. Expected a "
            "pyarrow with zstd, or another compression. Decompress it first: zstd -d FILE"
        )
    return pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd")


def damaged(kind: str, error: Exception, shown: str) -> DataError:
    """What is said of a compressed file that is cut off or broken."""
    return DataError(
        f"{shown} starts like a {kind} file but can't be decompressed "
        f"({printable(str(error), 100)}). Expected a whole {kind} file. Copy or compress it anew."
    )
