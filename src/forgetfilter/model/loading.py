"""Load a base model and tokenizer; decide dtype and device, say why."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from forgetfilter.errors import ModelError
from forgetfilter.model import folder_checks, gguf_file
from forgetfilter.model.fewer_bits import WHOLE_HERE, check_loadable, loaded_as
from forgetfilter.model.parted import placed
from forgetfilter.settings import LoadSettings
from forgetfilter.text import printable

# A context that no row should be held against: configs without a limit say so in many ways.
_UNLIMITED_TOKENS = 1_000_000
# Of x86 (AVX-512, AMX) and of ARM.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
CPU_BFLOAT16_WIDTH = 512
"""Width from which bfloat16 is chosen on a CPU that has it; see `benchmarks/bfloat16.py`."""


@contextmanager
def quiet_dependencies() -> Generator[None]:
    """Keep back what dependencies say to their own developers; also works as a decorator.

    Deprecations inside transformers, trl and peft, and their own progress bars: a user can act on
    none of them, and our progress says the same. Errors and all other warnings come through.
    """
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            # PEFT's patterns for experts name what some mixtures don't have.
            warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys did not")
            # PEFT corrects this by itself and says so for every layer of a GPT-2.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
            yield
    finally:
        if had_bars:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class Placement:
    """Where and in which number format a model computes, and why."""

    device: str
    dtype: torch.dtype
    reason: str

    @property
    def is_exact(self) -> bool:
        """Whether readings are the same whichever rows share a forward pass.

        In float32 they are, to 1e-6 nats a token. A shorter format rounds by the shape of a pass:
        in bfloat16 a row's mean loss moves by up to 0.06 nats a token.
        """
        return self.dtype == torch.float32

    @property
    def has_autocast(self) -> bool:
        """Whether every forward pass rounds what it multiplies to ``dtype``, adapters too.

        On a CPU, where products of float32 adapters would cost most of what bfloat16 saves. The
        adapters themselves, and their gradients, stay in float32.
        """
        return self.device == "cpu" and not self.is_exact


def choose_placement(
    device: Literal["auto", "cpu", "cuda", "mps"],
    dtype: Literal["auto", "float32", "bfloat16"],
    width: int | None = None,
) -> Placement:
    """Pick device and dtype from what is there.

    Args:
        device: auto, or which.
        dtype: auto, or which.
        width: of the model's residual stream, if known: a narrow model gains nothing from bfloat16
            on a CPU, and stays exact.

    Raises:
        ModelError: a device was asked for that this machine doesn't have.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device != "auto" and not available[device]:
        here = ", ".join(name for name, there in available.items() if there)
        raise ModelError(
            f"device is {device!r}, but only {here} is available. Use --device auto, or a machine "
            "that has it."
        )
    chosen = next(n for n in ("cuda", "mps", "cpu") if available[n]) if device == "auto" else device
    if dtype != "auto":
        return Placement(chosen, getattr(torch, dtype), f"{chosen}, {dtype} (asked for)")
    if chosen == "cuda" and torch.cuda.is_bf16_supported():
        return Placement(chosen, torch.bfloat16, "cuda, bfloat16 (the GPU has it)")
    is_wide = width is not None and width >= CPU_BFLOAT16_WIDTH
    if chosen == "cpu" and is_wide and cpu_has_bfloat16():
        reason = "cpu, bfloat16 with float32 adapters (the CPU has it, and the model is wide)"
        return Placement(chosen, torch.bfloat16, reason)
    return Placement(chosen, torch.float32, f"{chosen}, float32 (exact and fast enough here)")


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices itself; known on Linux only.

    Elsewhere it is imitated, which is slower than float32.
    """
    return not _BFLOAT16_FLAGS.isdisjoint(_cpu_flags())


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    """Names of the CPU's instruction sets, as Linux lists them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    named = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return frozenset(named[0].partition(":")[2].split()) if named else frozenset()


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


def load_tokenizer(source: str, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of ``source`` and make sure that it names a pad token.

    Which one does not matter: padding is masked by position, never by id (see `padding_id`), so one
    that is used elsewhere unlearns nothing, and no token is ever added to the vocabulary.

    Raises:
        ModelError: there is none, or its vocabulary is empty.
    """
    from transformers import AutoTokenizer

    tokenizer: Any
    if gguf_file.is_gguf(source):
        with gguf_file.reading(source, "tokenizer") as (folder, file):
            tokenizer = AutoTokenizer.from_pretrained(folder, **file)
        tokenizer.name_or_path = str(Path(source).resolve())
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        except Exception as error:  # its files may hold anything
            raise ModelError(_cannot_load("tokenizer", source, error)) from None
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if not vocabulary:
        raise ModelError(_cannot_load("tokenizer", source, ValueError("its vocabulary is empty.")))
    if tokenizer.pad_token not in vocabulary:
        names = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token)
        known = [name for name in names if name in vocabulary]
        tokenizer.pad_token = known[0] if known else min(vocabulary, key=lambda t: vocabulary[t])
    return tokenizer


def padding_id(model: Any, tokenizer: Any) -> int:
    """The id that fills up rows: the tokenizer's, or 0 where the model has no embedding for that.

    Padding is masked by position and never read, so any id within the embedding serves, and the
    embedding is never resized.
    """
    chosen = tokenizer.pad_token_id
    known: int = model.get_input_embeddings().weight.shape[0]
    return chosen if chosen is not None and 0 <= chosen < known else 0


@quiet_dependencies()
def load_base_model(
    source: str,
    placement: Placement,
    trust_remote_code: bool = False,
    settings: LoadSettings = WHOLE_HERE,
) -> Any:
    """Load a causal language model, in evaluation mode, all weights frozen.

    From safetensors in a folder or on the hub, or from a GGUF file, whose weights become plain
    numbers of ``placement.dtype``. ``settings`` may hold linear layers in fewer bits, and spread
    the model over devices.

    Raises:
        ModelError: not found, not a causal model, no safetensors weights, not all of them, or not
            all of them numbers.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    folder_checks.check_no_adapter(source)  # transformers would put it on its base model by itself
    check_loadable(settings, is_gguf=gguf_file.is_gguf(source))
    load: Any = AutoModelForCausalLM.from_pretrained
    model: Any
    found: dict[str, Any]
    asked: dict[str, Any] = {"dtype": placement.dtype, "output_loading_info": True}
    if gguf_file.is_gguf(source):
        with gguf_file.reading(source, "model") as (folder, file):
            asked |= {"quantization_config": gguf_file.dequantized(), **file}
            model, found = load(folder, **asked)
        # What adapters name as their base; the folder that it was read from is gone.
        model.name_or_path = model.config._name_or_path = str(Path(source).resolve())
    else:
        asked |= {"use_safetensors": True, "trust_remote_code": trust_remote_code}
        asked |= loaded_as(settings, placement)
        try:
            model, found = load(source, **asked)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            # RuntimeError: weights of another shape than the config says.
            raise ModelError(_cannot_load("model", source, error)) from None
    folder_checks.check_whole(source, found)
    folder_checks.check_finite_weights(source, model)
    model.requires_grad_(False)
    if placement.has_autocast:
        # Inside the model, so that training, generation and gradients all compute alike.
        model.forward = torch.autocast(placement.device, placement.dtype)(model.forward)
    # What is in fewer bits, or spread, is where it belongs.
    return (model if settings.stays_put else placed(model, placement.device)).eval()


def autocast_for(model: Any) -> torch.autocast:
    """What a forward pass of ``model`` runs under where its own ``forward`` is replaced.

    On a CPU below float32 it rounds as `Placement.has_autocast` says; elsewhere it changes nothing.
    """
    weight = model.get_output_embeddings().weight
    is_needed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return torch.autocast("cpu", torch.bfloat16, enabled=is_needed)


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


NARROW = 512
"""Residual width below which no published pretrained model is: such a model was trained from
nothing on little text, and has to be changed much before it has learned anything."""


def width_learning_rate(width: int) -> float:
    """LoRA learning rate for a model of residual width ``width``.

    ``2e-4 * (4096 / width)^0.25``: the paper's rate at its own model's width (LLaMA-7B, 4096), and
    slowly more for narrower ones. For a model below `NARROW` the exponent is 0.75.
    docs/lab/learning_rate.md shows where this was checked and where it was not.
    """
    return 2e-4 * (4096 / width) ** (0.25 if width >= NARROW else 0.75)


def width_epochs(width: int) -> int:
    """Passes over the rows for a model of residual width ``width``; at most, where it may stop.

    A pretrained model that passes over rows more often learns them by heart.
    """
    return 3 if width >= NARROW else 12


def use_pure_greedy(model: Any, tokenizer: Any) -> None:
    """Make ``model.generate`` greedy whatever the shipped settings say.

    Shipped generation settings (penalties, sampling, beams) are dropped for good, because
    ``generate`` silently falls back on them; only their end-of-turn ids are kept.
    """
    from transformers import GenerationConfig

    shipped = getattr(model.generation_config, "eos_token_id", None)
    ids = shipped if isinstance(shipped, list) else [shipped]
    stops = sorted({int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None})
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        eos_token_id=stops or None,
        pad_token_id=padding_id(model, tokenizer),
        bos_token_id=tokenizer.bos_token_id,
    )


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
        raise ModelError(_cannot_load("config", source, error)) from None
    folder_checks.check_is_language_model(source, config)
    return config


@lru_cache(maxsize=16)
def _gguf_config(source: str, *_version: int) -> Any:
    """The config of a GGUF file with that `_version`; reading it takes seconds."""
    from transformers import AutoConfig

    with gguf_file.reading(source, "config") as (folder, file):
        return AutoConfig.from_pretrained(folder, **file)


def _cannot_load(what: str, source: str, error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"Can't load the {what} of {source!r}: {printable(said, 400)} "
        "A local folder with config.json, tokenizer files and *.safetensors, a GGUF file, or a hub "
        "id that can be reached, is expected. Check --model."
    )
