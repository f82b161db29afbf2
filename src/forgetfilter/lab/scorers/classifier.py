"""Any Hugging Face text classifier as a toxicity scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import ModelError
from forgetfilter.lab.scorers.base import TOXICITY_SCORERS
from forgetfilter.safe.toxicity import score_but_blank
from forgetfilter.text import printable

_TOXIC_LABELS = frozenset({"toxic", "toxicity"})


@TOXICITY_SCORERS.add("classifier")
class ClassifierScorer:
    """The probability that a sequence classifier gives to its toxic label.

    A text longer than the model's context is read in consecutive pieces, and the most toxic piece
    counts. Weights are read from safetensors only, and no code of the model's folder is run.

    Args:
        path: a local folder, or a hub id that can be reached.
        label: the name of the toxic label in the model's config; found by itself where it is
            ``toxic`` or ``toxicity`` in any letter case.
        activation: how outputs become probabilities: ``softmax`` over all labels, ``sigmoid`` of
            the toxic one alone; ``auto`` reads the config's ``problem_type``, and without one takes
            ``sigmoid`` for a single output, else ``softmax``.
        max_tokens: tokens of a piece, special ones included; 0 is the model's context, at most 512.
        device: where to compute.

    Raises:
        ModelError: the model can't be loaded, or it is unknown which of its labels means toxic.
    """

    name = "classifier"

    def __init__(
        self,
        path: str = "",
        label: str = "",
        activation: Literal["auto", "softmax", "sigmoid"] = "auto",
        max_tokens: int = 0,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    ) -> None:
        from forgetfilter.model.loading import (
            choose_placement,
            configured_context_tokens,
            load_tokenizer,
        )

        # float32 everywhere: a score near one half should not hang on the number format.
        self._model = _load(path, choose_placement(device, "float32").device)
        self._tokenizer = load_tokenizer(path)
        config = self._model.config
        names = {int(index): str(name) for index, name in config.id2label.items()}
        self._index = _toxic_index(path, names, label)
        if activation == "auto":
            several = config.problem_type == "multi_label_classification"
            activation = "sigmoid" if several or config.num_labels == 1 else "softmax"
        self._activation = activation
        self._max_tokens = max_tokens or min(
            512, configured_context_tokens(config), int(self._tokenizer.model_max_length)
        )

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Toxicity of each text; see `ToxicityScorer.score`."""
        return score_but_blank(texts, self._score)

    def _score(self, texts: list[str]) -> FloatArray:
        return np.array([max(map(self._score_piece, self._pieces(text))) for text in texts])

    def _pieces(self, text: str) -> list[list[int]]:
        """The text's tokens in pieces that fit the model, each with its special tokens."""
        encoded: Any = self._tokenizer(
            text, truncation=True, max_length=self._max_tokens, return_overflowing_tokens=True
        )
        return encoded["input_ids"]

    def _score_piece(self, ids: list[int]) -> float:
        # One piece at a time: no padding, so a score can't depend on the texts beside it.
        import torch

        if not ids:
            return 0.0
        tokens = torch.tensor([ids], device=self._model.device)
        with torch.inference_mode():
            outputs = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        logits = outputs.logits[0].double()
        if self._activation == "sigmoid":
            return float(logits[self._index].sigmoid())
        return float(logits.softmax(0)[self._index])


def _load(path: str, device: str) -> Any:
    """The classifier in evaluation mode; safetensors only, none of its own code run."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    from forgetfilter.model.loading import quiet_dependencies

    model: Any
    try:
        with quiet_dependencies():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                path,
                dtype="float32",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"Can't load the text classifier {path!r}: {printable(str(error))} Expected a local "
            "folder with config.json, tokenizer files and *.safetensors, or a hub id that can be "
            "reached. Write the scorer as classifier:PATH"
        ) from None
    # A language model loads as a classifier too, with a head of random numbers.
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelError(
            f"{path!r} lacks weights of a text classifier ({missing}); expected a model that was "
            "trained to classify. Give the path of one."
        )
    return model.to(device).eval()


def _toxic_index(path: str, names: dict[int, str], label: str) -> int:
    """Which output is the toxic one."""
    if label:
        found = [index for index, name in names.items() if name == label]
    else:
        found = [index for index, name in names.items() if name.lower() in _TOXIC_LABELS]
    if len(found) != 1:
        shown = ", ".join(printable(name, 40) for name in list(names.values())[:20])
        sought = repr(label) if label else "'toxic' or 'toxicity'"
        raise ModelError(
            f"{path!r} has {len(found)} labels named {sought}; expected one. Its labels are: "
            f"{shown}. Name the toxic one: classifier:path={path},label=NAME"
        )
    return found[0]
