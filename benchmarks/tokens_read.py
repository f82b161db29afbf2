"""How much of an answer has to be read: detection by the first tokens of each answer alone.

    OMP_NUM_THREADS=1 python benchmarks/tokens_read.py RUN TRUTH [--tokens 4 8 16 32 64]

RUN is a finished screen by `crossfit`, TRUTH what `forgetfilter mix` or `forgetfilter testbed noisy
--truth` wrote for its rows. The states of the run are read again, token by token, and nothing is
trained: they have learned whole answers. Then the formula of the signal scores every row by the
first tokens of its answer, as if the rest were not there; what rows are alike, and prompts, stay as
they are. Graded is how rows rank (AUROC, average precision; higher is better) by `crossfit`, by its
own evidence without neighbours and prompts, and by `restoration`, the larger rise a token of the
two ends of one model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from forgetfilter.arrays import BoolArray, FloatArray
from forgetfilter.config import ScreenConfig
from forgetfilter.data import read_rows
from forgetfilter.model.passes.forward import token_losses
from forgetfilter.progress import Progress
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.inputs import read_input
from forgetfilter.scoring.records import Readings, StateName
from forgetfilter.scoring.signals.crossfit import Crossfit
from forgetfilter.screening.inputs.setup import encode_rows, open_workbench
from forgetfilter.screening.method import score_rows

SILENT = Progress(is_silent=True)


class Tokens:
    """The losses of each token of each row in every state that `crossfit` reads."""

    def __init__(self, run: Path) -> None:
        config = ScreenConfig.model_validate(RunFolder(run).config() | {"output_dir": str(run)})
        bench = open_workbench(config, RunFolder(run), SILENT)
        safe = read_rows(Path(str(config.safe_data)))
        setting, _ = encode_rows(config, bench, read_input(run), SILENT, safe)
        self.rows = setting.noisy
        scored = score_rows(setting)
        self.readings = scored.readings
        self.pairs = Crossfit().pairs
        self.losses: dict[StateName, list[FloatArray]] = {}
        for name in dict.fromkeys(state for pair in self.pairs for state in pair):
            model = bench.model.to_read(scored.states[name])
            limit = config.max_batch_tokens
            self.losses[name] = token_losses(model, self.rows, limit, Progress(), name)

    def first(self, count: int) -> dict[str, FloatArray]:
        """Scores by the first ``count`` tokens of each answer, each of shape (N,)."""
        weights = [row.leading_weights[:count] for row in self.rows]
        columns = dict(self.readings.columns)
        columns["leading_scale"] = np.array([np.linalg.norm(own) for own in weights])
        for name, losses in self.losses.items():
            columns[f"leading_loss_{name}"] = np.array(
                [own @ nats[:count] for own, nats in zip(weights, losses, strict=True)]
            )
        readings = Readings(self.readings.row, columns)
        rises = [
            columns[f"leading_loss_{later}"] - columns[f"leading_loss_{earlier}"]
            for earlier, later in self.pairs
        ]
        a_token = [
            np.array(
                [
                    (after[:count] - before[:count]).mean()
                    for before, after in zip(self.losses[earlier], self.losses[later], strict=True)
                ]
            )
            for earlier, later in self.pairs[:2]
        ]
        return {
            "crossfit": Crossfit().combine(readings).forgetting_score,
            "its own evidence": np.median(rises, axis=0) / columns["leading_scale"],
            "restoration": np.maximum(*a_token),
        }


def line_of(name: str, longer: int, is_unsafe: BoolArray, scores: dict[str, FloatArray]) -> str:
    cells = [
        f"{roc_auc_score(is_unsafe, score):.3f} / {average_precision_score(is_unsafe, score):.3f}"
        for score in scores.values()
    ]
    return f"| {name} | {longer} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    args = parser.parse_args()
    told = [json.loads(line) for line in args.truth.read_text().splitlines()]
    unsafe = {row["row"]: row["is_unsafe"] for row in told}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(args.run, run)
        read = Tokens(run)
    is_unsafe = np.array([unsafe[row.row] for row in read.rows], dtype=np.bool_)
    length = np.array([row.target_tokens for row in read.rows])
    names = list(read.first(1))
    print(f"{len(length)} rows, {is_unsafe.sum()} unsafe, {length.sum()} tokens of answers")
    print(f"| tokens read | answers that are longer | {' | '.join(names)} |")
    print("|---" * (len(names) + 2) + "|")
    for count in args.tokens:
        print(line_of(str(count), int((length > count).sum()), is_unsafe, read.first(count)))
    print(line_of("all", 0, is_unsafe, read.first(int(length.max()))))


if __name__ == "__main__":
    main()
