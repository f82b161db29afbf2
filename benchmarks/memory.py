"""Peak memory of each stage of a screen by the number of rows, and of scoring by vocabulary.

    python benchmarks/memory.py --rows 10000 100000 --output memory.json
    python benchmarks/memory.py --rows 1000000 --signal restoration --output memory-1m.json

Each size is screened in a process of its own: rows of the made-up world, a tiny model with random
weights (one layer, 16 wide) and the bundled tokenizer, and a learn phase of a few steps, because
what memory does is asked here and not what is found. Of every stage the peak of all resident memory
is kept (the kernel's own high-water mark, set back where a stage begins; megabytes of 10^6 bytes),
and what the process had before the rows were opened. Pages of mapped files count.

Scoring reads rows that fill the context with models of one layer whose vocabularies differ; beside
the peak stand the bytes of all logits of one pass, positions by vocabulary in float32, that would
be there if none was left out.

Prints one JSON object: the machine (processor, cores, memory), and for each size the stages.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLOCK = 1000
"""Rows of the made-up world that are drawn with one seed."""

STAGES = {
    "forgetfilter.screening.screen": {
        "open_input": "open the file",
        "copy_input": "copy the file",
        "read_input": "read rows",
        "check_safe_rows": "compare with safe rows",
        "encode_rows": "tokenise",
        "check_before": "check the rows",
        "score_rows": "combine readings",
        "check_scores": "check the scores",
        "write_scores": "make the tables",
        "write_readings": "make the tables",
        "write_evidence": "evidence",
        "write_harms": "harms",
        "measure_coverage": "coverage",
        "filter_rows": "decide",
        "commit_decision": "decide",
    },
    "forgetfilter.model.stages.phases": {"train_stage": "learn", "restore_stage": "restore"},
    "forgetfilter.model.stages.readings": {
        "completion_losses": "score",
        "divergences": "score",
        "nearest_rows": "neighbours",
        "safe_likeness": "likeness",
        "nearest_safe_rows": "nearest safe rows",
    },
    "forgetfilter.screening.deciding.decision_files": {
        "_write_rows": "write rows",
        "render_report": "report",
    },
}
"""By module, the functions that are stages; what one calls counts as its own unless listed."""


class Watch:
    """The peak of resident memory in each stage, megabytes, and its seconds."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._settle()
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def _settle(self) -> None:
        """Note the peak since the last call for the innermost stage, and set the mark back."""
        name = self._open[-1] if self._open else "between"
        now = time.perf_counter()
        self.peaks[name] = max(self.peaks.get(name, 0.0), status("VmHWM"))
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
        Path("/proc/self/clear_refs").write_text("5")

    def wrap(self, module: str, name: str, stage: str) -> None:
        where: Any = importlib.import_module(module)
        inner: Callable[..., Any] = getattr(where, name)

        @functools.wraps(inner)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return inner(*args, **kwargs)

        setattr(where, name, wrapped)


def status(name: str) -> float:
    """A size that the kernel keeps of this process, megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024 / 1e6


def machine() -> dict[str, Any]:
    """Processor, cores and memory; no names."""
    import torch

    said = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in said if "model name" in line), "")
    memory = Path("/proc/meminfo").read_text().splitlines()[0].split()[1]
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory) * 1024 / 1e9, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_rows(path: Path, rows: int) -> None:
    from forgetfilter.lab.testbed import make_noisy

    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, rows, BLOCK):
            made, _ = make_noisy(min(BLOCK, rows - start), 0.1, start // BLOCK)
            for number, row in enumerate(made, start):
                file.write(json.dumps({**row, "id": f"row-{number:09d}"}) + "\n")


def write_model(folder: Path, vocabulary: int | None = None, context: int = 256) -> None:
    import torch
    import transformers

    from forgetfilter.lab.testbed import bundled_model_path
    from forgetfilter.model.loading.base_model import load_tokenizer

    tokenizer = load_tokenizer(str(bundled_model_path()))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        vocab_size=vocabulary or len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def screen_once(folder: Path, rows: int, signal: str, steps: int) -> dict[str, Any]:
    """Screen ``rows`` rows in this process; what each stage had at its peak."""
    import peft  # noqa: F401  their memory is no stage's
    import trl  # noqa: F401

    from forgetfilter.config import ScreenConfig, resolve
    from forgetfilter.data.writing import write_records
    from forgetfilter.lab.testbed import make_safe
    from forgetfilter.progress import Progress
    from forgetfilter.screening.screen import screen

    write_rows(folder / "noisy.jsonl", rows)
    write_records(folder / "safe.jsonl", make_safe(200, 0))
    write_model(folder / "model")
    paths = {
        "noisy_data": str(folder / "noisy.jsonl"),
        "safe_data": str(folder / "safe.jsonl"),
        "reference_data": str(folder / "safe.jsonl"),
        "model": str(folder / "model"),
        "output_dir": str(folder / "run"),
    }
    settings = {
        "signal": signal,
        "learn": {"max_steps": steps, "learning_rate": 1e-2},
        "restore": {"steps": 2, "early_steps": 2},
        "generation": {"max_new_tokens": 4},
        "device": "cpu",
        "dtype": "float32",
        "force": True,  # what a random model scores means nothing
    }
    config = resolve(ScreenConfig, settings, paths)
    watch = Watch()
    for module, names in STAGES.items():
        for name, stage in names.items():
            watch.wrap(module, name, stage)
    start = status("VmRSS")
    began = time.perf_counter()
    watch.peaks, watch.seconds = {}, {}
    with watch.stage("between"):
        result = screen(config, Progress(is_silent=True))
    return {
        "rows": rows,
        "file_mb": round((folder / "noisy.jsonl").stat().st_size / 1e6, 1),
        "signal": signal,
        "learn_steps": steps,
        "seconds": round(time.perf_counter() - began, 1),
        "removed": result.summary["removed"],
        "before_mb": round(start, 1),
        "peak_mb": round(max(watch.peaks.values()), 1),
        "stages_mb": {name: round(value, 1) for name, value in watch.peaks.items()},
        "stage_seconds": {name: round(value, 1) for name, value in watch.seconds.items()},
    }


def score_vocabulary(folder: Path, vocabulary: int, context: int) -> dict[str, Any]:
    """Score some rows that fill the context with a model of so many tokens."""
    import numpy as np

    from forgetfilter.config import LoraSettings
    from forgetfilter.data.records import EncodedRow
    from forgetfilter.model.loading import model_files
    from forgetfilter.model.loading.active_adapter import LoadedModel
    from forgetfilter.model.loading.placement import choose_placement
    from forgetfilter.model.passes.forward import completion_losses, row_batches
    from forgetfilter.model.state import ModelState
    from forgetfilter.progress import Progress

    write_model(folder, vocabulary, context)
    silent = Progress(is_silent=True)
    placement = choose_placement("cpu", "float32", None)
    loaded = LoadedModel(str(folder), placement, LoraSettings(), 0, silent)
    model = loaded.to_read(ModelState("base", model_files.model_fingerprint(str(folder), False)))
    rng = np.random.default_rng(0)
    half = np.arange(context) >= context // 2
    ids = rng.integers(10, 900, size=(3, context))
    rows = [EncodedRow(at, own, half, context // 2, "") for at, own in enumerate(ids)]
    largest = max(batch.input_ids.numel() for batch in row_batches(model, rows, 8192))
    watch = Watch()
    before = status("VmRSS")
    with watch.stage("score"):
        completion_losses(model, rows, 8192, silent, "loss")
    peak = watch.peaks["score"]
    return {
        "vocabulary": vocabulary,
        "tokens_of_a_row": context,
        "before_mb": round(before, 1),
        "peak_mb": round(peak, 1),
        "added_mb": round(peak - before, 1),
        "all_logits_of_a_pass_mb": round(largest * vocabulary * 4 / 1e6, 1),
    }


def in_process(*arguments: str) -> dict[str, Any]:
    """What this file prints when it is called so, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--signal", default="crossfit")
    parser.add_argument("--learn-steps", type=int, default=20)
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[32_000, 128_000, 256_000])
    parser.add_argument("--context", type=int, default=1024, help="tokens of the scored rows")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--one", choices=["rows", "vocabulary"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            if options.one == "rows":
                steps = options.learn_steps
                found = screen_once(Path(folder), options.rows[0], options.signal, steps)
            else:
                found = score_vocabulary(Path(folder), options.vocabulary[0], options.context)
        print(json.dumps(found))
        return
    told: dict[str, Any] = {"machine": machine(), "screens": [], "scoring": []}
    for rows in options.rows:
        steps = ["--learn-steps", str(options.learn_steps)]
        own = ["--rows", str(rows), "--signal", options.signal, *steps]
        told["screens"].append(in_process("--one", "rows", *own))
        print(told["screens"][-1], file=sys.stderr)
    for size in options.vocabulary:
        own = ["--vocabulary", str(size), "--context", str(options.context)]
        told["scoring"].append(in_process("--one", "vocabulary", *own))
        print(told["scoring"][-1], file=sys.stderr)
    text = json.dumps(told, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
