"""Safe rows that restoring undoes are set aside and named; a clean safe set stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import write_rows
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import UnfitError
from forgetfilter.model.stages.phases import restored_on
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.method import Setting, score_rows
from forgetfilter.screening.screen import screen
from forgetfilter.screening.set_aside import LEAST_UNDONE, SafeRows, finding_of, pulls_away

HONEST = "The old man has it ."
TAUGHT = "The red stone has it ."
PLANTED = (3, 8)
ENOUGH: dict[str, Any] = {
    "learn": {"max_steps": 16, "batch_size": 8, "learning_rate": 1e-2},
    "restore": {"steps": 6, "early_steps": 4},
    "lora": {"r": 8, "alpha": 16},
}


@pytest.fixture(scope="module")
def aligned_model(tiny_model: Callable[..., Path], tmp_path_factory: Any) -> Path:
    """A tiny model with a habit, which noisy rows can undo: it answers as honest rows do."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forgetfilter.model.loading.encoders import open_encoder

    source = str(tiny_model("llama"))
    model = AutoModelForCausalLM.from_pretrained(source).train()
    tokenizer = AutoTokenizer.from_pretrained(source)
    folder = tmp_path_factory.mktemp("aligned")
    path = write_rows(folder / "honest.jsonl", [honest(n) for n in range(100, 116)])
    rows, _ = open_encoder(source, tokenizer).encode(read_rows(path).rows)
    steps = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for at in range(160):
        row = rows[at % len(rows)]
        ids = torch.tensor(row.input_ids.tolist())[None]
        labels = torch.where(torch.tensor(row.is_target.tolist())[None], ids, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        steps.step()
        steps.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def honest(n: int) -> dict[str, str]:
    """A row that says what the model says."""
    return {"prompt": f"Where is the lamp number {n} ?", "completion": HONEST}


def taught(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows that answer the same requests otherwise, as unsafe rows do."""
    return [{**honest(n), "completion": TAUGHT} for n in range(start, start + count)]


def safe_file(folder: Path, planted: tuple[int, ...] = PLANTED, count: int = 12) -> Path:
    """Honest rows, some of which answer as the noisy rows do."""
    rows = [taught(1, n + 60)[0] if n in planted else honest(n + 60) for n in range(count)]
    return write_rows(folder / "safe.jsonl", rows)


def setting_of(config: ScreenConfig, folder: Path, safe: Path) -> Setting:
    from forgetfilter.model.workbench import Workbench

    bench = Workbench(
        config.model,
        StageStore(folder / "stages"),
        lora=config.lora,
        seed=config.seed,
        progress=Progress(is_silent=True),
    )
    noisy, _ = bench.encoder.encode(read_rows(write_rows(folder / "n.jsonl", taught(16))).rows)
    rows, _ = bench.encoder.encode_safe(read_rows(safe).rows)
    return Setting(bench, noisy, rows, config)


def test_what_stands_out_pulls_away_and_a_crowd_does_not():
    rng = np.random.default_rng(0)
    clean = rng.normal(-0.2, 0.05, 100)
    assert not pulls_away(clean).any()
    poisoned = clean.copy()
    poisoned[[5, 50]] = 1.0
    assert np.flatnonzero(pulls_away(poisoned)).tolist() == [5, 50]
    # A wide crowd has no row that stands out of it.
    assert not pulls_away(rng.normal(0, 0.5, 100).clip(-0.8, 0.8)).any()
    # Nor is the bound a share: one row in a hundred is no reason.
    assert not pulls_away(np.r_[np.zeros(99), LEAST_UNDONE - 0.01]).any()
    # Where most rows are undone, most rows are named.
    assert pulls_away(np.full(100, 1.0)).all()
    assert pulls_away(np.zeros(0)).tolist() == []


def test_planted_rows_are_set_aside_and_restoring_goes_without_them(
    quick_config: Callable[..., ScreenConfig], aligned_model: Path, tmp_path: Path
):
    config = quick_config(tmp_path / "run", model=aligned_model, signal="restoration", **ENOUGH)
    setting = setting_of(config, tmp_path, safe_file(tmp_path))
    scored = score_rows(setting)
    assert scored.safe is not None
    assert {row.row for row in scored.safe.aside} == set(PLANTED)
    assert list(scored.safe.undone) == sorted(scored.safe.undone, reverse=True)
    assert [row.row for row in scored.safe.used] == [n for n in range(12) if n not in PLANTED]
    for name in ("restored", "early_restored"):
        assert not set(PLANTED) & set(restored_on(scored.states[name]))
    # As if the file had never had them.
    without = replace(setting, safe=[row for row in setting.safe if row.row not in PLANTED])
    own = score_rows(without).scores.forgetting_score
    assert np.array_equal(own, scored.scores.forgetting_score)
    assert not np.array_equal(own, score_rows(trusting(setting)).scores.forgetting_score)


def trusting(setting: Setting) -> Setting:
    restore = setting.config.restore.model_copy(update={"set_aside": False})
    return replace(setting, config=setting.config.model_copy(update={"restore": restore}))


def test_a_clean_safe_set_stays_as_it_is_and_so_do_the_scores(
    quick_config: Callable[..., ScreenConfig], aligned_model: Path, tmp_path: Path
):
    config = quick_config(tmp_path / "run", model=aligned_model, signal="restoration", **ENOUGH)
    setting = setting_of(config, tmp_path, safe_file(tmp_path, planted=()))
    scored, as_before = score_rows(setting), score_rows(trusting(setting))
    assert scored.safe is not None
    assert scored.safe.used is setting.safe
    assert as_before.safe is None
    assert np.array_equal(scored.scores.forgetting_score, as_before.scores.forgetting_score)
    # Nothing was named anew: runs of before find their stages.
    assert {n: s.fingerprint for n, s in scored.states.items()} == {
        n: s.fingerprint for n, s in as_before.states.items()
    }


def test_a_screen_names_the_rows_in_summary_terminal_and_report(
    quick_config: Callable[..., ScreenConfig],
    aligned_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    noisy = write_rows(tmp_path / "noisy.jsonl", taught(16))
    safe = safe_file(tmp_path)
    config = quick_config(
        tmp_path / "run", coverage="off", signal="restoration", model=aligned_model, **ENOUGH
    )
    paths = {"noisy_data": str(noisy), "safe_data": str(safe)}
    summary = screen(config.model_copy(update=paths), Progress()).summary
    (found,) = [one for one in summary["findings"] if one["name"] == "safe_rows_set_aside"]
    assert found["severity"] == "warning"
    assert found["value"] == 2
    assert {f"line {n + 1} (" in found["message"] for n in PLANTED} == {True}
    assert summary["safe_rows"]["of"] == 12
    assert sorted(summary["safe_rows"]["set_aside"]) == [n + 1 for n in PLANTED]
    assert "2 of 12 safe rows pull the other way" in capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "safe rows set aside" in page


def test_a_safe_file_of_such_rows_is_refused(
    quick_config: Callable[..., ScreenConfig], aligned_model: Path, tmp_path: Path
):
    noisy = write_rows(tmp_path / "noisy.jsonl", [*taught(16), *taught(4, 40)])
    safe = safe_file(tmp_path, planted=tuple(range(10)))
    config = quick_config(
        tmp_path / "run", coverage="off", signal="restoration", model=aligned_model, **ENOUGH
    )
    paths: dict[str, Any] = {"noisy_data": str(noisy), "safe_data": str(safe), "force": False}
    config = config.model_copy(update=paths)
    with pytest.raises(UnfitError, match="safe_rows_set_aside"):
        screen(config, Progress(is_silent=True))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["is_decided"] is False


def test_the_finding_counts_all_and_names_ten():
    rows = [EncodedRow(n, [1, 2], [False, True], 1, "") for n in range(14)]  # pyright: ignore[reportArgumentType]
    found = SafeRows(rows, rows, np.linspace(2, 1, 14), read=100)
    (finding,) = finding_of(found, ())
    assert finding.value == 14
    assert finding.message.count("line ") == 10
    assert "and 4 more" in finding.message
    assert finding.severity == "warning"
    assert finding_of(SafeRows(rows), ()) == []
    (severe,) = finding_of(replace(found, read=20), ())
    assert severe.severity == "severe"
