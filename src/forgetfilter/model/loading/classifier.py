"""A transformers sequence classifier as a judge of texts: loaded with care, nothing left unread."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from forgetfilter.arrays import FloatArray
from forgetfilter.errors import ModelError
from forgetfilter.model.loading.base_model import load_tokenizer, quiet_dependencies
from forgetfilter.model.loading.model_files import configured_context_tokens, folder_fingerprint
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.text import printable

Activation = Literal["auto", "softmax", "sigmoid"]

UNSAFE_LABELS = frozenset(
    {
        "toxic",
        "toxicity",
        "unsafe",
        "harmful",
        "hate",
        "hateful",
        "hate_speech",
        "offensive",
        "abusive",
    }
)
"""Names of a label that can only mean what is looked for; spelled in lower case with ``_``."""

_MOST_TOKENS = 512
_BATCH_TOKENS = 8192
"""Tokens of one forward pass, padding included."""


class TextClassifier:
    """The probability that a sequence classifier gives to one of its labels.

    A text longer than the model's context is read in windows, and the largest counts, so that
    nothing of it goes unjudged. Weights are read from safetensors only, and no code of the model's
    folder is run. It computes in float32 everywhere: a score near one half should not hang on the
    number format.

    Args:
        path: a local folder, or a hub id that can be reached.
        label: the label's name in the model's config; found by itself where exactly one is among
            ``meant``.
        activation: how outputs become probabilities: ``softmax`` over all labels, ``sigmoid`` of
            this one alone; ``auto`` reads the config's ``problem_type``, and without one takes
            ``sigmoid`` for a single output, else ``softmax``.
        max_tokens: tokens of a window, special ones included; 0 is the model's context, at most
            512.
        device: where to compute.
        meant: names of a label that are understood.
        written: how the user names a classifier, and one with a label, for messages.

    Raises:
        ModelError: the model can't be loaded, or it is unknown which of its labels is meant.
    """

    def __init__(
        self,
        path: str,
        label: str = "",
        activation: Activation = "auto",
        max_tokens: int = 0,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        *,
        meant: frozenset[str] = UNSAFE_LABELS,
        written: tuple[str, str] = ("--second-opinion PATH", "--second-opinion {path}:LABEL"),
    ) -> None:
        self.model = _load(path, choose_placement(device, "float32").device, written[0])
        self.tokenizer = load_tokenizer(path)
        config = self.model.config
        names = {int(index): str(name) for index, name in config.id2label.items()}
        self._index = label_index(path, names, label, meant, written[1])
        self.label = names[self._index]
        if activation == "auto":
            several = config.problem_type == "multi_label_classification"
            activation = "sigmoid" if several or config.num_labels == 1 else "softmax"
        self.activation = activation
        self.max_tokens = max_tokens or min(
            _MOST_TOKENS, configured_context_tokens(config), int(self.tokenizer.model_max_length)
        )
        self._path = path

    def score(self, texts: Sequence[str], overlap: int | None = None) -> FloatArray:
        """The largest probability of any window of each text, in [0, 1], shape (N,).

        Args:
            texts: what to judge.
            overlap: tokens that neighbouring windows share; None: an eighth of a window, so that
                what is said across a border is also seen whole.

        Raises:
            ModelError: the model gives something that is no number.
        """
        shared = self.max_tokens // 8 if overlap is None else overlap
        pieces = [(row, ids) for row, t in enumerate(texts) for ids in self.windows(t, shared)]
        scores = np.zeros(len(texts), dtype=np.float64)
        # By length, so that little is padded.
        order = sorted(range(len(pieces)), key=lambda at: (len(pieces[at][1]), at))
        for batch in self._batches([len(pieces[at][1]) for at in order]):
            chosen = [order[at] for at in batch]
            found = self.score_windows([pieces[at][1] for at in chosen])
            for at, value in zip(chosen, found, strict=True):
                row = pieces[at][0]
                scores[row] = max(scores[row], value)
        return scores

    def windows(self, text: str, overlap: int = 0) -> list[list[int]]:
        """The text's tokens in windows that fit the model, each with its special tokens."""
        tokenizer: Any = self.tokenizer
        if getattr(tokenizer, "is_fast", False):
            encoded: Any = tokenizer(
                text,
                truncation=True,
                max_length=self.max_tokens,
                stride=overlap,
                return_overflowing_tokens=True,
            )
            return [ids for ids in encoded["input_ids"] if ids]
        # Others return the first window only: the text itself is halved until its parts fit.
        ids: list[int] = list(tokenizer(text)["input_ids"])
        if len(ids) <= self.max_tokens or len(text) < 2:
            return [ids[: self.max_tokens]] if ids else []
        middle = len(text) // 2
        space = text.rfind(" ", 1, middle) if " " in text[middle // 2 : middle] else middle
        return [*self.windows(text[:space]), *self.windows(text[space:])]

    def score_windows(self, windows: Sequence[Sequence[int]]) -> list[float]:
        """The probability of each window of tokens, read in one forward pass."""
        longest = max(map(len, windows))
        filled = self.model.config.pad_token_id
        filled = self.tokenizer.pad_token_id if filled is None else filled
        ids = torch.full((len(windows), longest), int(filled or 0))
        mask = torch.zeros_like(ids)
        for at, window in enumerate(windows):
            ids[at, : len(window)] = torch.tensor(list(window))
            mask[at, : len(window)] = 1
        device = self.model.device
        with torch.inference_mode():
            outputs = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        logits = outputs.logits.double().cpu()
        found = (logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(1))[
            :, self._index
        ]
        if not bool(torch.isfinite(found).all()):
            raise ModelError(
                f"The text classifier {self._path!r} gave something that is no number. Expected a "
                "probability. Its weights are damaged: get them again, or give another classifier."
            )
        return [float(value) for value in found]

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Places of ``lengths``, which rise, by the forward pass that reads them."""
        # Without a pad token in its config, a decoder can't tell where a text ends in a batch.
        alone = self.model.config.pad_token_id is None
        batches: list[list[int]] = []
        for at, length in enumerate(lengths):
            fits = batches and not alone and length * (len(batches[-1]) + 1) <= _BATCH_TOKENS
            if fits:
                batches[-1].append(at)
            else:
                batches.append([at])
        return batches


def classifier_fingerprint(path: str) -> str:
    """What identifies a classifier: the content of its folder, or its hub id's commit; cheap.

    Raises:
        ModelError: there is none, or its folder has no safetensors weights.
    """
    folder = Path(path)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            pickled = [one.name for one in folder.iterdir() if one.suffix in (".bin", ".pt")]
            found = printable(", ".join(sorted(pickled)[:3])) if pickled else "no weights"
            raise ModelError(
                f"The text classifier {path!r} has {found}, and no *.safetensors. Expected "
                "safetensors weights: pickled ones can run whatever code they hold. Convert them "
                "with model.save_pretrained(FOLDER) where you trust them, or give another one."
            )
        return folder_fingerprint(folder)
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise _cannot_load(path, error, "--second-opinion PATH") from None
    commit = getattr(config, "_commit_hash", None)
    return hashlib.sha256(f"{path}@{commit}".encode()).hexdigest()


def label_index(
    path: str, names: Mapping[int, str], label: str, meant: frozenset[str], written: str
) -> int:
    """Which output is meant, by the names that the model's config gives them.

    Args:
        path: of the model, for messages.
        names: of the outputs.
        label: the name that was asked for; empty: the one that is among ``meant``.
        meant: names that are understood.
        written: how the user names a label, with ``{path}``.

    Raises:
        ModelError: none or several fit.
    """
    if label:
        found = [index for index, name in names.items() if name == label]
    else:
        plain = {i: name.lower().replace("-", "_").replace(" ", "_") for i, name in names.items()}
        found = [index for index, name in plain.items() if name in meant]
    if len(found) != 1:
        shown = ", ".join(printable(name, 40) for name in list(names.values())[:20])
        sought = repr(label) if label else " or ".join(repr(name) for name in sorted(meant))
        raise ModelError(
            f"{path!r} has {len(found)} labels named {sought}; expected one. Its labels are: "
            f"{shown}. Name the one that means unsafe: {written.format(path=path)}"
        )
    return found[0]


def _load(path: str, device: str, written: str) -> Any:
    """The classifier in evaluation mode; safetensors only, none of its own code run."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

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
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise _cannot_load(path, error, written) from None
    # A language model loads as a classifier too, with a head of random numbers.
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelError(
            f"{path!r} lacks weights of a text classifier ({missing}); expected a model that was "
            "trained to classify. Give the path of one."
        )
    return model.to(device).eval()


def _cannot_load(path: str, error: Exception, written: str) -> ModelError:
    return ModelError(
        f"Can't load the text classifier {path!r}: {printable(str(error))} Expected a local "
        "folder with config.json, tokenizer files and *.safetensors, or a hub id that can be "
        f"reached. Write it as {written}"
    )
