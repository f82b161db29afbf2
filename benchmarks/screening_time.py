"""A whole screen against one plain TRL fine-tune of the same rows, by epochs.

    OMP_NUM_THREADS=1 python benchmarks/screening_time.py [--rows 100] [--epochs 1 3 10]
    OMP_NUM_THREADS=1 python benchmarks/screening_time.py --model FOLDER --noisy FILE --safe FILE

Plain is TRL's own trainer as its documentation shows it, on the same tokens, with the same adapter,
batch size, steps and learning rate, in float32 as the screen is. A screen is all of it: reading,
learning for exactly as many epochs, restoring, scoring, deciding, coverage, report. ``--max-rows 0
300`` has all rows learned, then 300 of them; all are scored. With ``--noisy`` and ``--safe`` the
rows are the first of these files, and else of the made-up world. Ratios are of one round, in which
all take their turn; lower is better.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.data.reading import read_rows
from forgetfilter.data.tokens.encoding import loss_labels
from forgetfilter.lab.testbed import bundled_model_path
from forgetfilter.model.loading.model_files import hidden_size
from forgetfilter.model.training.defaults import width_learning_rate
from forgetfilter.model.workbench import Workbench
from forgetfilter.progress import Progress
from forgetfilter.runs.stages import StageStore
from forgetfilter.screening.screen import screen
from parts.inputs import add_inputs, parsed, write_inputs
from parts.side_by_side import keep, ratios, shown, spread, take_turns

SILENT = Progress(is_silent=True)
PLAIN = "plain TRL"


def plain_fine_tune(config: ScreenConfig, rows: list[dict[str, Any]]) -> None:
    """What a user would run without this package."""
    import datasets
    import trl
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_callback import PrinterCallback

    lora, learn = config.lora, config.learn
    with tempfile.TemporaryDirectory() as scratch:
        arguments = trl.SFTConfig(  # pyright: ignore[reportPrivateImportUsage]
            output_dir=scratch,
            num_train_epochs=learn.num_train_epochs or 3,
            per_device_train_batch_size=learn.batch_size,
            learning_rate=learn.learning_rate or 2e-4,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=None,
        )
        adapter = LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        trainer = trl.SFTTrainer(  # pyright: ignore[reportPrivateImportUsage]
            model=AutoModelForCausalLM.from_pretrained(config.model, dtype=config.dtype),
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(config.model),
            peft_config=adapter,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(scratch)


def tokenised(config: ScreenConfig) -> list[dict[str, Any]]:
    """The rows as the package makes them, for a trainer that takes tokens."""
    bench = Workbench(
        config.model, StageStore(Path(config.output_dir)), lora=config.lora, seed=0, progress=SILENT
    )
    rows, _ = bench.encoder.encode(read_rows(str(config.noisy_data)).rows)
    return [
        {"input_ids": row.input_ids.tolist(), "labels": list(loss_labels(row, "assistant"))}
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="folder (default: the bundled model)")
    add_inputs(parser, 100)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--signals", nargs="+", default=["restoration", "crossfit"])
    parser.add_argument("--max-rows", type=int, nargs="+", default=[0], help="learned; 0 = all")
    parser.add_argument("--kept", action="store_true", help="losses of training, learn.keep_losses")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to keep what was found")
    options = parsed(parser)
    found: dict[str, Any] = {"rows": options.rows, "rounds": options.rounds, "epochs": {}}
    print(f"{options.rows} rows, {options.rounds} rounds in turn, 1 seed\n")
    print("| epochs | way | seconds of the processor | times plain |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_inputs(folder, options)
        for epochs in options.epochs:
            found["epochs"][epochs] = _one(folder, epochs, options)
    keep(options.json, found)


def _one(folder: Path, epochs: int, options: argparse.Namespace) -> dict[str, Any]:
    model = options.model or str(bundled_model_path())
    learn = {
        "num_train_epochs": epochs,
        "stop": "epochs",
        "learning_rate": width_learning_rate(hidden_size(model)),
        "keep_losses": options.kept,
    }
    given = {
        "noisy_data": str(folder / "noisy.jsonl"),
        "safe_data": str(folder / "safe.jsonl"),
        "model": model,
        "output_dir": str(folder / "run"),
        "learn": learn,
        "dtype": "float32",
        "force": True,
    }
    configs = {
        signal + (f", {most} rows learned" if most else ""): resolve(
            ScreenConfig, given, {"signal": signal, "learn": {"max_rows": most or None}}
        )
        for signal in options.signals
        for most in options.max_rows
    }
    rows = tokenised(next(iter(configs.values())))

    def whole(config: ScreenConfig) -> None:
        shutil.rmtree(folder / "run", ignore_errors=True)
        screen(config, SILENT)

    ways: dict[str, Any] = {PLAIN: lambda: plain_fine_tune(next(iter(configs.values())), rows)}
    for signal, config in configs.items():
        ways[f"screen, {signal}"] = lambda config=config: whole(config)
    turns = take_turns(ways, options.rounds)
    told: dict[str, Any] = {"turns": turns, "ways": {}}
    for name, own in turns.items():
        seconds = spread([turn["cpu"] for turn in own])
        times = ratios(turns, name, PLAIN)
        told["ways"][name] = {"cpu_seconds": seconds, "times_plain": times}
        print(f"| {epochs} | {name} | {shown(seconds, 1)} | {shown(times)} |", flush=True)
    return told


if __name__ == "__main__":
    main()
