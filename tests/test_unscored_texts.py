"""What a template leaves out of scored rows is counted in the summary and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import build_model, rows_of, save_model, write_rows
from forgetfilter.progress import Progress
from forgetfilter.screening.screen import screen
from test_templates import CUTS


def test_thoughts_that_a_template_cuts_are_counted_and_told(
    quick_config: Callable[..., Any],
    tiny_tokenizer: Callable[..., Any],
    tmp_path: Path,
):
    tokenizer = tiny_tokenizer(chat_template=CUTS)
    model = save_model(build_model("llama", tokenizer), tokenizer, tmp_path / "model")
    thinks = {"prompt": "Who has it ?", "completion": "<think>\nhm\n</think>\n\nThe old man ."}
    noisy = write_rows(tmp_path / "noisy.jsonl", [*rows_of(8), thinks, thinks])
    config = quick_config(tmp_path / "run", model=model, signal="completion_loss")
    config = config.model_copy(update={"noisy_data": str(noisy)})
    said: list[str] = []
    progress = Progress(is_silent=True)
    progress.say = said.append  # type: ignore[method-assign]
    screen(config, progress)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["unscored"] == {
        "reasoning": 2
    }
    assert any("of 2 rows the chat template leaves out the reasoning" in line for line in said)
