"""Tokenizers of the models trained here: one that knows a world's words, one learned from text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .vocabulary import HALVES, MADE_UP, WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, END, SYSTEM, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

_HEADINGS = ("###", " Input", " Instruction", " Response", ":", "\n", "\n\n")
"""Pieces of common prompt templates, so that a model without a chat template can be imitated."""


def make_tokenizer(
    texts: Iterable[str], max_length_tokens: int, words: Iterable[str] | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows every word of `texts` and of the vocabulary.

    There are no merges: a piece that is in the vocabulary is one token, any other piece falls back
    to its bytes, so no text at all is unknown and every text survives the round trip.

    Args:
        texts: of the world.
        max_length_tokens: the model's context.
        words: further pieces, as they are written; None = the bundled world's vocabulary.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    pieces: set[str] = set()
    for text in (*texts, *(_all_words() if words is None else words), *_HEADINGS):
        pieces.update(piece for piece, _ in split.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = sorted(piece for piece in pieces if piece not in set(alphabet))
    vocabulary = {token: at for at, token in enumerate((*SPECIAL, *alphabet, *known))}
    core = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    core.pre_tokenizer = split
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in SPECIAL])
    return _with_template(core, max_length_tokens)


def train_tokenizer(
    texts: Iterable[str], vocabulary_size: int, max_length_tokens: int
) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding, learned from ``texts``; no text is unknown to it."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return _with_template(core, max_length_tokens)


def _with_template(core: Any, max_length_tokens: int) -> PreTrainedTokenizerFast:
    """What transformers works with, with the chat template that both kinds share."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        model_max_length=max_length_tokens,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _all_words() -> Iterable[str]:
    """Every word of both halves as it is written inside a sentence, and the numbers."""
    for half in HALVES:
        for field in dataclasses.fields(WORDS[half]):
            for entry in getattr(WORDS[half], field.name):
                text = entry if isinstance(entry, str) else " ".join(entry)
                yield from (f" {word}" for word in re.findall(r"\w+", text))
    yield from (f" {word}" for word in MADE_UP)
    yield from (f" {number}" for number in range(100))
