"""Cards of what a run has made: read by the hub's own reader, and no stranger's text is markup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from forgetfilter.config import ScreenConfig
from forgetfilter.progress import Progress
from forgetfilter.runs.cards import dataset_card, model_card
from forgetfilter.runs.schema import Summary
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen
from made_run import HOSTILE

SILENT = Progress(is_silent=True)
MARKDOWN = (
    "[click](https://example.org/x)",
    "![](https://example.org/x.png)",
    "a | b | c",
    "**bold** _it_ `code`",
    "---\nlicense: mit\n---",
    "# heading\n- list",
    "https://example.org www.example.org me@example.org",
)


def told(**changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "signal": "crossfit",
        "rows": 10,
        "kept": 8,
        "removed": 1,
        "rejected": 1,
        "threshold": {"rule": "valley", "value": 0.2},
        "seed": 3,
        "model": "org/model-7b",
        "noisy_data": "/home/me/secret/customers.jsonl",
        "safe_data": "/home/me/secret/safe.jsonl",
        "verdict": {"level": "some", "reason": "rows_stand_out", "message": "1 stands out."},
    }
    return Summary.model_validate(fields | changes)


def test_the_hubs_own_reader_reads_the_headers():
    data = DatasetCard(dataset_card(told())).data.to_dict()
    assert data["size_categories"] == ["n<1K"]
    files = [{"split": "train", "path": "kept.jsonl"}]
    assert data["configs"] == [{"config_name": "default", "data_files": files}]
    assert ModelCard(model_card(told(), 8)).data.to_dict()["base_model"] == "org/model-7b"
    local = ModelCard(model_card(told(model="/home/me/models/own"), 8))
    assert "base_model" not in local.data.to_dict()
    assert "own, fine-tuned on screened rows" in local.text


@pytest.mark.parametrize(
    ("kept", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K")]
)
def test_the_size_is_that_of_the_kept_rows(kept: int, size: str):
    card = DatasetCard(dataset_card(told(rows=kept + 2, kept=kept)))
    assert card.data.to_dict()["size_categories"] == [size]


def test_cards_name_where_things_are_from_and_no_folder():
    for card in (dataset_card(told()), model_card(told(model="/home/me/own"), 8)):
        assert "/home" not in card
        assert "secret" not in card
        assert "customers.jsonl" in card
        assert "safe.jsonl" in card
    several = [f"/home/me/secret/part-{n}.jsonl" for n in range(7)]
    card = dataset_card(told(noisy_data=", ".join(several)))
    assert "part-0.jsonl, part-1.jsonl, part-2.jsonl" in card.replace("\\", "")
    assert "part-4.jsonl and 2 more" in card.replace("\\", "")
    assert "secret" not in card
    assert "customers.jsonl" in dataset_card(told(noisy_data="/home/Smith, J/customers.jsonl"))
    assert "Smith" not in dataset_card(told(noisy_data="/home/Smith, J/customers.jsonl"))


def test_a_dataset_card_of_undecided_rows_offers_no_file():
    card = DatasetCard(dataset_card(told(kept=0, removed=0, undecided=9, is_decided=False)))
    assert "configs" not in card.data.to_dict()
    assert "Nothing was decided" in card.text


@pytest.mark.parametrize("hostile", [*HOSTILE, *MARKDOWN])
def test_a_strangers_text_is_text(hostile: str):
    summary = told(
        model=hostile,
        noisy_data=hostile,
        safe_data=hostile,
        signal=f"crossfit:{hostile}",
        threshold={"rule": hostile, "value": 0.2},
        verdict={"level": "some", "reason": "x", "message": hostile},
        findings=[{"name": "x", "severity": "warning", "message": hostile}],
        coverage=[
            {"category": hostile, "rows": 1, "damage": 1.0, "left": 1.0, "undone": 0.0,
             "verdict": "not covered"}
        ],
    )  # fmt: skip
    benign = told(
        signal="crossfit",
        findings=[{"name": "x", "severity": "warning", "message": "m"}],
        coverage=[
            {"category": "c", "rows": 1, "damage": 1.0, "left": 1.0, "undone": 0.0,
             "verdict": "not covered"}
        ],
    )  # fmt: skip
    for card, plain in (
        (dataset_card(summary), dataset_card(benign)),
        (model_card(summary, 8), model_card(benign, 8)),
    ):
        header, body = re.match(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
        assert "license" not in DatasetCard(card).data.to_dict()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", card)
        ours = plain.split("\n---\n", 1)[1]
        for mark in ("<", ">", "](", "![", "`", "**", "_", "://", "www.", "|", "@"):
            assert body.count(mark) == ours.count(mark), mark
        assert len(body.splitlines()) == len(ours.splitlines())
        assert header


@pytest.fixture(scope="module")
def finished(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("cards") / "run"
    screen(quick_config(run, threshold="fraction:0.25"), SILENT)
    return run


def test_a_run_has_the_card_of_its_present_decision(finished: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    card = (run / "dataset_card.md").read_text(encoding="utf-8")
    assert "| removed | 4 |" in card
    filter_run(run, "fraction:0.5", force=True)
    assert "| removed | 8 |" in (run / "dataset_card.md").read_text(encoding="utf-8")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert dataset_card(Summary.model_validate(summary)) == (run / "dataset_card.md").read_text(
        encoding="utf-8"
    )


def test_an_adapter_has_a_card_that_says_what_it_was_trained_on(finished: Path, tmp_path: Path):
    run, output = tmp_path / "run", tmp_path / "adapter"
    shutil.copytree(finished, run)
    finetune(run, output, SILENT)
    card = ModelCard.load(output / "README.md")
    assert card.data.to_dict()["library_name"] == "peft"
    assert "fine-tuned on 12 rows of" in card.text
    assert "[More Information Needed]" not in card.text  # PEFT's empty form
    assert "README.md" in json.loads((output / "forgetfilter.json").read_text())["files"]
