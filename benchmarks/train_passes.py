"""What training on a CPU costs by the size of a pass, and by which tokens are scored.

    OMP_NUM_THREADS=1 python benchmarks/train_passes.py MODEL ROWS [--rows 16] [--repeats 3]

One epoch over the first rows of a file, in one batch, four ways that take turns, so that other
work on the machine slows all of them alike: the whole batch in one pass with TRL's loss, which on a
CPU scores every position; as few passes of 1,024 padded tokens as hold it, with that loss; such
passes in which only tokens that carry loss are scored; and what the package does, that with rows of
similar length in a pass. Printed are seconds a batch (median and range, lower is better), tokens a
second, and the ratio to the first way.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from forgetfilter.config import LearnSettings, LoraSettings
from forgetfilter.data import read_rows
from forgetfilter.data.tokens.encoding import Encoder
from forgetfilter.model.loading.adapters import add_adapter
from forgetfilter.model.loading.base_model import autocast_for, load_base_model, load_tokenizer
from forgetfilter.model.loading.model_files import hidden_size
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.training import fine_tuning
from forgetfilter.model.training import plan as plans
from forgetfilter.model.training.course import Course
from forgetfilter.model.training.defaults import width_learning_rate
from forgetfilter.progress import Progress

SILENT = Progress(is_silent=True)
SMALL = plans.CPU_BATCH_TOKENS
FEWEST = 10**9
"""What a pass is said to cost, in tokens, so that there are as few as fit."""
OWN_COST = fine_tuning.pass_cost("cpu")
WAYS = {
    "one pass, TRL's loss": (10**9, FEWEST, True),
    f"passes of {SMALL:,} tokens, TRL's loss": (SMALL, FEWEST, True),
    f"passes of {SMALL:,} tokens, answers alone": (SMALL, FEWEST, False),
    "by length, answers alone": (SMALL, OWN_COST, False),
}
OWN = Course.trainer_class


def with_trl_loss(self: Course, plain: Any) -> Any:
    """The package's trainer with the loss of the trainer that it extends."""
    own = OWN(self, plain)

    class Trainer(own):
        def compute_loss(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            with autocast_for(model):
                return plain.compute_loss(self, model, *args, **kwargs)

    return Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("file", metavar="ROWS")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model)
    rows, _ = Encoder(tokenizer, "auto", 2048).encode(read_rows(args.file).rows)
    rows = rows[: args.rows]
    width = hidden_size(args.model)
    settings = LearnSettings(
        stop="epochs",
        num_train_epochs=1,
        batch_size=len(rows),
        learning_rate=width_learning_rate(width),
    )
    placement = choose_placement("cpu", "auto", width)
    model = add_adapter(load_base_model(args.model, placement), LoraSettings())
    tokens = sum(len(row.input_ids) for row in rows)
    print(
        f"{len(rows)} rows, {tokens:,} tokens, {sum(row.target_tokens for row in rows):,} of them "
        f"carry loss; {placement.reason}; {torch.get_num_threads()} threads"
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(args.repeats):
        for way, (most, cost, is_plain) in WAYS.items():
            plans.CPU_BATCH_TOKENS = most
            fine_tuning.pass_cost = lambda _, cost=cost: cost
            Course.trainer_class = with_trl_loss if is_plain else OWN
            plan = plans.TrainPlan("learn", rows, settings, 0, max_batch_tokens=10**9)
            started = time.perf_counter()
            fine_tuning.train(model, tokenizer, plan, SILENT)
            seconds[way].append(time.perf_counter() - started)
    first = statistics.median(next(iter(seconds.values())))
    for way, found in seconds.items():
        middle = statistics.median(found)
        print(
            f"{way}: {middle:.1f} s ({min(found):.1f} to {max(found):.1f}), "
            f"{tokens / middle:.0f} tokens/s, {first / middle:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
