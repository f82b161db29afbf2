"""A model in one GGUF file: what transformers is called with to read it, and what can be wrong.

The file is shown to transformers alone in a folder of its own: a tokenizer or an adapter that lies
beside it belongs to something else. Weights are dequantized, so that every linear layer is an
ordinary one that adapters can stand beside.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forgetfilter.errors import MissingExtraError, ModelError
from forgetfilter.text import printable

SUFFIX = ".gguf"
MAGIC = b"GGUF"
# What the readers raise for a file that is cut off or damaged, and for one that they don't know.
_UNREADABLE = (
    ImportError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)


def is_gguf(source: str) -> bool:
    """Whether ``source`` is to be read as a GGUF file: it is a file, or is named like one."""
    path = Path(source)
    return path.is_file() or (path.suffix == SUFFIX and not path.is_dir())


def check_gguf(source: str) -> None:
    """Raise unless ``source`` is a GGUF file by its first bytes, and can be read here.

    Raises:
        MissingExtraError: the package gguf is not installed.
        ModelError: there is no such file, or it is something else.
    """
    shown = repr(printable(source, 300))
    try:
        with open(source, "rb") as file:
            found = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(
            f"Can't read the model {shown}: {error.strerror}. A GGUF file, a folder or a hub id is "
            "expected. Check --model."
        ) from None
    if found != MAGIC:
        raise ModelError(
            f"{shown} is no GGUF file: it begins with {found!r}. A file that begins with {MAGIC!r} "
            "is expected, or a folder with *.safetensors. Check --model, or get the file anew."
        )
    if find_spec("gguf") is None:
        raise MissingExtraError(
            f"{shown} is a GGUF file, and the package gguf, which reads it, is not installed. "
            "Expected forgetfilter with its extra. Run: pip install 'forgetfilter[gguf]' (or: pip "
            "install gguf)."
        )


@contextmanager
def reading(source: str, what: str) -> Generator[tuple[str, dict[str, Any]]]:
    """The folder and the further arguments with which transformers reads ``source``.

    Args:
        source: a GGUF file.
        what: names in an error what was being read: config, tokenizer, model.

    Raises:
        MissingExtraError: the package gguf is not installed.
        ModelError: the file is absent, no GGUF file, damaged, or of an architecture that
            transformers can't read; also for what the reader inside raises.
    """
    check_gguf(source)
    try:
        with tempfile.TemporaryDirectory(prefix="forgetfilter-") as folder:
            name = f"model{SUFFIX}"
            (Path(folder) / name).symlink_to(Path(source).resolve())
            _silence_dequantizing()
            yield folder, {"gguf_file": name}
    except _UNREADABLE as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"Can't read the {what} in {printable(source, 300)!r}: "
            f"{printable(first, 200) or type(error).__name__}. A whole GGUF file of an "
            "architecture that transformers can read is expected (llama, qwen2, gemma3 ...). Get "
            "the file anew, or take the model as a folder with *.safetensors."
        ) from None


def _silence_dequantizing() -> None:
    """Do without transformers' bar of dequantized tensors, which its own setting leaves on."""
    from transformers import modeling_gguf_pytorch_utils as reader

    module: Any = reader
    module.tqdm = lambda found, **_: found


def dequantized() -> Any:
    """The setting with which transformers turns every weight back into plain numbers."""
    from transformers import GgufConfig

    return GgufConfig(dequantize=True)


def without_template(source: str) -> ModelError:
    """The error for a file that doesn't say how a conversation is written for its model."""
    return ModelError(
        f"{printable(source, 300)!r} has no chat template, so it doesn't say how its model was "
        "shown conversations. A GGUF file of a chat model with its template is expected. Take one, "
        "or give --set template=paper for plain Input/Response blocks."
    )
