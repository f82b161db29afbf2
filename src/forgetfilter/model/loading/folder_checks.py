"""What can be wrong with a model's folder, found out before anything is trained."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from forgetfilter.errors import ModelError
from forgetfilter.text import printable

_ADAPTER = "adapter_config.json"
_NAMED = 3
_NO_LANGUAGE_HEAD = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|MaskedLM)$"
    r"|RewardModel$"
)


def check_no_adapter(source: str) -> None:
    """See that a folder holds a whole model and not a PEFT adapter.

    Raises:
        ModelError: it holds an adapter; the message has the command that merges it.
    """
    file = Path(source) / _ADAPTER
    if not file.is_file():
        return
    try:
        base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    base = base if isinstance(base, str) and base else None
    told = f" of {printable(base)!r}" if base else ""
    raise ModelError(
        f"{printable(source)!r} holds an adapter{told}, not a whole model ({_ADAPTER} is in it). A "
        "model with all its weights is expected. Merge the adapter into its base model, and give "
        f"the new folder as --model:\n  {merge_command(source, base)}"
    )


def merge_command(adapter: str, base: str | None) -> str:
    """A shell command that merges an adapter into its base model, into a folder beside it."""
    folder = str(Path(adapter).resolve())
    merged = f"{folder}-merged"
    code = (
        "from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer "
        f"as T; M.from_pretrained({folder!r}).merge_and_unload().save_pretrained({merged!r}); "
        f"T.from_pretrained({base or 'BASE_MODEL'!r}).save_pretrained({merged!r})"
    )
    return f"python -c {shlex.quote(code)}"


def check_is_language_model(source: str, config: Any) -> None:
    """See that the checkpoint was not saved as a classifier or as another model without a head.

    Raises:
        ModelError: it was; what would predict its words has never been trained.
    """
    kinds: list[str] = list(getattr(config, "architectures", None) or [])
    found = [kind for kind in kinds if _NO_LANGUAGE_HEAD.search(kind)]
    if found and len(found) == len(kinds):
        raise ModelError(
            f"{printable(source)!r} was saved as {printable(', '.join(found))}, which doesn't "
            "write text one token after the other: the weights of a language model's head "
            "(lm_head) are missing in it or were never trained. A causal language model is "
            "expected. Give the model that it was made from."
        )


def check_whole(source: str, loading_info: dict[str, Any]) -> None:
    """See that no weight was drawn at random because ``source`` doesn't have it.

    Args:
        source: of the model, for the message.
        loading_info: what transformers tells of the loading.

    Raises:
        ModelError: some are missing, or have another shape than the config says.
    """
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise ModelError(
            f"{source!r} lacks {len(missing)} of the model's weights: {_named(missing)}. "
            "All of them are expected, in one GGUF file or in a folder's *.safetensors. Get the "
            "model anew, and a GGUF file in one piece; a classifier's checkpoint has no lm_head, "
            "and the model that it was made from has."
        )
    odd = sorted(str(item[0]) for item in loading_info.get("mismatched_keys") or ())
    if odd:
        raise ModelError(
            f"{source!r} has {len(odd)} weights of another shape than its config.json says: "
            f"{_named(odd)}. Files that belong together are expected. Get the model anew."
        )


def check_finite_weights(source: str, model: Any) -> None:
    """See that every weight is a number.

    Raises:
        ModelError: some are NaN or infinite; the message names them.
    """
    named: Iterable[tuple[str, torch.Tensor]] = model.named_parameters()
    bad = [
        name
        for name, weight in named
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all())
    ]
    if bad:
        raise ModelError(
            f"{source!r} has NaN or infinite numbers in {len(bad)} of its weights: {_named(bad)}. "
            "Finite numbers are expected. Its training has diverged or a file is damaged: get the "
            "model anew, or take an earlier checkpoint."
        )


def beyond_embedding(source: str, token: int, text: str, size: int) -> ModelError:
    """The error where a row becomes a token that the model has no embedding for."""
    return ModelError(
        f"The tokenizer of {printable(source)!r} makes token {token} ({printable(text, 60)!r}), "
        f"but the model's embedding has {size} rows, so at most {size - 1} is expected. Tokenizer "
        "and weights don't belong together: give the model with the tokenizer that it was trained "
        "with, or enlarge it first: model.resize_token_embeddings(len(tokenizer)), then save both."
    )


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
