"""The adapters inside the real tools, each where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from decided_run import make_run, plain_rows
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.integrations import axolotl as ours_of_axolotl
from forgetfilter.integrations import llama_factory as ours_of_llama_factory
from forgetfilter.integrations.foreign import is_installed

ROOT = Path(__file__).parent.parent
TESTBED = ROOT / "src" / "forgetfilter" / "lab" / "testbed" / "files"

datatrove = pytest.mark.skipif(not is_installed("datatrove"), reason="datatrove is not installed")
data_juicer = pytest.mark.skipif(
    not is_installed("data_juicer"), reason="py-data-juicer is not installed"
)
axolotl = pytest.mark.skipif(not is_installed("axolotl"), reason="axolotl is not installed")
llama_factory = pytest.mark.skipif(
    not is_installed("llamafactory"), reason="llamafactory is not installed"
)


def lines(*paths: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(paths) for line in path.read_text().splitlines() if line
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["id"] for row in rows)


def execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "DO_NOT_TRACK": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def pipeline(folder: Path, *steps: Any, tasks: int = 1) -> None:
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(
        list(steps), tasks=tasks, workers=tasks, logging_dir=str(folder / "logs")
    ).run()


@datatrove
def test_datatrove_filters_a_split_stream_by_a_run(tmp_path: Path):
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    from forgetfilter.integrations.datatrove import (
        DecisionFilter,
        document_to_row,
        row_to_document,
    )

    run = make_run(tmp_path / "run", 20)
    rows = plain_rows(20)
    write(tmp_path / "in" / "a.jsonl", rows[10:])
    write(tmp_path / "in" / "b.jsonl", rows[:10])
    pipeline(
        tmp_path,
        JsonlReader(str(tmp_path / "in"), adapter=row_to_document),
        DecisionFilter(run, exclusion_writer=JsonlWriter(str(tmp_path / "out"), compression=None)),
        JsonlWriter(str(tmp_path / "kept"), adapter=document_to_row, compression=None),
        tasks=2,
    )
    kept = lines(*(tmp_path / "kept").iterdir())
    assert ids(kept) == ids(lines(run / "kept.jsonl"))
    assert all(row in rows for row in kept)  # the very rows, with all columns
    dropped = lines(*(tmp_path / "out").iterdir())
    assert {one["metadata"]["filter_reason"] for one in dropped} == {"removed"}
    assert len(kept) + len(dropped) == 20


@datatrove
def test_datatrove_stops_at_a_document_that_was_never_judged(tmp_path: Path):
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    from forgetfilter.integrations.datatrove import (
        DecisionFilter,
        document_to_row,
        row_to_document,
    )

    run = make_run(tmp_path / "run", 20)
    write(tmp_path / "in" / "a.jsonl", [*plain_rows(5), *plain_rows(21)[20:]])
    for unjudged, expected in (("drop", 5), ("keep", 6), ("raise", None)):
        target = tmp_path / unjudged
        steps = (
            JsonlReader(str(tmp_path / "in"), adapter=row_to_document),
            DecisionFilter(run, unjudged),
            JsonlWriter(str(target), adapter=document_to_row, compression=None),
        )
        if expected is None:
            with pytest.raises(DataError, match=r"a\.jsonl/5 is none of the rows"):
                pipeline(target, *steps)
        else:
            pipeline(target, *steps)
            assert len(lines(*target.glob("*.jsonl"))) == expected


@datatrove
def test_datatrove_screens_in_one_task_alone(tmp_path: Path):
    from forgetfilter.integrations.datatrove import ScreenStep

    step = ScreenStep(tmp_path / "run", TESTBED)
    assert list(step.run(None)) == []
    with pytest.raises(ConfigError, match="split into 4 tasks"):
        list(step.run(iter(()), 0, 4))


SCREEN: dict[str, Any] = {
    "signal": "restoration",
    "threshold": "fraction:0.25",
    "coverage": "off",
    "force": True,
    "learn": {"num_train_epochs": 1},
}


def noisy(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    """Rows to screen with the bundled model, and safe rows."""
    command = [sys.executable, "-m", "forgetfilter", "testbed"]
    of_noisy = ["--unsafe-fraction", "0.5", "--truth", "truth.jsonl"]
    for name, more in (("noisy", of_noisy), ("safe", [])):
        words = [name, "--rows", "16", "--output", f"{name}.jsonl", *more]
        done = execute([*command, *words], folder)
        assert done.returncode == 0, done.stderr
    return lines(folder / "noisy.jsonl"), folder / "safe.jsonl"


@datatrove
@pytest.mark.slow
def test_datatrove_screens_what_comes(tmp_path: Path):
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    from forgetfilter.integrations.datatrove import ScreenStep, document_to_row, row_to_document

    rows, safe = noisy(tmp_path)
    write(tmp_path / "in" / "a.jsonl", rows)
    pipeline(
        tmp_path,
        JsonlReader(str(tmp_path / "in"), adapter=row_to_document),
        ScreenStep(tmp_path / "run", TESTBED, safe, **SCREEN),
        JsonlWriter(str(tmp_path / "kept"), adapter=document_to_row, compression=None),
    )
    assert lines(*(tmp_path / "kept").iterdir()) == lines(tmp_path / "run" / "kept.jsonl")
    assert lines(tmp_path / "run" / "removed.jsonl")


def juice(folder: Path, rows: list[dict[str, Any]], operator: dict[str, Any]) -> tuple[int, str]:
    """Run data-juicer on rows; its exit status and all that it says."""
    write(folder / "in.jsonl", rows)
    config = {
        "project_name": "p",
        "dataset_path": "in.jsonl",
        "export_path": "out/out.jsonl",
        "text_keys": "id",
        "np": 1,
        "process": [operator],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = "from data_juicer.tools.process_data import main; main()"
    done = execute([sys.executable, "-c", command, "--config", "config.yaml"], folder)
    return done.returncode, done.stdout + done.stderr


@data_juicer
def test_data_juicer_selects_by_a_run(tmp_path: Path):
    run = make_run(tmp_path / "run", 20)
    rows = [{**row, "n": number} for number, row in enumerate(plain_rows(20))]
    operator = {"forget_decision_selector": {"run": str(run)}}
    status, said = juice(tmp_path, rows[5:], operator)
    assert status == 0, said
    assert [row["n"] for row in lines(tmp_path / "out" / "out.jsonl")] == [5, 6, 7, 8, 9, 10]


@data_juicer
def test_data_juicer_stops_at_a_sample_that_was_never_judged(tmp_path: Path):
    run = make_run(tmp_path / "run", 20)
    operator = {"forget_decision_selector": {"run": str(run)}}
    status, said = juice(tmp_path, plain_rows(21), operator)
    assert status != 0
    assert "Sample 20 is none of the rows" in said
    assert not (tmp_path / "out" / "out.jsonl").exists()
    operator["forget_decision_selector"]["unjudged"] = "drop"
    assert juice(tmp_path, plain_rows(21), operator)[0] == 0
    assert len(lines(tmp_path / "out" / "out.jsonl")) == 11


@data_juicer
@pytest.mark.slow
def test_data_juicer_screens_a_data_set(tmp_path: Path):
    rows, safe = noisy(tmp_path)
    rows = [{"id": f"r{number}", **row} for number, row in enumerate(rows)]
    own = {"run": "run", "model": str(TESTBED), "safe_data": str(safe), "settings": SCREEN}
    status, said = juice(tmp_path, rows, {"forget_screen_selector": own})
    assert status == 0, said
    kept = lines(tmp_path / "run" / "kept.jsonl")
    assert ids(lines(tmp_path / "out" / "out.jsonl")) == ids(kept)
    assert 0 < len(kept) < len(rows)


@axolotl
def test_axolotl_prepares_the_kept_rows_of_a_run(tmp_path: Path):
    turns = [("user", "Is it?", 1), ("assistant", "No.", 0), ("user", "Sure?", 1)]
    turns.append(("assistant", "Yes, it is.", 1))
    masked = [{"role": role, "content": text} for role, text, _ in turns]
    for turn, (_, _, weight) in zip(masked, turns, strict=True):
        turn |= {"weight": weight} if turn["role"] == "assistant" else {}
    run = make_run(tmp_path / "run", [{"messages": masked}, *plain_rows(19)])
    entry = {"path": f"forgetfilter:{run}", "type": "chat_template"}
    config = {
        **axolotl_settings(tmp_path, TESTBED),
        "plugins": [ours_of_axolotl.PLUGIN],
        "datasets": [{**entry, "message_field_training": "weight"}],
    }
    assert prepared(tmp_path, config) == texts(run)
    done = ours_of_axolotl.export(run, tmp_path / "exported", "mine")
    exported = yaml.safe_load(done.entry.read_text())["datasets"]
    del config["plugins"]
    assert prepared(tmp_path, {**config, "datasets": exported}) == texts(run)


def axolotl_settings(folder: Path, model: Path) -> dict[str, Any]:
    return {
        "base_model": str(model),
        "dataset_prepared_path": str(folder / "prepared"),
        "output_dir": str(folder / "model"),
        "sequence_len": 128,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "learning_rate": 1e-2,
        "optimizer": "adamw_torch",
        "val_set_size": 0,
    }


@axolotl
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("way", ["plug-in", "export"])
def test_axolotl_trains_on_a_cpu(way: str, tmp_path: Path, tiny_world_model: Path):
    run = make_run(tmp_path / "run", 20)
    config = {
        **axolotl_settings(tmp_path, tiny_world_model),
        "bf16": False,  # else axolotl trains in float16 where there is no GPU, and fails
        "logging_steps": 1,
    }
    if way == "plug-in":
        config["plugins"] = [ours_of_axolotl.PLUGIN]
        config["datasets"] = [{"path": f"forgetfilter:{run}", "type": "chat_template"}]
    else:
        done = ours_of_axolotl.export(run, tmp_path / "exported", "mine")
        config |= yaml.safe_load(done.entry.read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "axolotl.cli.main", "train", "config.yaml"]
    trained = execute([*command, "--launcher", "python"], tmp_path)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    (checkpoint,) = (tmp_path / "model").glob("checkpoint-*")
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == state["global_step"] == 6  # 11 kept rows, two at a time
    assert float(losses[-1]) < float(losses[0])
    before, after = (
        (folder / "model.safetensors").read_bytes()
        for folder in (tiny_world_model, tmp_path / "model")
    )
    assert before != after


PREPARE = """
import json, sys
from axolotl.cli.args import TrainerCliArgs
from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.loaders import load_tokenizer

config = load_cfg(sys.argv[1])
tokenizer = load_tokenizer(config)
rows = load_datasets(cfg=config, cli_args=TrainerCliArgs()).train_dataset
learned = [[t for t in row["labels"] if t != -100] for row in rows]
with open(sys.argv[2], "w") as file:
    json.dump([tokenizer.decode(row) for row in learned], file)
"""


def prepared(folder: Path, config: dict[str, Any]) -> list[str]:
    """What of axolotl's prepared rows carries loss."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = execute([sys.executable, "-c", PREPARE, "config.yaml", "learned.json"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(json.loads((folder / "learned.json").read_text()))


def texts(run: Path) -> list[str]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(TESTBED))
    answers = [row["messages"][-1]["content"] + "<|end|>" for row in lines(run / "kept.jsonl")]
    return sorted(tokenizer.decode(tokenizer(answer)["input_ids"]) for answer in answers)


@llama_factory
def test_llama_factory_trains_on_an_export(tmp_path: Path):
    history = [["Question zero?", "Answer zero."]]
    more = {"instruction": "Add.", "input": "2 and 2", "output": "4", "history": history}
    run = make_run(tmp_path / "run", [more, *plain_rows(19)])
    done = ours_of_llama_factory.export(run, tmp_path / "data", "mine")
    config = {
        "model_name_or_path": str(TESTBED),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": str(tmp_path / "data"),
        "dataset": "mine",
        "template": "empty",
        "cutoff_len": 128,
        "output_dir": str(tmp_path / "model"),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "report_to": "none",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = "from llamafactory.train.tuner import run_exp; run_exp()"
    train = execute([sys.executable, "-c", command, "config.yaml"], tmp_path)
    said = train.stdout + train.stderr
    assert train.returncode == 0, said
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert f"Num examples = {done.rows}" in said
    assert done.rows == 11
    for dropped in ("Dropped invalid example", "Skipping this abnormal example"):
        assert dropped not in said
