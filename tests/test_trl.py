"""A training run of the user's own with TRL, recorded, and screened with what it has learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import build_model, quick_settings, rows_of, save_model, write_rows
from forgetfilter import ForgetFilter
from forgetfilter.cli import main
from forgetfilter.config import LoraSettings, ScreenConfig, load_yaml, resolve
from forgetfilter.errors import ConfigError, DataError, ModelError, RunExistsError
from forgetfilter.integrations.trl_callback import record_training, training_dataset
from forgetfilter.model.state import phase_seed
from forgetfilter.progress import Progress
from forgetfilter.runs.recording import Recording
from forgetfilter.screening.deciding.decide import filter_run
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen

BATCH, EPOCHS, RATE = 4, 10, 1e-2
LORA = {"r": 8, "alpha": 16}


def chat_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows in ``messages``, of which some are alike."""
    rows = [row for row in rows_of(3 * count, start) if "messages" in row]
    return [*rows[: count - 2], *rows[:2]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("trl") / "custom.jsonl", chat_rows(14))


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("trl-safe") / "safe.jsonl", chat_rows(6, start=300))


def trained(
    model: Path, dataset: Any, folder: Path, seed: int = 0, *, lora: Any = None, **changes: Any
) -> Any:
    """A trainer as users set it up, which draws adapter and order as a learn phase does."""
    import peft
    import trl
    from transformers import AutoModelForCausalLM, set_seed

    base = AutoModelForCausalLM.from_pretrained(model)
    set_seed(phase_seed(seed, "learn/adapter"))
    shape = {"r": LORA["r"], "lora_alpha": LORA["alpha"], "target_modules": "all-linear"}
    wrapped = peft.get_peft_model(
        base, peft.LoraConfig(task_type="CAUSAL_LM", **{**shape, **(lora or {})})
    )
    arguments = {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": EPOCHS,
        "learning_rate": RATE,
        "max_length": None,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "seed": phase_seed(seed, "learn"),
        "disable_tqdm": True,
        **changes.pop("arguments", {}),
    }
    trainer = trl.SFTTrainer(
        model=wrapped,
        args=trl.SFTConfig(output_dir=str(folder / "trainer"), **arguments),
        train_dataset=dataset,
        **changes,
    )
    trainer.train()
    return trainer


def config_of(rows: Path, safe: Path, model: Path, run: Path, **changes: Any) -> ScreenConfig:
    settings = quick_settings(
        learn={
            "stop": "epochs",
            "num_train_epochs": EPOCHS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "warmup_ratio": 0,
        },
        lora=LORA,
        signal="restoration",
        threshold="fraction:0.3",
        coverage="off",
    )
    paths = {
        "noisy_data": str(rows),
        "safe_data": str(safe),
        "reference_data": str(safe),
        "model": str(model),
        "output_dir": str(run),
    }
    return resolve(ScreenConfig, settings, paths, changes)


def recorded_config(
    recorded: Path, rows: Path, safe: Path, model: Path, run: Path, **changes: Any
) -> ScreenConfig:
    config = config_of(rows, safe, model, run, **changes).model_dump(exclude={"learn", "lora"})
    return resolve(ScreenConfig, config, {"learned_from": str(recorded)})


@pytest.fixture(scope="module")
def recorded(
    rows: Path, tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An ordinary training on ``messages``, whose answers alone carry loss."""
    from datasets import load_dataset

    folder = tmp_path_factory.mktemp("recorded")
    dataset = load_dataset(
        "json", data_files=str(rows), split="train", cache_dir=str(folder / "cache")
    )
    trained(
        tiny_model("llama"),
        dataset,
        folder,
        arguments={"assistant_only_loss": True},
        callbacks=[record_training(folder / "recorded")],
    )
    return folder / "recorded"


@pytest.fixture(scope="module")
def taken(
    recorded: Path,
    rows: Path,
    safe: Path,
    tiny_model: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> ScreenConfig:
    """A finished screen that began with the recorded training."""
    run = tmp_path_factory.mktemp("taken") / "run"
    config = recorded_config(recorded, rows, safe, tiny_model("llama"), run)
    screen(config, Progress(is_silent=True))
    return config


def test_decisions_are_those_of_a_screen_that_learned_by_itself(
    taken: ScreenConfig,
    rows: Path,
    safe: Path,
    tiny_model: Callable[..., Path],
    tmp_path: Path,
    silent: Progress,
):
    for signal in ("restoration", "completion_loss"):
        own = screen(
            config_of(rows, safe, tiny_model("llama"), tmp_path / "own", signal=signal), silent
        )
        place = {"signal": signal, "output_dir": str(tmp_path / "taken")}
        config = resolve(ScreenConfig, taken.model_dump(), place)
        found, expected = screen(config, silent).scores, own.scores
        columns = ["base", "before", "after", "forgetting_score"]
        assert np.abs(expected["forgetting_score"]).max() > 0.1
        np.testing.assert_allclose(found[columns], expected[columns], atol=1e-3)
        assert found["decision"].tolist() == expected["decision"].tolist()
        assert 0 < (found["decision"] == "removed").sum() < len(found)


def test_a_recorded_training_is_not_done_again(taken: ScreenConfig):
    run = Path(taken.output_dir)
    (stage,) = (run / "stages").glob("learn-*")
    recorded = Path(taken.learned_from or "")
    for name in ("adapter", "early"):
        for file in (recorded / name).iterdir():
            assert (stage / name / file.name).read_bytes() == file.read_bytes()
    told = load_yaml(run / "config.yaml")
    assert told["learn"]["stop"] == "epochs"
    assert told["learn"]["learning_rate"] == RATE
    assert told["learn"]["batch_size"] == BATCH
    assert told["learn"]["num_train_epochs"] == EPOCHS
    assert told["learn"]["loss_on"] == "assistant"
    assert told["lora"] == {**LoraSettings().model_dump(), **LORA}
    again = screen(taken, Progress(is_silent=True))
    assert again.was_finished


def check_first_losses(recording: Recording, scores: pd.DataFrame, loss_on: str) -> pd.DataFrame:
    """Before the first step the adapter is nothing: rows then have the losses of the base model."""
    losses = recording.row_losses()
    first = losses[losses["step"] == 0].set_index("at")
    assert len(first) > 1
    if loss_on == "assistant":
        known = recording.rows()["tokens"]
        own = scores.assign(at=[known[known == digest].index[0] for digest in scores["digest"]])
        base = own.drop_duplicates("at").set_index("at")["base"][first.index]
        np.testing.assert_allclose(first["loss_sum"] / first["loss_tokens"], base, atol=1e-4)
    return losses


def scores_with_digests(config: ScreenConfig) -> pd.DataFrame:
    from forgetfilter.model.recorded.identity import tokens_digest

    scores = pd.read_parquet(Path(config.output_dir) / "scores.parquet")
    tokens = training_dataset(config.noisy_data, config.model)["input_ids"]
    return scores.assign(digest=[tokens_digest(np.array(ids)) for ids in tokens])


def test_losses_of_every_row_in_every_pass(taken: ScreenConfig):
    recording = Recording(Path(taken.learned_from or ""))
    scores = scores_with_digests(taken)
    losses = check_first_losses(recording, scores, "assistant")
    rows = recording.rows()
    assert len(rows) == scores["digest"].nunique() < len(scores)
    assert rows["passes"].sum() == len(losses) == EPOCHS * len(scores)
    twice = scores["digest"].value_counts()
    assert rows["passes"].tolist() == [EPOCHS * twice[digest] for digest in rows["tokens"]]
    assert losses["step"].max() == EPOCHS * -(-len(scores) // BATCH) - 1
    # With the rows' numbers they lie beside the adapter in the run.
    (stage,) = (Path(taken.output_dir) / "stages").glob("learn-*")
    kept = pd.read_parquet(stage / "row_losses.parquet")
    assert set(kept["row"]) == set(scores["row"])
    last = kept[kept["step"] == kept["step"].max()]
    assert last["loss_sum"].max() < kept[kept["step"] == 0]["loss_sum"].max()


def refused(config: ScreenConfig, error: type[Exception], *parts: str) -> str:
    with pytest.raises(error) as found:
        screen(config, Progress(is_silent=True))
    said = str(found.value)
    assert [part for part in parts if part not in said] == []
    return said


def test_a_signal_of_several_models_is_refused(taken: ScreenConfig, tmp_path: Path, capsys: Any):
    asked = ["screen", str(taken.noisy_data), "--model", taken.model, "--output-dir"]
    asked += [str(tmp_path / "run"), "--learned-from", str(taken.learned_from), "--quiet"]
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert "signal is 'contradiction', which needs two more models" in said
    assert "completion_loss" in said
    assert "rouge1" in said
    assert "--signal restoration" in said
    with pytest.raises(ConfigError, match="needs two more models"):
        ForgetFilter(taken.model, learned_from=taken.learned_from)
    ForgetFilter(taken.model, learned_from=taken.learned_from, signal="restoration")


def test_other_rows_are_refused(taken: ScreenConfig, tmp_path: Path):
    lines = Path(str(taken.noisy_data)).read_text().splitlines(keepends=True)

    def of(lines: list[str]) -> ScreenConfig:
        path = tmp_path / f"{len(lines)}.jsonl"
        path.write_text("".join(lines))
        place = {"noisy_data": str(path), "output_dir": str(tmp_path / "run")}
        return resolve(ScreenConfig, taken.model_dump(), place)

    changed = lines[3].replace("?", "!")
    assert changed != lines[3]
    refused(of([*lines, changed]), DataError, "1 of 15 rows were not trained on", "line 15")
    refused(of(lines[4:8]), DataError, "rows that are not in noisy_data, which has 4")
    # A row that can't be scored may have been trained on, and the order doesn't matter.
    spoilt = json.dumps({"messages": [{"role": "user", "content": "no answer"}]}) + "\n"
    result = screen(of([*lines[:0:-1], spoilt]), Progress(is_silent=True))
    assert result.summary["rejected"] == 1


def test_another_model_is_refused(taken: ScreenConfig, tiny_tokenizer: Any, tmp_path: Path):
    tokenizer = tiny_tokenizer()
    other = save_model(build_model("llama", tokenizer, seed=1), tokenizer, tmp_path / "other")
    place = {"model": str(other), "output_dir": str(tmp_path / "run")}
    config = resolve(ScreenConfig, taken.model_dump(), place)
    refused(config, ModelError, "is not the one of the recorded training", str(taken.model))
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(other)
    refused(config, ModelError, "has other tokens than that of the recorded training")


def test_a_changed_recording_is_refused(taken: ScreenConfig, tmp_path: Path):
    copy = tmp_path / "recorded"
    shutil.copytree(str(taken.learned_from), copy)
    place = {"learned_from": str(copy), "output_dir": str(tmp_path / "run")}
    config = resolve(ScreenConfig, taken.model_dump(), place)
    adapter = copy / "adapter" / "adapter_model.safetensors"
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(config, DataError, "adapter/adapter_model.safetensors", "is not the file")
    adapter.unlink()
    refused(config, DataError, "is missing")
    (copy / "recorded.json").write_text("{}")
    refused(config, DataError, "can't be read")
    (copy / "recorded.json").unlink()
    refused(config, DataError, "There is no recorded training", "came to its end")


def test_other_settings_than_those_of_the_training_are_refused(taken: ScreenConfig, tmp_path: Path):
    given = {"learn": {"batch_size": 8}, "output_dir": str(tmp_path / "run")}
    without = taken.model_dump(exclude={"learn", "lora"})
    config = resolve(ScreenConfig, without, given)
    refused(config, ConfigError, f"learn.batch_size: {BATCH} -> 8", "Leave these settings out")
    config = resolve(ScreenConfig, without, given | {"learn": {"max_rows": 16}})
    refused(config, ConfigError, "learn.max_rows: None -> 16", "Leave these settings out")


def test_the_recording_is_needed_once(taken: ScreenConfig, tmp_path: Path, silent: Progress):
    recorded, run = tmp_path / "recorded", tmp_path / "run"
    shutil.copytree(str(taken.learned_from), recorded)
    adapter = (recorded / "adapter" / "adapter_model.safetensors").read_bytes()
    place = {"learned_from": str(recorded), "output_dir": str(run), "threshold": "fraction:0"}
    screen(resolve(ScreenConfig, taken.model_dump(), place), silent)
    shutil.rmtree(recorded)
    # Nothing was removed: the model that was trained is the one that would be.
    finetune(run, tmp_path / "adapter", silent)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == adapter
    filter_run(run, "fraction:0.3", force=True)
    finetune(run, tmp_path / "another", silent)
    assert (tmp_path / "another" / "adapter_model.safetensors").read_bytes() != adapter


def test_rows_of_any_format_can_be_trained_on_as_a_screen_reads_them(
    safe: Path, tiny_model: Callable[..., Path], tmp_path: Path, silent: Progress
):
    rows, model = write_rows(tmp_path / "mixed.jsonl", rows_of(9)), tiny_model("llama")
    shape = {"r": 2, "target_modules": ["q_proj", "up_proj"]}
    arguments = {"num_train_epochs": 1, "lr_scheduler_type": "polynomial"}
    trained(
        model,
        training_dataset(rows, model, loss_on="all"),
        tmp_path,
        lora=shape,
        arguments=arguments,
        callbacks=[record_training(tmp_path / "recorded", early_epochs=1)],
    )
    said: list[str] = []
    config = recorded_config(tmp_path / "recorded", rows, safe, model, tmp_path / "run")

    class Told(Progress):
        def say(self, message: str) -> None:
            said.append(message)

    screen(config, Told(is_silent=True))
    learn = load_yaml(tmp_path / "run" / "config.yaml")["learn"]
    assert learn["loss_on"] == "all"
    assert learn["early_epochs"] == 1
    (told,) = [one for one in said if "can't repeat" in one]
    assert "lr_scheduler_type polynomial" in told
    assert "target_modules q_proj, up_proj" in told


def test_rows_that_trl_reads_otherwise_are_refused_with_a_way_out(
    safe: Path, tiny_model: Callable[..., Path], tmp_path: Path
):
    """TRL renders plain prompts without the chat template."""
    from datasets import Dataset

    given = [row for row in rows_of(12) if "prompt" in row]
    rows, model = write_rows(tmp_path / "plain.jsonl", given), tiny_model("llama")
    recording = record_training(tmp_path / "recorded")
    few = {"num_train_epochs": 1}
    trained(model, Dataset.from_list(given), tmp_path, arguments=few, callbacks=[recording])
    config = recorded_config(tmp_path / "recorded", rows, safe, model, tmp_path / "run")
    said = refused(
        config, DataError, "4 of 4 rows were not trained on", "line 1", "max_length=None"
    )
    assert "training_dataset(FILE, MODEL) of forgetfilter.integrations.trl_callback" in said


def test_the_trainer_of_transformers_is_recorded_too(taken: ScreenConfig, tmp_path: Path):
    import peft
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(taken.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(taken.model)
    shape = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    trainer = transformers.Trainer(
        model=peft.get_peft_model(model, shape),
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=3,
            max_steps=4,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=training_dataset(taken.noisy_data, taken.model),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        callbacks=[record_training(tmp_path / "recorded")],
    )
    trainer.train()
    recording = Recording(tmp_path / "recorded")
    losses = check_first_losses(recording, scores_with_digests(taken), "assistant")
    assert (losses["step"] == 0).sum() == 2 * 3
    assert recording.record.learn.batch_size == 2 * 3
    assert recording.record.learn.max_steps == recording.record.steps == 4
    assert recording.record.lora.targets == "attention_qv"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": {"use_dora": True}}, "an adapter with use_dora=True. Expected one plain LoRA"),
        ({"lora": {"modules_to_save": ["embed_tokens"]}}, "modules_to_save=['embed_tokens']"),
        ({"arguments": {"torch_compile": True}}, "torch_compile hides the forward passes"),
    ],
)
def test_what_a_screen_can_not_go_on_with_is_refused_before_training(
    changes: dict[str, Any], said: str, rows: Path, tiny_model: Callable[..., Path], tmp_path: Path
):
    model = tiny_model("llama")
    recording = record_training(tmp_path / "recorded")
    with pytest.raises(ModelError) as found:
        trained(model, training_dataset(rows, model), tmp_path, callbacks=[recording], **changes)
    assert said in str(found.value)
    assert not (tmp_path / "recorded").exists()


def test_a_model_without_an_adapter_is_refused_before_training(
    rows: Path, tiny_model: Callable[..., Path], tmp_path: Path
):
    import trl

    trainer = trl.SFTTrainer(
        model=str(tiny_model("llama")),
        args=trl.SFTConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, report_to="none"),
        train_dataset=training_dataset(rows, tiny_model("llama")),
        callbacks=[record_training(tmp_path / "recorded")],
    )
    with pytest.raises(ModelError, match="has no adapter"):
        trainer.train()


def test_a_model_that_was_changed_after_it_was_loaded_is_refused(
    taken: ScreenConfig, tmp_path: Path
):
    recorded = tmp_path / "recorded"
    shutil.copytree(str(taken.learned_from), recorded)
    record = json.loads((recorded / "recorded.json").read_text())
    name = next(iter(record["weights"]))
    record["weights"][name][0] += 0.1  # as the model in memory had it
    (recorded / "recorded.json").write_text(json.dumps(record))
    place = {"learned_from": str(recorded), "output_dir": str(tmp_path / "run")}
    config = resolve(ScreenConfig, taken.model_dump(), place)
    refused(config, ModelError, "they were changed after they were loaded")


def test_where_a_recording_goes_is_checked_at_once(recorded: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="holds files that are no recording"):
        record_training(tmp_path)
    with pytest.raises(RunExistsError, match="overwrite=True"):
        record_training(recorded)
    record_training(recorded, overwrite=True)
    assert Recording(recorded).is_there  # until training begins
    with pytest.raises(ConfigError, match="early_epochs is 0"):
        record_training(tmp_path / "new", early_epochs=0)
    with pytest.raises(ConfigError, match="loss_on is 'answers'"):
        training_dataset(tmp_path / "rows.jsonl", "model", loss_on="answers")  # pyright: ignore


def test_a_training_that_goes_on_from_a_checkpoint_is_refused(
    rows: Path, tiny_model: Callable[..., Path], tmp_path: Path
):
    model = tiny_model("llama")
    arguments = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3}
    trainer = trained(model, training_dataset(rows, model), tmp_path, arguments=arguments)
    trainer.add_callback(record_training(tmp_path / "recorded"))
    with pytest.raises(DataError, match="goes on from step 3"):
        trainer.train(resume_from_checkpoint=True)
    assert not (tmp_path / "recorded").exists()


def test_rows_without_padding_between_them_are_told_apart(taken: ScreenConfig, tmp_path: Path):
    arguments = {"padding_free": True, "num_train_epochs": 1}
    trained(
        Path(taken.model),
        training_dataset(taken.noisy_data, taken.model),
        tmp_path,
        arguments=arguments,
        callbacks=[record_training(tmp_path / "recorded")],
    )
    recording = Recording(tmp_path / "recorded")
    check_first_losses(recording, scores_with_digests(taken), "assistant")
    expected = Recording(Path(taken.learned_from or "")).rows()
    assert set(recording.rows()["tokens"]) == set(expected["tokens"])
