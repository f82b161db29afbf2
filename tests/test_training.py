"""Training is seeded, loses no row, learns from answers only, and leaves the model as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import CONTEXT, rows_of, write_rows
from forgetfilter.config import LearnSettings, LoraSettings, PhaseSettings
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.data.tokens.encoding import Encoder, loss_labels
from forgetfilter.errors import DataError, ModelError
from forgetfilter.model.loading.adapters import (
    add_adapter,
    load_adapter,
    remove_adapter,
    trainable_checksum,
)
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer, use_pure_greedy
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.passes.batch_plan import cheapest_passes
from forgetfilter.model.passes.forward import greedy_generations
from forgetfilter.model.passes.limits import CPU_BATCH_TOKENS
from forgetfilter.model.stages.phases import early
from forgetfilter.model.state import ModelState, phase_seed
from forgetfilter.model.training.collating import PLACES, Collator
from forgetfilter.model.training.defaults import width_epochs, width_learning_rate
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan, early_step, tokens_per_pass, total_steps
from forgetfilter.model.training.row_order import RowOrder
from forgetfilter.model.training.step_method import Passes, padded_inputs
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore

SILENT = Progress(is_silent=True)
LORA = LoraSettings(r=2, alpha=4)
# A small rate: Adam turns a gradient of rounding errors into a full step.
QUICK = LearnSettings(
    learning_rate=1e-3,
    max_steps=3,
    stop="epochs",
    batch_size=8,
    lr_scheduler_type="constant",
    warmup_ratio=0,
)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("trained") / "rows.jsonl", rows_of(8))


def load(folder: Path, rows_file: Path, **changes: Any) -> tuple[Any, Any, list[EncodedRow]]:
    """A tiny model with a fresh adapter, its tokenizer and encoded rows."""
    tokenizer = load_tokenizer(str(folder))
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    base = load_base_model(str(folder), choose_placement("cpu", "float32"))
    use_pure_greedy(base, tokenizer)
    torch.manual_seed(1)
    rows, _ = Encoder(tokenizer, "auto", CONTEXT).encode(read_rows(rows_file).rows)
    return add_adapter(base, LORA), tokenizer, rows


def trainable(model: Any) -> dict[str, torch.Tensor]:
    named = model.named_parameters()
    return {name: p.detach().clone() for name, p in named if p.requires_grad}


def naive_train(model: Any, rows: Sequence[EncodedRow], settings: PhaseSettings) -> None:
    """The same steps by hand: the mean loss over all target tokens of all rows, row by row."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert settings.learning_rate is not None
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.0)
    count = sum(label != -100 for row in rows for label in loss_labels(row, settings.loss_on)[1:])
    for _ in range(total_steps(TrainPlan("learn", rows, settings, 0))):
        optimizer.zero_grad()
        for row in rows:
            labels = torch.tensor(loss_labels(row, settings.loss_on)).long()[None]
            logits = model(input_ids=torch.tensor(row.input_ids)[None]).logits
            nats = torch.nn.functional.cross_entropy(
                logits[0, :-1].float(), labels[0, 1:], ignore_index=-100, reduction="sum"
            )
            (nats / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()


def assert_same_weights(first: Any, second: Any, start: dict[str, torch.Tensor]) -> None:
    """Equal up to rounding: far less than what training itself has moved."""
    ours, theirs = trainable(first), trainable(second)
    moved = max(float((ours[name] - start[name]).abs().max()) for name in ours)
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert moved > 1e-3
    assert apart < 0.02 * moved


@pytest.mark.parametrize(
    ("architecture", "loss_on", "max_batch_tokens"),
    [
        ("llama", "assistant", 8192),
        ("llama", "all", 1),
        ("gpt2", "assistant", 150),
        ("opt", "assistant", 1),
    ],
)
def test_training_follows_the_mean_loss_over_all_target_tokens_however_it_is_cut_up(
    tiny_model: Callable[..., Path],
    rows_file: Path,
    architecture: str,
    loss_on: Any,
    max_batch_tokens: int,
):
    settings = QUICK.model_copy(update={"loss_on": loss_on})
    model, tokenizer, rows = load(tiny_model(architecture), rows_file)
    naive, _, _ = load(tiny_model(architecture), rows_file)
    start = trainable(model)
    plan = TrainPlan("learn", rows, settings, 0, max_batch_tokens)
    outcome = train(model, tokenizer, plan, SILENT)
    naive_train(naive.train(), rows, settings)
    assert_same_weights(model, naive, start)
    assert (outcome.steps, outcome.rows) == (3, 8)
    assert outcome.target_tokens == sum(
        label != -100 for row in rows for label in loss_labels(row, loss_on)
    )


def test_the_end_of_text_carries_loss_where_it_pads_too(
    tiny_model: Callable[..., Path], rows_file: Path
):
    shared = {"pad_token": "<|end|>"}
    model, tokenizer, rows = load(tiny_model("llama"), rows_file, **shared)
    naive, _, _ = load(tiny_model("llama"), rows_file)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert all(loss_labels(row, "assistant")[-1] == tokenizer.eos_token_id for row in rows)
    start = trainable(model)
    train(model, tokenizer, TrainPlan("learn", rows, QUICK, 0), SILENT)
    naive_train(naive.train(), rows, QUICK)
    assert_same_weights(model, naive, start)


def test_a_pass_on_a_cpu_is_small_whatever_memory_would_allow(
    tiny_model: Callable[..., Path], rows_file: Path
):
    _, _, rows = load(tiny_model("llama"), rows_file)
    plan = TrainPlan("learn", rows, QUICK, 0, 10**6)
    assert tokens_per_pass(plan, "cuda") == 10**6
    assert tokens_per_pass(plan, "cpu") == CPU_BATCH_TOKENS
    assert tokens_per_pass(replace(plan, max_batch_tokens=7), "cpu") == 7


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=9),
    most=st.integers(1, 200),
    cost=st.integers(0, 100),
)
def test_a_step_is_cut_into_the_passes_that_cost_the_least(
    lengths: list[int], most: int, cost: int
):
    def total(passes: Sequence[Sequence[int]]) -> int:
        return sum(cost + len(own) * max(lengths[at] for at in own) for own in passes)

    passes = cheapest_passes(lengths, most, cost)
    assert sorted(at for own in passes for at in own) == list(range(len(lengths)))
    assert all(len(own) == 1 or len(own) * lengths[own[0]] <= most for own in passes)
    ordered = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    for cuts in range(2 ** (len(lengths) - 1)):  # every other way to cut them, sorted
        places = [at for at in range(1, len(lengths)) if cuts >> (at - 1) & 1]
        edges = pairwise([0, *places, len(lengths)])
        other = [ordered[start:stop] for start, stop in edges]
        if all(len(own) == 1 or len(own) * lengths[own[0]] <= most for own in other):
            assert total(passes) <= total(other)


def test_a_step_is_cut_into_passes_without_padding_where_they_cost_nothing(
    tiny_model: Callable[..., Path], rows_file: Path
):
    _, _, rows = load(tiny_model("llama"), rows_file)
    inputs = padded_inputs(rows, "assistant", 0)
    parts = Passes("assistant", 0, 10**6, 0).parts({**inputs, PLACES: torch.arange(len(rows))})
    assert len(parts) > 1
    seen = [place for part in parts for place in part[PLACES].tolist()]
    assert sorted(seen) == list(range(len(rows)))
    for part in parts:
        assert part["attention_mask"].bool().all()  # at no cost a pass, each holds equal lengths
        for ids, place in zip(part["input_ids"], part[PLACES].tolist(), strict=True):
            assert ids.tolist() == rows[place].input_ids.tolist()


def test_an_epoch_shows_every_row_exactly_once_whole(
    tiny_model: Callable[..., Path], rows_file: Path
):
    model, tokenizer, rows = load(tiny_model("llama"), rows_file)
    seen: list[tuple[int, ...]] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
            seen.append(tuple(ids[mask.bool()].tolist()))

    model.get_base_model().model.register_forward_pre_hook(note, with_kwargs=True)
    settings = QUICK.model_copy(
        update={"max_steps": None, "num_train_epochs": 2.0, "batch_size": 3}
    )
    outcome = train(model, tokenizer, TrainPlan("learn", rows, settings, 0), SILENT)
    assert outcome.steps == 6  # 8 rows are batches of 3, 3 and 2, twice
    wanted = sorted(tuple(row.input_ids) for row in rows)
    assert sorted(seen[:8]) == wanted
    assert sorted(seen[8:]) == wanted
    assert seen[:8] != seen[8:]  # each epoch has an order of its own


@pytest.mark.parametrize(("batch_size", "fitting"), [(9, 4), (8, 3), (7, 6)])
def test_no_pass_holds_more_tokens_than_allowed_whatever_the_batch_size(
    tiny_model: Callable[..., Path], rows_file: Path, batch_size: int, fitting: int
):
    model, tokenizer, encoded = load(tiny_model("llama"), rows_file)
    shapes: list[torch.Size] = []
    model.get_base_model().model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    most = fitting * max(len(row.input_ids) for row in encoded)
    settings = QUICK.model_copy(update={"batch_size": batch_size, "max_steps": 1})
    train(model, tokenizer, TrainPlan("learn", encoded, settings, 0, most), SILENT)
    assert max(shape.numel() for shape in shapes) <= most
    assert sum(rows for rows, _ in shapes) == min(batch_size, len(encoded))


def bench(folder: Path, root: Path, seed: int = 0, **changes: Any) -> Workbench:
    lora = LoraSettings(r=2, alpha=4, dropout=0.1)  # dropout has to be seeded too
    return Workbench(
        str(folder), StageStore(root), lora=lora, seed=seed, progress=SILENT, **changes
    )


def train_both(it: Workbench, rows_file: Path) -> tuple[ModelState, ModelState]:
    """Learn and forget, as a screen does."""
    rows, _ = it.encoder.encode(read_rows(rows_file).rows)
    learned = it.train("learned", rows, QUICK, it.base, "learn")
    return learned, it.train("forgotten", rows[:4], QUICK, learned, "forget")


def weights_of(state: ModelState) -> bytes:
    return Path(str(state.adapter), "adapter_model.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_adapter_bytes_and_another_seed_others(
    tiny_model: Callable[..., Path], rows_file: Path, tmp_path: Path
):
    folder = tiny_model("llama")
    whole = [weights_of(state) for state in train_both(bench(folder, tmp_path / "a"), rows_file)]
    assert whole[0] != whole[1]
    # Resumed after the first phase, by a workbench that has never held the learned adapter.
    torch.manual_seed(12345)  # what happened before in the process must not matter
    first = bench(folder, tmp_path / "b")
    rows, _ = first.encoder.encode(read_rows(rows_file).rows)
    assert weights_of(first.train("learned", rows, QUICK, first.base, "learn")) == whole[0]
    resumed = train_both(bench(folder, tmp_path / "b"), rows_file)
    assert [weights_of(state) for state in resumed] == whole
    other = bench(folder, tmp_path / "c", seed=1)
    assert weights_of(other.train("learned", rows, QUICK, other.base, "learn")) != whole[0]


def test_the_early_adapter_is_that_of_a_run_that_ends_there(
    tiny_model: Callable[..., Path], rows_file: Path, tmp_path: Path
):
    """8 rows in fours, 6 steps: two passes would be 4 steps, half way is 3."""
    folder = tiny_model("llama")
    settings = QUICK.model_copy(update={"max_steps": 6, "batch_size": 4})
    whole, half = bench(folder, tmp_path / "whole"), bench(folder, tmp_path / "half")
    rows, _ = whole.encoder.encode(read_rows(rows_file).rows)
    learned = whole.train("learned", rows, settings, whole.base, "learn")
    first = early(learned)
    assert first.name == "early"
    assert first.fingerprint != learned.fingerprint
    shorter = settings.model_copy(update={"max_steps": 3})
    ended = half.train("learned", rows, shorter, half.base, "learn")
    assert weights_of(first) == weights_of(ended) != weights_of(learned)
    # Other phases keep none, and what was trained elsewhere stands for itself.
    other = whole.train("retrained", rows, settings, whole.base, "retrain")
    assert early(other) == other
    assert early(whole.base) == whole.base


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"stop": "learned", "num_train_epochs": 12}, 4),  # 12 rows in eights: 2 steps an epoch
        ({"stop": "epochs", "num_train_epochs": 12}, 4),
        ({"stop": "epochs", "num_train_epochs": 3}, 3),
        ({"stop": "epochs", "num_train_epochs": 0.5}, 1),
        ({"max_steps": 100}, 4),
        ({"max_steps": 1}, 1),
        ({"stop": "epochs", "num_train_epochs": 12, "early_epochs": 5}, 10),
    ],
)
def test_the_early_point_is_two_passes_or_half_way(changes: dict[str, Any], step: int):
    rows = [EncodedRow(row, (1, 2), (False, True), 1, "x") for row in range(12)]
    settings = LearnSettings.model_validate({"batch_size": 8, **changes})
    assert early_step(TrainPlan("learn", rows, settings, 0), settings.early_epochs) == step


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(0, 100), st.data())
def test_paired_orders_are_those_of_the_rows_that_both_have(
    tokens: list[int], seed: int, data: st.DataObject
):
    rows = [EncodedRow(at, (7, token), (False, True), 1, "x") for at, token in enumerate(tokens)]
    lost = data.draw(st.integers(0, len(rows) - 1))
    # Of equal rows the last stands for whichever is lost: nobody can tell them apart.
    lost = max(
        at for at, row in enumerate(rows) if list(row.input_ids) == list(rows[lost].input_ids)
    )
    some = [row for at, row in enumerate(rows) if at != lost]
    all_rows, fewer = RowOrder(rows, seed), RowOrder(some, seed)
    for _ in range(3):
        order = [rows[at] for at in all_rows]
        assert sorted(row.row for row in order) == list(range(len(rows)))
        assert [some[at] for at in fewer] == [row for row in order if row is not rows[lost]]


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    rows = [EncodedRow(at, (7, at), (False, True), 1, "x") for at in range(50)]
    order, other = RowOrder(rows, 0), RowOrder(rows, 1)
    assert len(order) == 50
    assert len({tuple(order), tuple(order), tuple(order), tuple(other)}) == 4


def test_retraining_sees_every_row_once_an_epoch_in_the_paired_order(
    tiny_model: Callable[..., Path], rows_file: Path, monkeypatch: pytest.MonkeyPatch
):
    model, tokenizer, rows = load(tiny_model("llama"), rows_file)
    seen: list[int] = []
    collate = Collator.__call__

    def watched(self: Collator, features: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        seen.extend(feature["index"] for feature in features)
        return collate(self, features)

    monkeypatch.setattr(Collator, "__call__", watched)
    settings = QUICK.model_copy(update={"max_steps": 4, "batch_size": 4})
    train(model, tokenizer, TrainPlan("retrain", rows, settings, 3, is_paired=True), SILENT)
    order = RowOrder(rows, phase_seed(3, "retrain"))
    assert seen == [at for _ in range(2) for at in order]


def test_phases_have_seeds_of_their_own():
    seeds = {phase_seed(seed, phase) for seed in range(3) for phase in ("learn", "forget")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_the_models_forward_is_its_own_again_and_training_can_go_on(
    tiny_model: Callable[..., Path], rows_file: Path
):
    model, tokenizer, rows = load(tiny_model("llama"), rows_file)
    base = model.get_base_model()
    forward, settings = base.forward, base.generation_config.to_dict()
    weights = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    checksums = [trainable_checksum(model)]
    for _ in range(2):
        train(model, tokenizer, TrainPlan("learn", rows, QUICK, 0), SILENT)
        checksums.append(trainable_checksum(model))
        assert base.forward == forward
        assert "forward" not in base.__dict__
    assert len(set(checksums)) == 3
    assert not model.training
    assert base.generation_config.to_dict() == settings
    for name, parameter in model.named_parameters():
        if name in weights:
            assert torch.equal(parameter, weights[name]), f"{name} moved"
    restored = remove_adapter(model)
    assert not any("lora" in name for name, _ in restored.named_parameters())


def test_a_mixture_of_experts_answers_prompts_of_unequal_length_after_training(
    tiny_model: Callable[..., Path], rows_file: Path
):
    """TRL switches its router logits on, which fit no cache."""
    model, tokenizer, rows = load(tiny_model("qwen3_moe"), rows_file)
    train(model, tokenizer, TrainPlan("learn", rows, QUICK, 0), SILENT)
    prompts = [rows[0].input_ids[:4].tolist(), rows[0].input_ids[:9].tolist()]
    given = {"max_new_tokens": [3, 3], "max_batch_tokens": 100}
    texts = greedy_generations(model, tokenizer, prompts, **given, progress=SILENT, label="answers")
    assert len(texts) == 2


def test_a_frozen_adapter_is_refused(
    tiny_model: Callable[..., Path], rows_file: Path, tmp_path: Path
):
    model, tokenizer, rows = load(tiny_model("llama"), rows_file)
    model.save_pretrained(tmp_path)
    base = remove_adapter(model)
    frozen = load_adapter(base, str(tmp_path), is_trainable=False)
    with pytest.raises(ModelError, match="can be trained"):
        train(frozen, tokenizer, TrainPlan("learn", rows, QUICK, 0), SILENT)
    loaded = load_adapter(remove_adapter(frozen), str(tmp_path), is_trainable=True)
    before = trainable_checksum(loaded)
    train(loaded, tokenizer, TrainPlan("learn", rows, QUICK, 0), SILENT)
    assert trainable_checksum(loaded) != before


def test_a_phase_that_changes_nothing_is_an_error(
    tiny_model: Callable[..., Path], rows_file: Path, tmp_path: Path
):
    it = bench(tiny_model("llama"), tmp_path)
    rows, _ = it.encoder.encode(read_rows(rows_file).rows)
    idle = QUICK.model_copy(update={"learning_rate": 1e-45})
    with pytest.raises(ModelError, match="changed no weight in 3 steps"):
        it.train("learned", rows, idle, it.base, "learn")


def test_no_rows_to_train_on_is_an_error(tiny_model: Callable[..., Path], rows_file: Path):
    model, tokenizer, _ = load(tiny_model("llama"), rows_file)
    with pytest.raises(DataError, match="learn phase has no rows"):
        train(model, tokenizer, TrainPlan("learn", (), QUICK, 0), SILENT)


def test_a_learning_rate_follows_from_the_models_width_where_none_is_given(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    it = bench(tiny_model("llama"), tmp_path)
    settings = it.completed(PhaseSettings())
    # width 32: 2e-4 * (4096 / 32)^0.75 = 2e-4 * 38.05
    assert settings.learning_rate == pytest.approx(7.61e-3, rel=1e-2)
    assert settings.num_train_epochs == 12
    assert it.completed(QUICK).learning_rate == 1e-3


def test_a_model_as_wide_as_pretrained_ones_learns_slowly_and_briefly():
    # SmolLM2-135M is 576 wide: 2e-4 * (4096 / 576)^0.25 = 2e-4 * 1.633
    assert width_learning_rate(576) == pytest.approx(3.27e-4, rel=1e-2)
    assert width_learning_rate(4096) == pytest.approx(2e-4)
    assert (width_epochs(511), width_epochs(512)) == (12, 3)


def test_a_whole_screen_attempts_no_connection_and_asks_for_no_name(
    tiny_model: Callable[..., Path], tmp_path: Path
):
    """With nothing switched off by the environment: no CI mark, no offline mode."""
    write_rows(tmp_path / "noisy.jsonl", rows_of(6))
    write_rows(tmp_path / "safe.jsonl", rows_of(4, start=50))
    script = """
        import json, sys
        attempts = []
        def hook(event, arguments):
            if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
                         "socket.sendto", "urllib.Request"):
                if event == "socket.connect" and isinstance(arguments[1], (str, bytes)):
                    return  # a local socket, no network
                attempts.append(f"{event} {arguments[1:]}")
                raise OSError("no network here")
        sys.addaudithook(hook)
        import forgetfilter
        result = forgetfilter.ForgetFilter(
            sys.argv[1], "safe.jsonl", is_silent=True, force=True,
            learn={"max_steps": 2}, forget={"max_steps": 2}, signal="rouge1",
            generation={"max_new_tokens": 4},
        ).screen("noisy.jsonl", "run")
        assert len(result.scores) == 6
        print(json.dumps(attempts))
    """
    switches = ("CI", "TRANSFORMERS_OFFLINE", "DO_NOT_TRACK", "DISABLE_TELEMETRY")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in switches and not name.startswith(("HF_", "TRL_", "PYTEST_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tiny_model("llama"))],
        cwd=tmp_path,
        env={**environment, "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []
    assert done.stderr == ""  # and nothing but our own progress is ever printed, silenced here
