"""Compressed files, told by their first bytes."""

from __future__ import annotations

import gzip
import zlib

from forgetfilter.errors import DataError, MissingExtraError
from forgetfilter.text import printable

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")


def decompress(stored: bytes, shown: str) -> bytes:
    """The bytes of a file, decompressed where they are gzip or zstd.

    Raises:
        DataError: the file is damaged.
        MissingExtraError: nothing that is installed reads zstd.
    """
    if stored.startswith(GZIP):
        try:
            return gzip.decompress(stored)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged("gzip", error, shown) from None
    return _zstd(stored, shown) if stored.startswith(ZSTD) else stored


def inner_name(name: str) -> str:
    """A file's name without what says that it is compressed."""
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _zstd(stored: bytes, shown: str) -> bytes:
    import pyarrow as pa

    need_zstd(shown)
    try:
        return pa.CompressedInputStream(pa.BufferReader(stored), "zstd").read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged("zstd", error, shown) from None


def need_zstd(shown: str) -> None:
    """Raise where nothing that is installed reads zstd."""
    import pyarrow as pa

    if not pa.Codec.is_available("zstd"):
        raise MissingExtraError(
            f"{shown} is compressed with zstd, which this build of pyarrow can't read. Expected a "
            "pyarrow with zstd, or another compression. Decompress it first: zstd -d FILE"
        )


def damaged(kind: str, error: Exception, shown: str) -> DataError:
    """What is said of a compressed file that is cut off or broken."""
    return DataError(
        f"{shown} starts like a {kind} file but can't be decompressed "
        f"({printable(str(error), 100)}). Expected a whole {kind} file. Copy or compress it anew."
    )
