"""A GGUF file is screened with like a folder of the same weights, and what is wrong is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CONTEXT, build_model, rows_of, save_model
from forgetfilter.data import read_rows
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import MissingExtraError, ModelError
from forgetfilter.lab.testbed.tokens import train_tokenizer
from forgetfilter.model.loading import gguf_file
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.model_files import (
    context_tokens,
    hidden_size,
    model_fingerprint,
    vocabulary_size,
)
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.passes.forward import completion_losses
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def as_llama_cpp(name: str, weight: torch.Tensor, config: Any) -> tuple[str, np.ndarray[Any, Any]]:
    """Name and order of a weight in a GGUF file: rotary halves of a head alternate there."""
    found = weight.float().numpy()
    for part, heads in (
        ("q_proj", config.num_attention_heads),
        ("k_proj", config.num_key_value_heads),
    ):
        if part in name:
            halves = found.reshape(heads, 2, found.shape[0] // heads // 2, found.shape[1])
            found = halves.swapaxes(1, 2).reshape(found.shape)
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", found
    if name == "model.norm.weight":
        return "output_norm.weight", found
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight", found


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    without: tuple[str, ...] = (),
    architecture: str = "llama",
) -> Path:
    """Write a Llama and its byte-level tokenizer as llama.cpp does."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(core["model"]["vocab"], key=core["model"]["vocab"].get)
    special = {entry["content"] for entry in core["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[token in special] for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in core["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if "template" not in without:
        writer.add_chat_template(tokenizer.chat_template)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight" and name not in without:
            writer.add_tensor(*as_llama_cpp(name, weight, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([json.dumps(row) for row in rows_of(60)], 400, CONTEXT)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return build_model("llama", tokenizer)


@pytest.fixture(scope="module")
def folder(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(model, tokenizer, tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def file(model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, tokenizer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_reads_like_the_folder_with_the_same_weights(
    file: Path, folder: Path, make_rows: Callable[..., Path], silent: Progress, dtype: Any
):
    rows = read_rows(make_rows(16)).rows
    sources = str(file), str(folder)
    encoded = [Encoder(load_tokenizer(s), "auto", CONTEXT).encode(rows)[0] for s in sources]
    assert len(encoded[0]) == 16
    for one, other in zip(*encoded, strict=True):
        assert one.input_ids.tolist() == other.input_ids.tolist()
        assert one.is_target.tolist() == other.is_target.tolist()
    losses = [
        completion_losses(
            load_base_model(source, choose_placement("cpu", dtype)), encoded[0], 512, silent, "base"
        ).loss_sum
        for source in sources
    ]
    assert losses[0].tolist() == losses[1].tolist()
    assert losses[0].min() > 0
    for read in (context_tokens, hidden_size, vocabulary_size):
        assert read(str(file)) == read(str(folder))


def test_sixteen_rows_are_screened_and_the_adapter_names_its_base(
    file: Path, folder: Path, quick_config: Callable[..., Any], tmp_path: Path, silent: Progress
):
    found = {
        source.name: screen(
            quick_config(tmp_path / source.name, model=source, signal="restoration"), silent
        )
        for source in (file, folder)
    }
    scores = [result.scores for result in found.values()]
    assert len(scores[0]) == 16
    for column in ("base", "before", "after", "forgetting_score"):
        np.testing.assert_allclose(scores[0][column], scores[1][column], atol=1e-5)
    adapter = next((tmp_path / file.name / "stages").glob("learn-*")) / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(file.resolve())


def test_linear_layers_of_a_file_are_ordinary_ones(file: Path):
    base = load_base_model(str(file), choose_placement("cpu", "float32"))
    kinds = {type(module) for name, module in base.named_modules() if name.endswith("_proj")}
    assert kinds == {torch.nn.Linear}


def test_what_lies_beside_a_file_is_not_read(
    file: Path, tmp_path: Path, tiny_model: Callable[..., Path]
):
    (tmp_path / "tiny.gguf").write_bytes(file.read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((tiny_model("llama") / name).read_bytes())
    beside = load_tokenizer(str(tmp_path / "tiny.gguf"))
    assert beside.get_vocab() == load_tokenizer(str(file)).get_vocab()
    assert vocabulary_size(str(tmp_path / "tiny.gguf")) == vocabulary_size(str(file))


def test_the_fingerprint_is_of_the_content(file: Path, tmp_path: Path):
    copy = tmp_path / "other-name.gguf"
    copy.write_bytes(file.read_bytes())
    assert model_fingerprint(str(copy)) == model_fingerprint(str(file))
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    copy.write_bytes(changed)
    assert model_fingerprint(str(copy)) != model_fingerprint(str(file))


def test_other_files_are_refused_by_their_first_bytes(tmp_path: Path):
    other = tmp_path / "model.gguf"
    other.write_bytes(b"PK\3\4 a wheel")
    for read in (model_fingerprint, load_tokenizer, context_tokens):
        with pytest.raises(ModelError, match=r"no GGUF file: it begins with b'PK.*expected.*Check"):
            read(str(other))
    with pytest.raises(ModelError, match=r"No such file.*expected.*Check --model"):
        model_fingerprint(str(tmp_path / "absent.gguf"))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.97])
def test_a_file_that_is_cut_off_is_an_error(file: Path, tmp_path: Path, share: float):
    part = tmp_path / "part.gguf"
    whole = file.read_bytes()
    part.write_bytes(whole[: max(8, int(len(whole) * share))])
    with pytest.raises(ModelError, match=r"Can't read the model in .*whole GGUF.*Get the file"):
        load_base_model(str(part), choose_placement("cpu", "float32"))


def test_a_file_without_some_weights_is_an_error(model: Any, tokenizer: Any, tmp_path: Path):
    lacking = "model.layers.1.mlp.up_proj.weight"
    part = write_gguf(tmp_path / "part.gguf", model, tokenizer, without=(lacking,))
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights.*up_proj.*one piece"):
        load_base_model(str(part), choose_placement("cpu", "float32"))


def test_a_folder_without_some_weights_is_an_error(folder: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights.*up_proj"):
        load_base_model(str(tmp_path), choose_placement("cpu", "float32"))


def test_an_unknown_architecture_is_named(model: Any, tokenizer: Any, tmp_path: Path):
    strange = write_gguf(tmp_path / "strange.gguf", model, tokenizer, architecture="bert")
    with pytest.raises(ModelError, match=r"architecture bert is not supported.*expected.*folder"):
        context_tokens(str(strange))


def test_without_a_chat_template_the_blocks_have_to_be_asked_for(
    model: Any,
    tokenizer: Any,
    quick_config: Callable[..., Any],
    tmp_path: Path,
    silent: Progress,
):
    bare = write_gguf(tmp_path / "bare.gguf", model, tokenizer, without=("template",))
    with pytest.raises(ModelError, match=r"no chat template.*expected.*--set template=paper"):
        screen(quick_config(tmp_path / "run", model=bare), silent)
    layer = {"template": "paper", "signal": "restoration"}
    result = screen(quick_config(tmp_path / "run", model=bare, **layer), silent)
    assert len(result.scores) == 16


def test_the_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gguf_file, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"package gguf.*pip install"):
        load_tokenizer(str(file))
