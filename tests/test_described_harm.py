"""A harm named in words: the direction by hand, and a screen that is the same with and without."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import rows_of, write_rows
from decided_run import summary_of
from forgetfilter import cli
from forgetfilter.config import ScreenConfig
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.model.measuring.described_harm import direction_of, harm_direction
from forgetfilter.progress import Progress
from forgetfilter.runs.one_row import describe_row, tell_row
from forgetfilter.screening.annotations.described_harm import contrasts_of, description_fingerprint
from forgetfilter.screening.screen import screen
from made_run import row_data
from made_setting import setting_maker

SILENT = Progress(is_silent=True)
RUDE = "The answer is rude."


def test_the_direction_by_hand_is_that_of_the_layer_that_parts_held_out_answers_best():
    """Four prompts, one contrast, two axes: layer 1 parts them by chance, layer 2 by 3 along x."""
    told, told_not = np.zeros((4, 3, 2)), np.zeros((4, 3, 2))
    told[:, 0, 1] = 9.0  # the embedding is never chosen
    told[:, 1, 1] = [1.0, -1.0, -1.0, 1.0]
    told[:, 2, 0] = [2.0, 4.0, 3.0, 3.0]
    found = direction_of(told, told_not, 1)
    assert found.layer == 2
    assert found.along.tolist() == pytest.approx([1.0, 0.0])
    assert found.gap == pytest.approx(3.0)
    assert found.told_apart == 1.0
    assert found.pairs == 4
    # The two halves point in opposite directions: of no held-out pair is the order right.
    told[:, 2, 0] = [2.0, -2.0, 3.0, -3.0]
    assert direction_of(told, told_not, 1).told_apart <= 0.5
    assert direction_of(told_not, told_not, 1).told_apart == 0.5
    # Both contrasts of a prompt are held out together: the first and third prompt make one half.
    paired = direction_of(np.repeat(told, 2, axis=0), np.repeat(told_not, 2, axis=0), 2)
    assert paired.told_apart == direction_of(told, told_not, 1).told_apart


def test_a_sentence_or_a_file_of_contrasts_describes_a_harm(tmp_path: Path):
    both = contrasts_of(RUDE)
    assert all(RUDE.rstrip(".") in text for pair in both for text in pair)
    assert all(first != second for first, second in both)
    lines = [{"harmful": "Insult me.", "harmless": "Be polite."}]
    first, second = (write_rows(tmp_path / name, lines) for name in ("a.jsonl", "b.jsonl"))
    assert contrasts_of(str(first)) == [("Insult me.", "Be polite.")]
    assert description_fingerprint(str(first)) == description_fingerprint(str(second))
    assert description_fingerprint(RUDE) != description_fingerprint("The answer is kind.")
    with pytest.raises(ConfigError, match="describe_harm is empty"):
        contrasts_of("  ")
    write_rows(first, [*lines, {"harmful": "Insult me.", "harmless": "Insult me."}])
    with pytest.raises(ConfigError, match="line 2 has no two different texts"):
        contrasts_of(str(first))
    first.write_text("\n")
    with pytest.raises(ConfigError, match="has no line"):
        contrasts_of(str(first))


def test_prompts_without_room_for_the_description_are_told(
    tiny_model: Callable[..., Path],
    quick_config: Callable[..., ScreenConfig],
    tmp_path: Path,
):
    bench = setting_maker(tmp_path, tiny_model, quick_config)().bench
    with pytest.raises(DataError, match="Of 0 prompts of safe rows 0 leave room"):
        harm_direction(bench, contrasts_of(RUDE), [])


@pytest.fixture(scope="module")
def runs(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same rows screened without a described harm, with one, and with its opposite."""
    root = tmp_path_factory.mktemp("described")
    noisy = write_rows(root / "noisy.jsonl", rows_of(12))
    lines = [{"harmful": "Where is the owl?", "harmless": "Name the lamp."}]
    described = write_rows(root / "described.jsonl", lines)
    swapped = write_rows(
        root / "swapped.jsonl",
        [{"harmful": one["harmless"], "harmless": one["harmful"]} for one in lines],
    )
    found = {name: root / name for name in ("without", "with", "opposite")}
    for name, text in (("without", None), ("with", str(described)), ("opposite", str(swapped))):
        if text is not None:
            shutil.copytree(found["without"], found[name])
        changes = {"threshold": "fraction:0.25", "coverage": "off", "describe_harm": text}
        config = quick_config(found[name], signal="completion_loss", **changes)
        screen(config.model_copy(update={"noisy_data": str(noisy)}), SILENT)
    return found


def scores_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "scores.parquet")


def test_it_stands_in_a_column_of_its_own_and_decides_nothing(runs: dict[str, Path]):
    plain, asked = scores_of(runs["without"]), scores_of(runs["with"])
    assert "described_harm" not in plain.columns
    assert np.isfinite(asked["described_harm"]).all()
    assert asked["described_harm"].nunique() > 3
    pd.testing.assert_frame_equal(asked[plain.columns], plain)
    for name in ("kept.jsonl", "removed.jsonl"):
        assert (runs["with"] / name).read_bytes() == (runs["without"] / name).read_bytes()
    before, after = (summary_of(runs[name]) for name in ("without", "with"))
    assert before["decision"] == after["decision"]
    assert "described_harm" not in before
    assert after["described_harm"]["pairs"] == 8  # one contrast for each of the safe rows
    learned = [
        sorted(path.name for path in (run / "stages").glob("learn-*")) for run in runs.values()
    ]
    assert learned[0] == learned[1]  # nothing was trained again


def test_the_opposite_is_the_same_direction_backwards(runs: dict[str, Path]):
    found, opposite = (scores_of(runs[name])["described_harm"] for name in ("with", "opposite"))
    np.testing.assert_allclose(found, -opposite, rtol=1e-4, atol=1e-6)


def test_report_and_show_tell_it(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    html = (runs["with"] / "report.html").read_text(encoding="utf-8")
    assert "Described harm, <q>" in html
    assert '<option value="described">' in html
    data, scores = row_data(html), scores_of(runs["with"])["described_harm"]
    shown = dict(zip(data["index"]["row"], data["index"]["described"], strict=True))
    assert set(scores.nlargest(5).index) <= set(shown)
    assert all(value == pytest.approx(scores[row], rel=1e-4) for row, value in shown.items())
    rows = json.loads((runs["with"] / "report.json").read_text())["rows"]
    assert {row["row"]: row["described_harm"] for row in rows}[0] == pytest.approx(scores[0])
    said = describe_row(tell_row(runs["with"], 0))
    assert "described harm" in said
    assert "it decides nothing" in said
    assert cli.main(["filter", str(runs["with"]), "--threshold", "fraction:0.5", "--force"]) == 0
    assert "Described harm (" in capsys.readouterr().out
    pd.testing.assert_series_equal(scores_of(runs["with"])["described_harm"], scores)
    plain = (runs["without"] / "report.html").read_text(encoding="utf-8")
    assert "Described harm, <q>" not in plain
