"""What is known of a model from its files, without its weights: its config, and a fingerprint."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from forgetfilter.errors import ModelError
from forgetfilter.model.loading import folder_checks, gguf_file
from forgetfilter.text import printable

# A context that no row should be held against: configs without a limit say so in many ways.
_UNLIMITED_TOKENS = 1_000_000


def model_fingerprint(source: str, trust_remote_code: bool = False) -> str:
    """What identifies the weights: the content of a folder's files or a file, or a hub id's commit.

    A folder is read once per process, and again as soon as one of its files has changed.

    Raises:
        ModelError: neither a folder nor a GGUF file nor a reachable hub id.
    """
    folder = Path(source)
    folder_checks.check_no_adapter(source)
    if gguf_file.is_gguf(source):
        gguf_file.check_gguf(source)
        return _file_digest(folder, *_version(folder))
    if folder.is_dir():
        return folder_fingerprint(folder)
    config = model_config(source, trust_remote_code)
    commit = getattr(config, "_commit_hash", None)
    return hashlib.sha256(f"{source}@{commit}".encode()).hexdigest()


def folder_fingerprint(folder: Path) -> str:
    """sha256 of a model folder: weights, configs, tokenizer files, code; read once a process."""
    names = sorted(
        path
        for path in folder.resolve().iterdir()
        if path.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}
    )
    return _files_digest(tuple((path, *_version(path)) for path in names))


def _version(path: Path) -> tuple[int, ...]:
    """What changes when a file is written: inode, size, times of content and of status."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=256)
def _files_digest(files: tuple[tuple[Any, ...], ...]) -> str:
    """sha256 of the names and contents of files, each given as its path and its `_version`."""
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@lru_cache(maxsize=16)
def _file_digest(path: Path, *_version: int) -> str:
    """sha256 of a file's content, given as its path and its `_version`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_config(source: str, trust_remote_code: bool = False) -> Any:
    """The config of a model, read without its weights."""
    from transformers import AutoConfig

    if gguf_file.is_gguf(source):
        gguf_file.check_gguf(source)
        return _gguf_config(source, *_version(Path(source)))
    folder_checks.check_no_adapter(source)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:  # a config of others may hold anything, and break anywhere
        raise ModelError(cannot_load("config", source, error)) from None
    folder_checks.check_is_language_model(source, config)
    return config


@lru_cache(maxsize=16)
def _gguf_config(source: str, *_version: int) -> Any:
    """The config of a GGUF file with that `_version`; reading it takes seconds."""
    from transformers import AutoConfig

    with gguf_file.reading(source, "config") as (folder, file):
        return AutoConfig.from_pretrained(folder, **file)


def context_tokens(source: str, trust_remote_code: bool = False) -> int:
    """How many tokens the model can attend to, read from its config without its weights."""
    return configured_context_tokens(model_config(source, trust_remote_code))


def configured_context_tokens(config: Any) -> int:
    """How many tokens a model with this config can attend to; very many where it sets no limit."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and 0 < value < _UNLIMITED_TOKENS:
            return value
    return _UNLIMITED_TOKENS


def hidden_size(source: str, trust_remote_code: bool = False) -> int:
    """Width of the model's residual stream, read from its config."""
    config = model_config(source, trust_remote_code)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.hidden_size)


def vocabulary_size(source: str, trust_remote_code: bool = False) -> int:
    """Number of tokens that the model tells apart, read from its config."""
    config = model_config(source, trust_remote_code)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.vocab_size)


def cannot_load(what: str, source: str, error: Exception) -> str:
    """What is said where a part of a model can't be loaded."""
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"Can't load the {what} of {source!r}: {printable(said, 400)} "
        "A local folder with config.json, tokenizer files and *.safetensors, a GGUF file, or a hub "
        "id that can be reached, is expected. Check --model."
    )
