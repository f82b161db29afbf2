"""Load a base model and its tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from forgetfilter.errors import ModelError
from forgetfilter.model.loading import folder_checks, gguf_file
from forgetfilter.model.loading.fewer_bits import WHOLE_HERE, check_loadable, loaded_as
from forgetfilter.model.loading.model_files import cannot_load
from forgetfilter.model.loading.placement import Placement
from forgetfilter.model.processes.parted import placed
from forgetfilter.settings import LoadSettings


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
            raise ModelError(cannot_load("tokenizer", source, error)) from None
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if not vocabulary:
        raise ModelError(cannot_load("tokenizer", source, ValueError("its vocabulary is empty.")))
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
            raise ModelError(cannot_load("model", source, error)) from None
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
