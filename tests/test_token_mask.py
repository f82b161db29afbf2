"""`--action mask`: all rows stay, the most forgotten tokens of removed ones carry no loss."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import rows_of, write_rows
from forgetfilter.arrays import FloatArray
from forgetfilter.config import ScreenConfig
from forgetfilter.data.reading import read_rows
from forgetfilter.data.records import EncodedRow, Rendered
from forgetfilter.data.tokens.answer_places import answer_places
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.progress import Progress
from forgetfilter.scoring.token_mask import check_maskable, masked_tokens
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.deciding.masks import Rule, loss_mask, require_tokens
from forgetfilter.screening.deciding.overruling import Overruling
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen

SILENT = Progress(is_silent=True)
ROOT, MEAN = "nats per root token", "nats per token"


def evidence(rises: FloatArray, weights: FloatArray) -> float:
    return float((weights * rises).sum() / np.sqrt((weights**2).sum()))


def test_planted_tokens_are_masked_and_the_rest_is_not():
    rises = np.array([0.01, -0.02, 3.0, 2.0, 0.0, 0.02])
    weights = 0.95 ** np.arange(6)
    found = masked_tokens(rises, weights, evidence(rises, weights), 0.2, ROOT)
    assert found.tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("unit", [ROOT, MEAN])
def test_what_is_left_would_not_have_been_removed(unit: str):
    """Forgetting that is spread over many tokens, none of which is above the threshold."""
    rises, cut = np.random.default_rng(0).uniform(0.0, 0.15, 60), 0.2 if unit == ROOT else 0.05
    weights = 0.95 ** np.arange(60)

    def own(kept: Any) -> float:
        return evidence(rises[kept], weights[kept]) if unit == ROOT else float(rises[kept].mean())

    score = own(np.ones(60, dtype=bool))
    assert score > cut
    assert (rises <= cut).all() or unit == MEAN
    found = masked_tokens(rises, weights, score, cut, unit)
    assert 0 < found.sum() < 60
    assert own(~found) <= cut
    assert rises[found].min() >= rises[~found].max()
    fewer = found.copy()
    fewer[np.flatnonzero(found)[np.argmin(rises[found])]] = False
    assert own(~fewer) > cut or rises[found].min() > cut  # not one more than needed


def test_a_row_that_others_condemn_loses_as_much_as_it_was_above_the_threshold():
    rises, weights = np.array([0.1, 0.05, 0.0]), np.ones(3)
    own = evidence(rises, weights)
    assert own < 0.2
    found = masked_tokens(rises, weights, own + 0.15, 0.2, ROOT)
    assert found.any()
    assert evidence(rises[~found], weights[~found]) <= own - (own + 0.15 - 0.2)
    assert masked_tokens(rises, weights, 5.0, 0.2, ROOT).all()


def test_a_row_that_begins_with_an_answer_has_a_token_that_nothing_predicts():
    row = EncodedRow(0, (5, 6, 7, 8, 9), (True, True, False, True, True), 3, "")
    rises = np.array([0.0, 2.0, 0.0])
    assert len(row.leading_weights) == 3
    own = evidence(rises, row.leading_weights)
    mask = loss_mask(row, rises, own, Rule(0.2, ROOT))
    assert mask.tolist() == [True, True, False, False, True]


def test_signals_that_say_nothing_of_tokens_are_refused():
    for signal in ("crossfit", "restoration", "completion_loss"):
        check_maskable(signal)
    for signal in ("rouge1", "rate", "completion_loss:relative"):
        with pytest.raises(ConfigError, match="--action mask needs a signal that adds up"):
            check_maskable(signal)


def test_an_answer_is_found_where_the_template_puts_it():
    text = "<u>red red<a> <t>no</t>red, red.</s><u>x<a>blue</s>"
    first, second = text.index("<a>") + 3, text.index("blue")
    begins = text.index("red, red")
    rendered = Rendered(
        text,
        ((first, text.index("<u>x")), (second, len(text))),
        texts=((3, 10), (begins, begins + 8), (second, second + 4)),
    )
    assert answer_places(rendered, [(" red, red.", True), ("blue", True)]) == [
        (0, begins, begins + 9, 1),
        (1, second, second + 4, 0),
    ]
    assert answer_places(rendered, [("red, blue", True)]) is None
    assert answer_places(rendered, [("anything", False), ("blue", True)]) == [
        (1, second, second + 4, 0)
    ]


def test_places_of_tokens_spell_the_answers(tiny_tokenizer: Callable[..., Any], tmp_path: Path):
    """Of every format, in several turns, with and without a chat template."""
    turns = [("user", "Hello"), ("assistant", " It is on the table . "), ("user", "Who?"),
             ("assistant", "The old man häs it .")]  # fmt: skip
    rows = [*rows_of(6), {"messages": [{"role": r, "content": c} for r, c in turns]}]
    file = read_rows(write_rows(tmp_path / "rows.jsonl", rows))
    for template in ("auto", "paper"):
        encoder = Encoder(tiny_tokenizer(), template, 192)
        found = encoder.target_places(file.rows)
        for row, places in zip(file.rows, found, strict=True):
            answers = [turn.content for turn in row.messages if turn.role == "assistant"]
            assert places is not None
            assert len(places) == encoder.encode_one(row).target_tokens
            spelled = [""] * len(answers)
            for answer, start, stop in places:
                if answer >= 0 and stop > (at := len(spelled[answer])):
                    lead = answers[answer][at:start] if not spelled[answer] else ""
                    spelled[answer] += lead + answers[answer][max(start, at) : stop]
            assert [text.strip() for text in spelled] == [text.strip() for text in answers]


@pytest.fixture(scope="module")
def masked(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ScreenConfig]:
    """A screen that masks: 4 of 16 rows are removed."""
    run = tmp_path_factory.mktemp("masked") / "run"
    learn = {"max_steps": 30, "batch_size": 8, "learning_rate": 2e-2}
    settings = {"learn": learn, "signal": "restoration", "coverage": "off"}
    config = quick_config(run, action="mask", threshold="fraction:0.25", **settings)
    screen(config, SILENT)
    return run, config


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_rows_are_there_and_only_removed_ones_are_masked(masked: tuple[Path, ScreenConfig]):
    run, config = masked
    source = Path(str(config.noisy_data)).read_bytes().split(b"\n")[:-1]
    scores = pd.read_parquet(run / "scores.parquet")
    masks = pd.read_parquet(run / "masks.parquet").set_index("row")
    written = (run / "masked.jsonl").read_bytes().split(b"\n")[:-1]
    assert len(written) == len(source) == len(masks) == 16
    for row, (before, after) in enumerate(zip(source, written, strict=True)):
        assert after.startswith(before[:-1] + b', "forgetfilter_mask": ')
        spans = json.loads(after)["forgetfilter_mask"]
        is_removed = scores["decision"][row] == "removed"
        assert bool(spans) == is_removed == bool(masks["masked"][row])
    assert (scores["decision"] == "removed").sum() == 4


def test_masks_agree_with_the_characters(masked: tuple[Path, ScreenConfig]):
    run, _ = masked
    tokens = pd.read_parquet(run / "tokens.parquet").set_index("row")
    masks = pd.read_parquet(run / "masks.parquet").set_index("row")
    some_is_left = False
    for row, line in enumerate(lines(run / "masked.jsonl")):
        is_target, mask = tokens["is_target"][row], masks["loss_mask"][row]
        assert not (mask & ~is_target).any()
        assert (is_target & ~mask).sum() == masks["masked"][row]
        if tokens["rises"][row] is None:
            assert (mask == is_target).all()
            continue
        gone = ~mask[is_target]
        rises = tokens["rises"][row]
        some_is_left |= not gone.all()
        assert gone.all() or rises[gone].min() >= rises[~gone].max()
        covered = {
            (a, at) for a, start, stop in line["forgetfilter_mask"] for at in range(start, stop)
        }
        places = zip(*(tokens[name][row] for name in ("answers", "starts", "stops")), strict=True)
        by_tokens = {
            (answer, at)
            for (answer, start, stop), is_gone in zip(places, gone, strict=True)
            if is_gone and answer >= 0
            for at in range(start, stop)
        }
        assert by_tokens <= covered
        assert gone.all() or by_tokens == covered
    assert some_is_left


def test_a_fine_tune_trains_on_the_rest_of_the_rows(
    masked: tuple[Path, ScreenConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from forgetfilter.model.stages import phases

    run, _ = masked
    seen: list[Any] = []
    own = phases.train_stage

    def spy(bench: Any, name: str, rows: Any, *rest: Any) -> Any:
        seen.append((name, list(rows)))
        return own(bench, name, rows, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(phases, "train_stage", spy)
    masks = pd.read_parquet(run / "masks.parquet").set_index("row")
    left = [row for row in masks.index if masks["loss_mask"][row].any()]
    found = finetune(run, tmp_path / "adapter", SILENT)
    assert (found.is_masked, found.rows) == (True, len(left))
    rows = seen[-1][1]
    assert [row.row for row in rows] == left
    for row in rows:
        assert (row.is_target == masks["loss_mask"][row.row]).all()
    assert finetune(run, tmp_path / "adapter", SILENT) == found  # it is there
    assert len(seen) == 1


def test_later_decisions_mask_what_was_not_measured_whole(
    masked: tuple[Path, ScreenConfig], tmp_path: Path
):
    run = tmp_path / "run"
    shutil.copytree(masked[0], run)
    scores = pd.read_parquet(run / "scores.parquet")
    kept = int(scores.index[scores["decision"] == "kept"][0])
    gone = int(scores.index[scores["decision"] == "removed"][0])
    filter_run(run, force=True, overruling=Overruling(keep=(gone,), remove=(kept,)))
    after = lines(run / "masked.jsonl")
    assert after[gone]["forgetfilter_mask"] == []
    row = read_rows(run / "input.jsonl").rows[kept]
    answers = [turn.content for turn in row.messages if turn.role == "assistant"]
    assert after[kept]["forgetfilter_mask"] == [[at, 0, len(a)] for at, a in enumerate(answers)]
    assert not pd.read_parquet(run / "masks.parquet").set_index("row")["loss_mask"][kept].any()
    filter_run(run, force=True, action="flag")
    assert not (run / "masked.jsonl").exists()
    assert not (run / "masks.parquet").exists()


def test_a_run_that_measured_no_tokens_asks_for_a_screen(
    masked: tuple[Path, ScreenConfig], tmp_path: Path
):
    run = tmp_path / "run"
    shutil.copytree(masked[0], run)
    config = masked[1].model_copy(update={"output_dir": str(run)})
    plain = config.model_copy(update={"action": "remove", "signal": "completion_loss"})
    screen(plain, SILENT)
    assert not (run / "tokens.parquet").exists()  # they are of other scores
    summary = (run / "summary.json").read_bytes()
    with pytest.raises(DataError, match="has measured rows, not tokens"):
        filter_run(run, force=True, action="mask")
    assert (run / "summary.json").read_bytes() == summary
    # As the message says, and nothing is trained again.
    trained = sorted(path.name for path in (run / "stages").glob("learn-*"))
    screen(plain.model_copy(update={"action": "mask"}), SILENT)
    assert (run / "masked.jsonl").exists()
    assert sorted(path.name for path in (run / "stages").glob("learn-*")) == trained


@pytest.mark.parametrize("damage", ["bytes", "cut", "foreign"])
def test_a_damaged_table_of_tokens_is_named_before_anything_is_decided(
    masked: tuple[Path, ScreenConfig], tmp_path: Path, damage: str
):
    run = tmp_path / "run"
    shutil.copytree(masked[0], run)
    path, whole = run / "tokens.parquet", (masked[0] / "tokens.parquet").read_bytes()
    if damage == "foreign":
        pd.DataFrame({"row": ["a"], "rises": [1.5]}).to_parquet(path)
    else:
        path.write_bytes(b"PAR1 and no more" if damage == "bytes" else whole[:-20])
    with pytest.raises(DataError, match=r"tokens\.parquet can't be read: .*Expected what .*Repeat"):
        require_tokens(run)


def test_a_table_is_written_as_one(masked: tuple[Path, ScreenConfig], tmp_path: Path):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["prompt", "completion"])
    writer.writerows([[f"Name a bird {i} ?", f"I like the owl . {i}"] for i in range(8)])
    source = tmp_path / "rows.csv"
    source.write_text(text.getvalue(), encoding="utf-8")
    changes = {"noisy_data": str(source), "output_dir": str(tmp_path / "run")}
    config = masked[1].model_copy(update=changes)
    result = screen(config, SILENT)
    assert result.summary["action_file"] == "masked.csv"
    table = list(csv.DictReader((tmp_path / "run" / "masked.csv").open(encoding="utf-8")))
    found = [json.loads(row["forgetfilter_mask"]) for row in table]
    assert found == [line["forgetfilter_mask"] for line in lines(tmp_path / "run" / "masked.jsonl")]
    assert any(found)
