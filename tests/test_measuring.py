"""What is measured of a row depends on the row and the model, not on batches, order or settings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ARCHITECTURES, CONTEXT, build_model, rows_of, save_model, write_rows
from forgetfilter.config import LoraSettings, PhaseSettings
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer, use_pure_greedy
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.passes.forward import completion_losses, greedy_generations, token_losses
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.progress import Progress

# Sums over a row in float32 arithmetic; see `completion_losses`.
TOLERANCE_NATS = 1e-4
SILENT = Progress(is_silent=True)


class Loaded:
    """A tiny model in memory with its tokenizer and some encoded rows."""

    def __init__(self, folder: Path, rows_file: Path) -> None:
        self.tokenizer = load_tokenizer(str(folder))
        self.model = load_base_model(str(folder), choose_placement("cpu", "float32"))
        use_pure_greedy(self.model, self.tokenizer)
        encoder = Encoder(self.tokenizer, "auto", CONTEXT)
        self.rows, rejected = encoder.encode(read_rows(rows_file).rows)
        assert not rejected

    def losses(self, rows: Sequence[EncodedRow], max_batch_tokens: int = 8192) -> Any:
        return completion_losses(self.model, rows, max_batch_tokens, SILENT, "loss")

    def generate(
        self, prompts: Any, budgets: Any, max_batch_tokens: int = 8192, tokenizer: Any = None
    ) -> list[str]:
        tokenizer = tokenizer or self.tokenizer
        return greedy_generations(
            self.model, tokenizer, prompts, budgets, max_batch_tokens, SILENT, "generation"
        )

    @torch.no_grad()
    def naive_continuation(self, prompt: Sequence[int], count: int, stops: set[int]) -> list[int]:
        """The first choice after each prefix in turn, one forward pass of the whole text each."""
        ids = list(prompt)
        for _ in range(count):
            ids.append(int(self.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in stops:
                break
        return ids[len(prompt) :]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def loaded(
    tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Loaded]:
    rows_file = write_rows(tmp_path_factory.mktemp("measured") / "rows.jsonl", rows_of(12))
    cache: dict[str, Loaded] = {}

    def load(architecture: str) -> Loaded:
        if architecture not in cache:
            cache[architecture] = Loaded(tiny_model(architecture), rows_file)
        return cache[architecture]

    return load


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_completion_loss_is_the_sum_over_the_answers_tokens_whatever_the_batching(
    loaded: Callable[[str], Loaded], architecture: str
):
    it = loaded(architecture)
    together = it.losses(it.rows)
    for row, loss, match in zip(it.rows, together.loss_sum, together.greedy_match, strict=True):
        with torch.no_grad():
            logits = it.model(input_ids=torch.tensor(row.input_ids)[None]).logits[0].double()
        nats = torch.log_softmax(logits, dim=-1)
        targets = [t for t, is_target in enumerate(row.is_target) if is_target]
        naive = -sum(float(nats[t - 1, row.input_ids[t]]) for t in targets)
        assert loss == pytest.approx(naive, abs=TOLERANCE_NATS)
        assert match == all(int(nats[t - 1].argmax()) == row.input_ids[t] for t in targets)
    by_token = token_losses(it.model, it.rows, 150, SILENT, "")
    assert [len(losses) for losses in by_token] == [sum(row.is_target) for row in it.rows]
    np.testing.assert_allclose(
        [losses.sum() for losses in by_token], together.loss_sum, atol=TOLERANCE_NATS
    )
    for max_batch_tokens in (1, 150):
        again = it.losses(it.rows, max_batch_tokens)
        np.testing.assert_allclose(again.loss_sum, together.loss_sum, atol=TOLERANCE_NATS)


def test_losses_follow_their_rows_into_any_order(loaded: Callable[[str], Loaded]):
    it = loaded("llama")
    order = random.Random(0).sample(range(len(it.rows)), len(it.rows))
    straight, shuffled = it.losses(it.rows, 300), it.losses([it.rows[i] for i in order], 300)
    np.testing.assert_allclose(shuffled.loss_sum, straight.loss_sum[order], atol=TOLERANCE_NATS)
    assert (shuffled.greedy_match == straight.greedy_match[order]).all()


def test_prompt_tokens_carry_no_loss_and_answers_of_earlier_turns_do(
    loaded: Callable[[str], Loaded],
):
    it = loaded("llama")
    row = it.rows[0]
    only_last = EncodedRow(
        row.row,
        row.input_ids,
        tuple(t == len(row.input_ids) - 1 for t in range(len(row.input_ids))),
        row.prompt_length,
        row.target,
    )
    both = it.losses([row, only_last]).loss_sum
    with torch.no_grad():
        logits = it.model(input_ids=torch.tensor(row.input_ids)[None]).logits[0, -2].double()
    assert both[1] == pytest.approx(
        -float(torch.log_softmax(logits, -1)[row.input_ids[-1]]), abs=TOLERANCE_NATS
    )
    assert both[0] > both[1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_greedy_match_says_that_greedy_generation_would_say_the_target(
    loaded: Callable[[str], Loaded], architecture: str
):
    it = loaded(architecture)
    rows: list[EncodedRow] = []
    for row in it.rows[:6]:
        prompt = row.input_ids[: row.prompt_length]
        said = it.naive_continuation(prompt, 6, set())
        for answer in (said, [*said[:-1], (said[-1] + 1) % 200], [(said[0] + 1) % 200, *said[1:]]):
            mask = (False,) * len(prompt) + (True,) * len(answer)
            rows.append(EncodedRow(len(rows), (*prompt, *answer), mask, len(prompt), ""))
    match = it.losses(rows).greedy_match
    assert match.tolist() == [True, False, False] * 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_generations_are_the_first_choices_one_by_one_whatever_the_batching(
    loaded: Callable[[str], Loaded], architecture: str
):
    it = loaded(architecture)
    prompts = [row.input_ids[: row.prompt_length] for row in it.rows]
    budgets = [3 + 2 * (i % 4) for i in range(len(prompts))]
    together = it.generate(prompts, budgets)
    stops = {it.tokenizer.eos_token_id}
    naive = [
        it.decode(it.naive_continuation(prompt, budget, stops))
        for prompt, budget in zip(prompts, budgets, strict=True)
    ]
    assert together == naive
    assert it.generate(prompts, budgets, 1) == naive
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    shuffled = it.generate([prompts[i] for i in order], [budgets[i] for i in order], 150)
    assert shuffled == [naive[i] for i in order]
    assert len(set(naive)) > len(naive) // 2  # a model that always says the same shows nothing


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama"])
def test_generation_never_runs_past_the_models_context(
    loaded: Callable[[str], Loaded], architecture: str
):
    it = loaded(architecture)
    word = it.tokenizer.encode(" lamp")[0]
    # Alone each fits; a batch of both would go on to 180 + 120 tokens.
    prompts = [[word] * 180, [word, *it.rows[0].input_ids[:20]], [word] * (CONTEXT - 1)]
    texts = it.generate(prompts, [40, 120, 16])
    stops = {it.tokenizer.eos_token_id}
    room = [CONTEXT - 180, 120, 1]
    for prompt, budget, text in zip(prompts, room, texts, strict=True):
        assert text == it.decode(it.naive_continuation(prompt, budget, stops))


def test_shipped_generation_settings_change_nothing_but_where_answers_end(
    loaded: Callable[[str], Loaded], tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    from transformers import GenerationConfig

    it = loaded("llama")
    prompts = [row.input_ids[: row.prompt_length] for row in it.rows]
    free = [it.naive_continuation(prompt, 8, set()) for prompt in prompts]
    also_stops = free[0][3]
    tokenizer = tiny_tokenizer()
    model = build_model("llama", tokenizer)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=2.0,
        top_k=3,
        num_beams=4,
        repetition_penalty=3.0,
        no_repeat_ngram_size=1,
        min_new_tokens=7,
        max_length=20,
        eos_token_id=[tokenizer.eos_token_id, also_stops],
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(model, tokenizer, tmp_path)
    shipped = Loaded.__new__(Loaded)
    shipped.tokenizer = load_tokenizer(str(tmp_path))
    shipped.model = load_base_model(str(tmp_path), choose_placement("cpu", "float32"))
    assert shipped.model.generation_config.repetition_penalty == 3.0  # the trap is really set
    use_pure_greedy(shipped.model, shipped.tokenizer)
    stops = {tokenizer.eos_token_id, also_stops}
    naive = [it.naive_continuation(prompt, 8, stops) for prompt in prompts]
    assert any(ids[-1] == also_stops and len(ids) < 8 for ids in naive)
    texts = shipped.generate(prompts, [8] * len(prompts))
    assert texts == [it.decode(ids) for ids in naive]


def test_an_adapter_on_top_doesnt_bring_the_shipped_settings_back(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    from transformers import GenerationConfig

    from forgetfilter.config import LoraSettings
    from forgetfilter.model.loading.adapters import add_adapter, remove_adapter

    tokenizer = tiny_tokenizer()
    model = build_model("llama", tokenizer)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=3.0
    )
    save_model(model, tokenizer, tmp_path)
    base = load_base_model(str(tmp_path), choose_placement("cpu", "float32"))
    use_pure_greedy(base, tokenizer)
    prompts, budgets = [tokenizer.encode("Where is the lamp")], [12]
    plain = greedy_generations(base, tokenizer, prompts, budgets, 100, SILENT, "base")
    wrapped = add_adapter(base, LoraSettings(r=2)).eval()  # a fresh adapter changes no output
    assert greedy_generations(wrapped, tokenizer, prompts, budgets, 100, SILENT, "new") == plain
    restored = remove_adapter(wrapped)
    assert greedy_generations(restored, tokenizer, prompts, budgets, 100, SILENT, "off") == plain


def test_a_tokenizer_that_pads_with_its_end_of_text_changes_no_text(
    loaded: Callable[[str], Loaded], tiny_tokenizer: Callable[..., Any]
):
    it = loaded("llama")
    shared = tiny_tokenizer()
    shared.pad_token = shared.eos_token
    prompts = [row.input_ids[: row.prompt_length] for row in it.rows]
    budgets = [6] * len(prompts)
    assert it.generate(prompts, budgets, tokenizer=shared) == it.generate(prompts, budgets)


def test_a_tokenizer_without_a_pad_token_is_given_one(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    tiny_tokenizer(pad_token=None).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token_id is not None


def test_without_a_pad_and_an_end_token_a_finished_text_ends_where_it_ends(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    """The padding after it is an ordinary token then, which is no part of the answer."""
    rows_file = write_rows(tmp_path / "rows.jsonl", rows_of(8))
    tokenizer = tiny_tokenizer(pad_token=None, eos_token=None, bos_token=None, unk_token=None)
    model = build_model("llama", tiny_tokenizer())
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    save_model(model, tokenizer, tmp_path)
    plain = Loaded(tmp_path, rows_file)
    assert plain.tokenizer.eos_token_id is None
    prompts = [row.input_ids[: row.prompt_length] for row in plain.rows]
    firsts = [plain.naive_continuation(prompt, 3, set())[1] for prompt in prompts]
    stop = max(set(firsts), key=firsts.count)  # some texts end early, others go on
    model.generation_config.eos_token_id = stop
    save_model(model, tokenizer, tmp_path)
    it = Loaded(tmp_path, rows_file)
    # As in a vocabulary whose first token is a word.
    word = it.tokenizer.encode(" lamp")[0]
    it.tokenizer.pad_token = it.tokenizer.convert_ids_to_tokens(word)
    use_pure_greedy(it.model, it.tokenizer)
    naive = [it.decode(it.naive_continuation(prompt, 12, {stop})) for prompt in prompts]
    assert it.generate(prompts, [12] * len(prompts)) == naive
    assert len({len(it.naive_continuation(prompt, 12, {stop})) for prompt in prompts}) > 1
    # Nothing was added to the vocabulary, and the embedding is as it was.
    assert len(it.tokenizer) == len(tokenizer)
    assert it.model.get_input_embeddings().weight.shape[0] == model.config.vocab_size


def test_a_pad_token_without_an_embedding_is_never_looked_up(
    tiny_tokenizer: Callable[..., Any], tmp_path: Path
):
    """As where a pad token was added to the tokenizer and nobody resized the model."""
    rows_file = write_rows(tmp_path / "rows.jsonl", rows_of(8))
    whole = save_model(build_model("llama", tiny_tokenizer()), tiny_tokenizer(), tmp_path / "whole")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|added|>"})
    lacking = save_model(build_model("llama", tiny_tokenizer()), tokenizer, tmp_path / "lacking")
    it, reference = Loaded(lacking, rows_file), Loaded(whole, rows_file)
    size = it.model.get_input_embeddings().weight.shape[0]
    assert it.tokenizer.pad_token_id >= size
    prompts = [row.input_ids[: row.prompt_length] for row in it.rows]
    budgets = [6] * len(prompts)
    assert it.generate(prompts, budgets) == reference.generate(prompts, budgets)
    settings = PhaseSettings(learning_rate=1e-3, max_steps=2, batch_size=8)
    wrapped = add_adapter(it.model, LoraSettings(r=2, alpha=4))
    outcome = train(wrapped, it.tokenizer, TrainPlan("learn", it.rows, settings, 0), SILENT)
    assert outcome.steps == 2
    assert it.model.get_input_embeddings().weight.shape[0] == size


def test_nothing_is_measured_of_no_rows(loaded: Callable[[str], Loaded]):
    it = loaded("llama")
    assert it.losses([]).loss_sum.shape == (0,)
    assert it.generate([], []) == []
