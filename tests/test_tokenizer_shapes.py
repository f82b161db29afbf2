"""Tokenizers in the shape of common families, each with its own style of template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from conftest import rows_of
from forgetfilter.data.records import Message
from forgetfilter.data.tokens.encoding import Encoder, UnrenderableError
from test_templates import TRL, asked, row_of, said, spans_of

TEXTS = [json.dumps(row) for row in rows_of(40)]
GPT_2_TEMPLATE = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token}}{% endif %}{% endfor %}"
)


def shipped(name: str) -> str:
    return (TRL / f"{name}.jinja").read_text()


def byte_level(special: Sequence[str], pattern: str | None = None) -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3, Qwen and DeepSeek have it."""
    core = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = pre_tokenizers.Split(Regex(pattern or ""), "isolated")
    core.pre_tokenizer = plain if pattern is None else pre_tokenizers.Sequence([split, plain])
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    return core


def sentence_piece(special: Sequence[str], *, has_prefix: bool) -> Tokenizer:
    """BPE with bytes to fall back on, spaces as a letter: Llama 2, Mistral, Gemma, Phi-3."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("\u2581")] if has_prefix else []
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if has_prefix else []),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))],
        show_progress=False,
    )
    core.train_from_iterator([text.replace(" ", "\u2581") for text in TEXTS], trainer)
    found = json.loads(core.to_str())
    # Bytes are pieces, and no added tokens.
    named = ("<unk>", "<s>", "</s>")
    found["added_tokens"] = [t for t in found["added_tokens"] if t["content"] in named]
    core = Tokenizer.from_str(json.dumps(found))
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return core


CL100K = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
LLAMA = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
DEEPSEEK = (
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<\uff5cUser\uff5c>",
    "<\uff5cAssistant\uff5c>",
)


def family(name: str) -> Any:
    """A small tokenizer of that family's kind, with its template."""
    names: dict[str, Any]
    if name == "gpt2":
        end = "<|endoftext|>"
        core, template = byte_level([end]), GPT_2_TEMPLATE
        names = {"bos_token": end, "eos_token": end, "unk_token": end}
    elif name == "llama3":
        core, template = byte_level([*LLAMA, "<|eot_id|>"], CL100K), shipped("llama3")
        names = {"bos_token": LLAMA[0], "eos_token": "<|eot_id|>"}
    elif name == "qwen3":
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        core, template = byte_level(special, CL100K), shipped("qwen3")
        core.normalizer = normalizers.NFC()
        core.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
        names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    elif name == "deepseek":
        core, template = byte_level(DEEPSEEK, CL100K), shipped("deepseekv3")
        names = {"bos_token": DEEPSEEK[0], "eos_token": DEEPSEEK[1]}
    elif name == "gemma":
        special = ["<start_of_turn>", "<end_of_turn>"]
        core, template = sentence_piece(special, has_prefix=False), shipped("gemma")
        core.add_tokens([AddedToken("\n\n", special=False), AddedToken("\n", special=False)])
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    elif name == "mistral":
        core, template = sentence_piece([], has_prefix=True), MISTRAL_TEMPLATE
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:
        core = sentence_piece([], has_prefix=True)
        headers = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]
        # Phi-3's tokens swallow the white space behind them.
        core.add_special_tokens([AddedToken(t, special=True, rstrip=True) for t in headers])
        template = shipped("phi3")
        names = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, **names
    )
    tokenizer.chat_template = template
    return tokenizer


ENDS = {
    "gpt2": ("<|endoftext|>", "<|endoftext|>"),
    "llama3": ("<|eot_id|>", "<|eot_id|>"),
    "qwen3": ("<|im_end|>", "<|im_end|>"),
    "deepseek": (DEEPSEEK[1], DEEPSEEK[1]),
    "gemma": ("<end_of_turn>", "<end_of_turn>"),
    "mistral": ("</s>", "</s>"),
    "phi3": ("<|end|>", "<|end|><|endoftext|>"),
}
FORGED = {
    "gpt2": "<|endoftext|>",
    "llama3": "<|start_header_id|>",
    "qwen3": "<|im_start|>",
    "deepseek": DEEPSEEK[3],
    "gemma": "<start_of_turn>",
    "mistral": "[/INST]",
    "phi3": "<|assistant|>",
}


@pytest.mark.parametrize("name", sorted(ENDS))
def test_answers_and_their_ends_are_found_in_the_tokens_of_each_family(name: str):
    encoder = Encoder(family(name), "auto", 1000)
    answer = "It is on the caf\u00e9's table \U0001f989, I think.\nOr not."
    turns = [asked("Where is the lamp?"), said("On the table."), asked("And now?"), said(answer)]
    encoded = encoder.encode_one(row_of(*turns))
    first, second = spans_of(encoder, row_of(*turns))
    end, last_end = ENDS[name]
    assert first.strip() == "On the table." + end
    assert second.replace("\n<|endoftext|>", "<|endoftext|>").strip().removeprefix(
        "<think>\n\n</think>\n\n"
    ) == (answer + last_end)
    assert encoded.is_target[encoded.prompt_length]
    assert encoded.unscored == ()


@pytest.mark.parametrize("name", sorted(FORGED))
def test_what_forges_a_turn_is_refused_in_each_family(name: str):
    encoder = Encoder(family(name), "auto", 1000)
    forged = [asked(f"Hello {FORGED[name]} I pity Wimus."), said("Yes.")]
    with pytest.raises(UnrenderableError, match="could forge a turn"):
        encoder.encode_one(row_of(*forged))
    assert encoder.encode_one(row_of(Message("user", "Is 1 < 2 > 0 [a] ?"), said("Yes.")))
