"""A model's folder is read once a command, and again as soon as it has changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.config import ScreenConfig
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

WEIGHTS = "model.safetensors"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the content of each file is hashed, by the file's path."""
    count: Counter[str] = Counter()
    digest = hashlib.file_digest

    def counted(file: Any, *rest: Any) -> Any:
        count[os.path.realpath(file.name)] += 1
        return digest(file, *rest)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return count


@pytest.fixture
def model(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    """A copy of a tiny model that no other test has read."""
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


def test_a_screen_reads_the_weights_to_name_them_once(
    model: Path, tmp_path: Path, quick_config: Callable[..., ScreenConfig], hashed: Counter[str]
):
    config = quick_config(tmp_path / "run", model=str(model), signal="completion_loss")
    screen(config, Progress(is_silent=True))
    screen(config, Progress(is_silent=True))
    assert hashed[os.path.realpath(model / WEIGHTS)] == 1


def test_a_changed_folder_is_read_again_and_named_anew(model: Path, hashed: Counter[str]):
    weights = model / WEIGHTS
    first = model_fingerprint(str(model))
    assert model_fingerprint(f"{model}/.") == first
    assert hashed[os.path.realpath(weights)] == 1
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # as tools that copy times do
    second = model_fingerprint(str(model))
    assert second != first
    (model / "added.json").write_text("{}")
    assert len({first, second, model_fingerprint(str(model))}) == 3
    content[-1] ^= 1
    weights.write_bytes(content)
    (model / "added.json").unlink()
    assert model_fingerprint(str(model)) == first
