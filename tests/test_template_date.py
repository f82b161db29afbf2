"""What a template says of the date is fixed when a run begins, and stays so whenever it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from conftest import build_model, save_model
from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data import read_rows
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.base_model import load_tokenizer
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.screening.deciding.decide import run_folder
from forgetfilter.screening.finetune import finetune, stored_setting
from forgetfilter.screening.inputs import setup
from forgetfilter.screening.screen import screen
from test_templates import SIMPLE

SILENT = Progress(is_silent=True)
DATED = "<|system|>Today is {{ strftime_now('%d %b %Y') }}.<|end|>" + SIMPLE


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Callable[[date], None]:
    """``today(day)`` makes it that day."""

    def make(day: date) -> None:
        class Day(date):
            @classmethod
            def today(cls) -> date:
                return day

        monkeypatch.setattr(setup, "date", Day)

    return make


def trained(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "stages").glob("learn*") if path.is_dir())


def test_a_run_that_is_killed_goes_on_after_midnight_and_finetune_sees_the_same_tokens(
    quick_config: Callable[..., ScreenConfig],
    tiny_tokenizer: Callable[..., Any],
    tmp_path: Path,
    today: Callable[[date], None],
    monkeypatch: pytest.MonkeyPatch,
):
    tokenizer = tiny_tokenizer(chat_template=DATED)
    model = save_model(build_model("llama", tokenizer), tokenizer, tmp_path / "model")
    run = tmp_path / "run"
    config = quick_config(run, model=model, signal="restoration")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    today(date(2026, 11, 25))
    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "restore", killed)
        with pytest.raises(KeyboardInterrupt):
            screen(config, SILENT)
    before = trained(run)
    assert before
    today(date(2026, 11, 26))
    screen(config, SILENT)
    assert trained(run) == before
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["template_date"] == "2026-11-25"

    today(date(2026, 12, 1))
    finetune(run, tmp_path / "adapter", SILENT)
    recorded = resolve(ScreenConfig, run_folder(run).config())
    folder = run_folder(run)
    setting, _ = stored_setting(folder, recorded, SILENT)
    rows = read_rows(config.noisy_data).rows
    known = load_tokenizer(str(model))
    assert setting.noisy == Encoder(known, "auto", 192, date(2026, 11, 25)).encode(rows)[0]
    assert setting.noisy != Encoder(known, "auto", 192, date(2026, 12, 1)).encode(rows)[0]


def test_a_template_without_a_date_records_none(
    quick_config: Callable[..., ScreenConfig], tmp_path: Path
):
    screen(quick_config(tmp_path / "run", signal="restoration"), SILENT)
    assert "template_date" not in json.loads((tmp_path / "run" / "provenance.json").read_text())
