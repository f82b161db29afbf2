"""A training of the user's own in two processes is recorded as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from forgetfilter.integrations.trl_callback import record_training
from forgetfilter.runs.recording import Recording
from launched import Ended
from test_trl import chat_rows, trained

ARGUMENTS = {"assistant_only_loss": True, "num_train_epochs": 2}


def record(model: Path, folder: Path, batch: int) -> None:
    """Train on 14 rows, of which two are alike, and record it."""
    from datasets import Dataset

    arguments = {**ARGUMENTS, "per_device_train_batch_size": batch}
    callback = record_training(folder / "recorded")
    rows = Dataset.from_list([{"messages": row["messages"]} for row in chat_rows(14)])
    trained(model, rows, folder, arguments=arguments, callbacks=[callback])


def losses(folder: Path, step: int) -> dict[str, list[float]]:
    """The losses that were recorded for a step, in order, by the tokens of their row."""
    rows = pd.read_parquet(folder / "rows.parquet")
    found = pd.read_parquet(folder / "row_losses.parquet").query(f"step == {step}")
    found["tokens"] = rows["tokens"].to_numpy()[found["at"]]
    return found.sort_values("loss_sum").groupby("tokens")["loss_sum"].apply(list).to_dict()


def test_two_processes_record_what_one_does(tiny_model: Callable[..., Path], tmp_path: Path):
    model = tiny_model("llama")
    record(model, tmp_path / "one", 4)
    early = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_trl_processes import record
record(Path({str(model)!r}), Path({str(tmp_path)!r}, f"rank{{rank}}"), 2)
sys.stdout.flush()
os._exit(0)
"""
    ended = Ended(tmp_path / "said", 2, [], early)
    assert ended.statuses == [0, 0], ended.err
    one, two = tmp_path / "one" / "recorded", tmp_path / "rank0" / "recorded"
    assert not list((tmp_path / "rank1" / "recorded").glob("*"))
    known, found = Recording(one).record, Recording(two).record
    assert found.learn == known.learn  # a batch of two rows in each of two processes is one of four
    assert (found.rows, found.steps) == (known.rows, known.steps) == (12, 8)
    for step in (0, 1):  # later ones differ where the last batch of an epoch is filled up
        for tokens, values in losses(one, step).items():
            np.testing.assert_allclose(losses(two, step)[tokens], values, atol=1e-3)
    every = pd.read_parquet(two / "rows.parquet")["passes"].sum()
    assert every >= pd.read_parquet(one / "rows.parquet")["passes"].sum() == 2 * 14
