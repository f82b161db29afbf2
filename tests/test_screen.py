"""A screen from end to end: its files, its resumption after a kill, and what follows from it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import quick_settings, rows_of, sign_again, write_rows
from forgetfilter import ForgetFilter, cli
from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.data import read_rows
from forgetfilter.errors import DataError, ModelError, RunExistsError
from forgetfilter.progress import Progress
from forgetfilter.screening.deciding.decide import filter_run, run_folder
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen
from warm import run_warm

SILENT = Progress(is_silent=True)
CONTRACT = frozenset(
    [
        "kept.jsonl",
        "removed.jsonl",
        "rejected.jsonl",
        "scores.parquet",
        "readings.parquet",
        "summary.json",
        "config.yaml",
        "report.html",
    ]
)


def hard_lines() -> list[bytes]:
    """A file's lines with everything in them that a stranger's file may have."""
    good = [json.dumps(row).encode() for row in rows_of(18)]
    odd = [
        json.dumps({"prompt": "Who?", "completion": "The owl .", "score": 1, "tags": ["a"]}),
        '{"id":"same",   "prompt":"Where?","completion":"On the box ."}',
        '{"id":"same","prompt":"Where now?","completion":"In the box .","extra":{"a":null}}',
        '{"id":"mine","prompt":"Caf\\u00e9 \u00e9?","completion":"Oui .", "id2": 3}',
    ]
    bad = [
        b'{"prompt": "broken", "completion": ',
        b'{"prompt": "no answer", "completion": "  "}',
        b'{"prompt": "not utf-8 \xff", "completion": "x"}',
        json.dumps({"prompt": "long", "completion": "word " * 20_000}).encode(),
    ]
    lines = [*good[:6], b"", *[row.encode() for row in odd], b"   ", *bad, *good[6:12]]
    return [*lines, good[12] + b"\r", b"\t", *good[13:]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "noisy.jsonl").write_bytes(b"\n".join(hard_lines()))  # no line feed at the end
    write_rows(folder / "safe.jsonl", rows_of(8, start=100))
    write_rows(folder / "reference.jsonl", rows_of(4, start=200))
    return folder


def settings_of(folder: Path, model: Path, output: Path, **changes: Any) -> dict[str, Any]:
    # Enough steps that some rows are learned, so that some can be removed.
    learn = {"max_steps": 40, "batch_size": 8, "learning_rate": 2e-2}
    forget = {"max_steps": 2, "batch_size": 8, "learning_rate": 2e-2}
    return {
        **quick_settings(),
        "lora": {"r": 8, "alpha": 16},
        "noisy_data": str(folder / "noisy.jsonl"),
        "safe_data": str(folder / "safe.jsonl"),
        "reference_data": str(folder / "reference.jsonl"),
        "model": str(model),
        "output_dir": str(output),
        "threshold": "fraction:0.25",
        "learn": learn,
        "forget": forget,
        **changes,
    }


@pytest.fixture(scope="module")
def finished(
    tiny_model: Callable[..., Path], inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run; a test that changes it works on a copy."""
    run = tmp_path_factory.mktemp("finished") / "run"
    screen(resolve(ScreenConfig, settings_of(inputs, tiny_model("llama"), run)), SILENT)
    return run


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def config_of(run: Path, **changes: Any) -> ScreenConfig:
    """The config that a run was made with, as if repeated for the folder where it lies now."""
    return resolve(ScreenConfig, load_yaml(run / "config.yaml"), {"output_dir": str(run)}, changes)


def state_of(run: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(p.relative_to(run)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def raw_of(record: dict[str, Any]) -> bytes:
    """The line that a rejected row was read from."""
    if "raw" in record:
        return record["raw"].encode()
    return base64.b64decode(record["raw_base64"])


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


class TestFiles:
    def test_all_files_of_the_contract_are_there(self, finished: Path):
        assert {path.name for path in finished.iterdir()} >= CONTRACT

    def test_scores_have_the_columns_and_types_of_the_contract(self, finished: Path):
        schema = pq.read_schema(finished / "scores.parquet")
        assert schema.names == (
            [
                "row",
                "example_id",
                "base",
                "before",
                "after",
                "forgetting_score",
                "learned",
                "decision",
                "reason",
                "decided_by",
                "rule_decision",
                "source",
                "line",
                "own_id",
                "harm",
                "unscored",
            ]
        )
        kinds = {name: schema.field(name).type for name in schema.names}
        assert kinds["row"] == pa.int64()
        for name in ("base", "before", "after", "forgetting_score"):
            assert kinds[name] == pa.float64()
        assert kinds["learned"] == pa.bool_()
        for name in ("example_id", "decision", "reason", "decided_by", "rule_decision"):
            assert pa.types.is_string(kinds[name]) or pa.types.is_large_string(kinds[name])

    def test_scores_hold_every_row_and_are_null_for_rejected_ones(self, finished: Path):
        table = pq.read_table(finished / "scores.parquet")
        frame = table.to_pandas()
        assert frame["row"].tolist() == list(range(26))
        assert frame["example_id"].is_unique
        assert set(frame["decision"]) == {"kept", "removed", "rejected"}
        is_rejected = (frame["decision"] == "rejected").to_numpy()
        for name in ("base", "before", "after", "forgetting_score", "learned"):
            # Null, not merely not-a-number.
            assert table.column(name).is_null().to_numpy().tolist() == is_rejected.tolist()
        removed = frame[frame["decision"] == "removed"]
        assert removed["learned"].all()
        assert set(removed["reason"]) == {"above_threshold"}
        kept = frame[frame["decision"] == "kept"]
        assert set(kept["reason"]) <= {"below_threshold", "not_learned"}
        assert (kept["reason"] == "not_learned").tolist() == (
            ~kept["learned"].astype(bool)
        ).tolist()

    def test_the_threshold_in_the_summary_is_the_one_that_was_applied(self, finished: Path):
        summary = json.loads((finished / "summary.json").read_text())
        frame = pd.read_parquet(finished / "scores.parquet")
        is_above = frame["forgetting_score"] > summary["threshold"]["value"]
        assert ((frame["decision"] == "removed") == (is_above & (frame["learned"] == True))).all()  # noqa: E712

    def test_the_summary_has_the_keys_of_the_contract_and_counts_every_row(self, finished: Path):
        summary = json.loads((finished / "summary.json").read_text())
        wanted = [
            "rows",
            "kept",
            "removed",
            "rejected",
            "signal",
            "threshold",
            "learned_share",
            "seed",
            "seconds",
        ]
        assert set(wanted) <= summary.keys()
        assert summary["rows"] == 26
        assert summary["kept"] + summary["removed"] + summary["rejected"] == 26
        assert summary["rejected"] == 4
        assert summary["removed"] > 0
        assert summary["threshold"]["rule"] == "fraction:0.25"
        assert 0 < summary["learned_share"] <= 1
        assert {"learn", "restore"} <= summary["seconds"].keys()
        assert all(seconds >= 0 for seconds in summary["seconds"].values())

    def test_every_line_goes_to_exactly_one_file_byte_for_byte_in_order(self, finished: Path):
        lines = [line for line in hard_lines() if line.strip()]
        frame = pd.read_parquet(finished / "scores.parquet")
        for decision in ("kept", "removed"):
            rows = frame.loc[frame["decision"] == decision, "row"]
            assert lines_of(finished / f"{decision}.jsonl") == [lines[row] for row in rows]
        records = [json.loads(line) for line in lines_of(finished / "rejected.jsonl")]
        raw = [raw_of(record) for record in records]
        rows = frame.loc[frame["decision"] == "rejected", "row"].tolist()
        assert [record["row"] for record in records] == rows
        assert raw == [lines[row] for row in rows]

    def test_rejected_rows_say_where_they_stood_and_why(self, finished: Path):
        records = [json.loads(line) for line in lines_of(finished / "rejected.jsonl")]
        reasons = [record["reason"] for record in records]
        for reason, piece in zip(
            reasons, ["malformed JSON", "empty completion", "not UTF-8", "longer than"], strict=True
        ):
            assert piece in reason
        numbered = hard_lines()
        for record in records:
            line = numbered[record["line"] - 1]
            assert raw_of(record) == line
            assert set(record) in (
                {"row", "line", "reason", "raw"},
                {
                    "row",
                    "line",
                    "reason",
                    "raw_base64",
                },
            )

    def test_ids_are_the_rows_own_where_unique(self, finished: Path):
        ids = pd.read_parquet(finished / "scores.parquet")["example_id"].tolist()
        assert "mine" in ids
        assert "same" not in ids

    def test_readings_hold_what_was_measured_of_every_scored_row(self, finished: Path):
        readings = pd.read_parquet(finished / "readings.parquet")
        scores = pd.read_parquet(finished / "scores.parquet")
        scored = scores[scores["decision"] != "rejected"]
        assert readings["row"].tolist() == scored["row"].tolist()
        assert readings["example_id"].tolist() == scored["example_id"].tolist()
        assert {"loss_sum_base", "loss_sum_learned", "completion_tokens"} <= set(readings.columns)
        assert readings.notna().all(axis=None)

    def test_the_stored_config_replays_the_run(self, finished: Path):
        config = resolve(ScreenConfig, load_yaml(finished / "config.yaml"))
        assert config.threshold == "fraction:0.25"
        assert config.learn.max_steps == 40
        result = screen(config, SILENT)
        assert result.was_finished

    def test_provenance_names_versions_seed_and_fingerprints(self, finished: Path):
        provenance = run_folder(finished).provenance()
        assert provenance["seed"] == 0
        assert provenance["versions"]["torch"]
        assert set(provenance["inputs"]) == {
            "noisy_data",
            "safe_data",
            "reference_data",
            "model",
        }
        assert provenance["model_fingerprint"] == provenance["inputs"]["model"]
        assert provenance["learning_rate"] == {"learn": 2e-2, "forget": 2e-2}

    def test_no_trace_of_unfinished_work_is_left(self, finished: Path):
        assert [p for p in finished.rglob("*") if p.name.endswith(".part")] == []
        assert not (finished / ".deciding").exists()


class TestAgain:
    def test_the_same_command_changes_nothing_and_says_so(
        self, run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        settings = tmp_path / "settings.yaml"
        settings.write_text(yaml.safe_dump(config_of(run_copy).model_dump()))
        command = ["screen", "--config", str(settings)]
        before = state_of(run_copy)
        assert cli.main(command) == 0
        assert state_of(run_copy) == before
        said = capsys.readouterr().out
        assert "finished before; nothing changed" in said
        assert "has decided it again" not in said

        assert cli.main(["filter", str(run_copy), "--threshold", "phi:1e9", "--force"]) == 0
        after_filter = state_of(run_copy)
        assert cli.main(command) == 0
        assert state_of(run_copy) == after_filter
        assert "has decided it again since, by phi:1e9" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"seed": 1}, "seed: 0 -> 1"),
            ({"learn": {"max_steps": 41}}, "learn.max_steps: 40 -> 41"),
            ({"lora": {"r": 4}}, "lora.r: 8 -> 4"),
        ],
    )
    def test_a_changed_setting_of_the_learn_phase_is_refused(
        self, run_copy: Path, change: Any, said: str
    ):
        before = state_of(run_copy)
        with pytest.raises(RunExistsError, match="--overwrite") as caught:
            screen(config_of(run_copy, **change), SILENT)
        assert said in str(caught.value)
        assert state_of(run_copy) == before

    @pytest.mark.parametrize("name", ["noisy_data", "safe_data", "model"])
    def test_a_changed_input_is_refused_though_its_path_is_the_same(
        self, finished: Path, run_copy: Path, tmp_path: Path, name: str
    ):
        source = Path(getattr(config_of(run_copy), name))
        copy = tmp_path / "changed"
        if source.is_dir():
            shutil.copytree(source, copy)
            (copy / "generation_config.json").write_text('{"eos_token_id": 7}')
        else:
            copy.write_bytes(source.read_bytes() + b'\n{"prompt": "a", "completion": "b"}\n')
        config = yaml.safe_load((run_copy / "config.yaml").read_text())
        text = (run_copy / "config.yaml").read_text()
        (run_copy / "config.yaml").write_text(text.replace(config[name], str(copy)))
        with pytest.raises(RunExistsError, match=rf"(?s)input {name}: \w+.* -> .*--overwrite"):
            screen(config_of(run_copy), SILENT)

    def test_output_and_memory_settings_may_differ(self, run_copy: Path):
        assert screen(config_of(run_copy, max_batch_tokens=100), SILENT).was_finished

    def test_overwrite_replaces_a_run_that_differs(self, run_copy: Path):
        config = config_of(run_copy, threshold="phi:1e9")
        result = screen(config, SILENT, overwrite=True)
        assert not result.was_finished
        assert result.summary["removed"] == 0
        assert lines_of(run_copy / "removed.jsonl") == []
        assert len(result.removed) == 0

    def test_scores_dont_move_with_the_memory_setting_given_the_adapters(
        self, finished: Path, run_copy: Path
    ):
        for stage in (run_copy / "stages").glob("measure_*"):
            shutil.rmtree(stage)
        (run_copy / "summary.json").unlink()
        result = screen(config_of(run_copy, max_batch_tokens=64), SILENT)
        before = pd.read_parquet(finished / "scores.parquet")
        pd.testing.assert_frame_equal(
            result.scores[["row", "base", "before", "after"]],
            before[["row", "base", "before", "after"]],
            atol=1e-4,
            rtol=0,
        )

    def test_a_second_process_is_kept_out(self, run_copy: Path):
        with run_folder(run_copy).lock():
            for use in (
                lambda: screen(config_of(run_copy), SILENT),
                lambda: filter_run(run_copy, "phi:0.1", force=True),
                lambda: finetune(run_copy, run_copy.parent / "adapter", SILENT),
            ):
                with pytest.raises(RunExistsError, match="Another process is using"):
                    use()


class TestFilter:
    def test_a_new_rule_moves_lines_between_the_files_and_nothing_else(
        self, finished: Path, run_copy: Path
    ):
        summary = filter_run(run_copy, "fraction:0.5", force=True)
        before, after = (pd.read_parquet(run / "scores.parquet") for run in (finished, run_copy))
        scores = ["row", "example_id", "base", "before", "after", "forgetting_score", "learned"]
        pd.testing.assert_frame_equal(before[scores], after[scores])
        assert summary["removed"] > json.loads((finished / "summary.json").read_text())["removed"]
        assert summary["threshold"]["rule"] == "fraction:0.5"
        assert summary["decided_by"] == "filter"
        counts = {name: len(lines_of(run_copy / f"{name}.jsonl")) for name in ("kept", "removed")}
        assert counts == {"kept": summary["kept"], "removed": summary["removed"]}

    def test_the_first_rule_again_gives_the_first_files_again(self, finished: Path, run_copy: Path):
        filter_run(run_copy, "phi:-1e9", force=True)
        filter_run(run_copy, "fraction:0.25", force=True)
        for name in ("kept.jsonl", "removed.jsonl", "rejected.jsonl", "scores.parquet"):
            assert (run_copy / name).read_bytes() == (finished / name).read_bytes()

    def test_deciding_again_loads_no_model_and_no_training_stack(self, run_copy: Path):
        script = """
            import sys
            for name in ("torch", "transformers", "trl", "peft", "accelerate", "datasets"):
                sys.modules[name] = None  # importing it fails
            from forgetfilter.cli import main
            status = main(["filter", sys.argv[1], "--threshold", "phi:1e9", "--force"])
            sys.exit(status or main(["report", sys.argv[1]]))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(run_copy)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "26 rows: 22 kept, 0 removed, 4 rejected" in done.stdout
        assert lines_of(run_copy / "removed.jsonl") == []

    @pytest.mark.parametrize(
        "written", ["kept.jsonl", "removed.jsonl", "scores.parquet", "summary.json", "report.html"]
    )
    def test_a_decision_that_was_cut_short_is_completed_by_the_next_command(
        self, run_copy: Path, written: str, monkeypatch: pytest.MonkeyPatch
    ):
        real = os.replace

        def dies(source: Any, target: Any) -> None:
            if Path(target).name == written:
                raise KeyboardInterrupt
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dies)
            with pytest.raises(KeyboardInterrupt):
                filter_run(run_copy, "fraction:0.5", force=True)
        result = screen(config_of(run_copy), SILENT)
        assert result.was_finished
        assert result.summary["threshold"]["rule"] == "fraction:0.5"
        frame = result.scores
        for name in ("kept", "removed"):
            count = int((frame["decision"] == name).sum())
            assert len(lines_of(run_copy / f"{name}.jsonl")) == count == result.summary[name]
        assert not (run_copy / ".deciding").exists()

    def test_a_folder_that_is_no_finished_run_is_named_with_what_to_do(
        self, run_copy: Path, tmp_path: Path
    ):
        with pytest.raises(DataError, match=r"not a run folder.*Check the path"):
            filter_run(tmp_path / "nowhere", "phi:0.1")
        assert not (tmp_path / "nowhere").exists()
        (run_copy / "summary.json").unlink()
        with pytest.raises(DataError, match=r"not finished.*resumes"):
            filter_run(run_copy, "phi:0.1", force=True)


class TestFinetune:
    def test_the_adapter_is_trained_from_base_on_the_kept_rows_and_loads(
        self, run_copy: Path, tmp_path: Path
    ):
        from peft import PeftModel

        from forgetfilter.model.loading.base_model import load_base_model
        from forgetfilter.model.loading.placement import choose_placement

        output = tmp_path / "adapter"
        result = finetune(run_copy, output, SILENT)
        summary = json.loads((run_copy / "summary.json").read_text())
        assert result.rows == summary["kept"]
        base = load_base_model(summary["model"], choose_placement("cpu", "float32"))
        assert PeftModel.from_pretrained(base, str(output)).active_adapters == ["default"]

        before = state_of(output)
        finetune(run_copy, output, SILENT)
        assert state_of(output) == before

        filter_run(
            run_copy, "phi:1e9", force=True
        )  # every row is kept now: the learn phase's own adapter
        with pytest.raises(RunExistsError, match=r"another adapter.*--overwrite"):
            finetune(run_copy, output, SILENT)
        finetune(run_copy, output, SILENT, overwrite=True)
        learned = next((run_copy / "stages").glob("learn-*")) / "adapter"
        name = "adapter_model.safetensors"
        assert (output / name).read_bytes() == (learned / name).read_bytes()
        assert state_of(output) != before

    def test_a_model_that_has_changed_since_is_refused(self, run_copy: Path, tmp_path: Path):
        copy = tmp_path / "model"
        shutil.copytree(config_of(run_copy).model, copy)
        (copy / "generation_config.json").write_text('{"eos_token_id": 7}')
        text = (run_copy / "config.yaml").read_text()
        (run_copy / "config.yaml").write_text(
            text.replace(f"model: {config_of(run_copy).model}", f"model: {copy}")
        )
        with pytest.raises(DataError, match="has changed since"):
            finetune(run_copy, tmp_path / "adapter", SILENT)

    def test_nothing_kept_is_an_error_that_names_the_way_out(self, run_copy: Path, tmp_path: Path):
        frame = pd.read_parquet(run_copy / "scores.parquet")
        frame.loc[frame["decision"] == "kept", "decision"] = "removed"
        frame.to_parquet(run_copy / "scores.parquet", index=False)
        sign_again(run_copy)
        with pytest.raises(DataError, match="higher threshold"):
            finetune(run_copy, tmp_path / "adapter", SILENT)


class TestPython:
    def test_results_are_datasets_and_a_frame(
        self, tiny_model: Callable[..., Path], inputs: Path, finished: Path, run_copy: Path
    ):
        settings = settings_of(inputs, tiny_model("llama"), run_copy)
        for name in ("noisy_data", "output_dir", "model", "safe_data"):
            settings.pop(name)
        door = ForgetFilter(tiny_model("llama"), inputs / "safe.jsonl", is_silent=True, **settings)
        result = door.screen(inputs / "noisy.jsonl", run_copy)
        assert result.was_finished
        assert len(result.kept) == result.summary["kept"]
        assert len(result.removed) == result.summary["removed"]
        assert len(result.scores) == 26
        raws = {row.raw for row in read_rows(run_copy / "kept.jsonl").rows}
        assert len(raws) == len(result.kept)

    def test_unusable_inputs_are_named(
        self, tiny_model: Callable[..., Path], inputs: Path, tmp_path: Path
    ):
        unanswered = write_rows(tmp_path / "bad.jsonl", [{"prompt": "a", "completion": " "}])
        model = tiny_model("llama")
        for changes, said in (
            ({"safe_data": str(unanswered)}, "safe_data has no usable row"),
            ({"noisy_data": str(unanswered)}, "noisy_data has no row that can be scored"),
            ({"noisy_data": str(tmp_path / "none")}, "Can't read noisy_data"),
        ):
            settings = settings_of(inputs, model, tmp_path / "run", **changes)
            with pytest.raises(DataError, match=said):
                screen(resolve(ScreenConfig, settings), SILENT, overwrite=True)

    @pytest.mark.parametrize(
        "damage", ["no folder", "no weights", "broken weights", "no tokenizer"]
    )
    def test_a_model_that_cant_be_loaded_is_named(
        self, tiny_model: Callable[..., Path], inputs: Path, tmp_path: Path, damage: str
    ):
        model = tmp_path / "model"
        if damage != "no folder":
            shutil.copytree(tiny_model("llama"), model)
        if damage == "no weights":
            (model / "model.safetensors").unlink()
        if damage == "broken weights":
            (model / "model.safetensors").write_bytes(b"\0" * 100)
        if damage == "no tokenizer":
            for path in model.glob("*token*"):
                path.unlink()
        settings = settings_of(inputs, model, tmp_path / "run")
        with pytest.raises(ModelError, match=r"Can't load the .*Check --model"):
            screen(resolve(ScreenConfig, settings), SILENT)


def test_a_file_that_changes_while_it_is_read_is_refused(
    tiny_model: Callable[..., Path], inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import forgetfilter.screening.inputs.setup as setup

    written = setup.write_chunks_atomic
    monkeypatch.setattr(
        setup, "write_chunks_atomic", lambda path, chunks: written(path, [*chunks, b"\n{}"])
    )
    settings = settings_of(inputs, tiny_model("llama"), tmp_path / "run")
    with pytest.raises(DataError, match="changed while it was read"):
        screen(resolve(ScreenConfig, settings), SILENT)
    assert not (tmp_path / "run" / "input.jsonl").exists()


# Kills a screen by SIGKILL just before a given file or folder gets its name, repeats it, and
# compares with an unbroken run. Children are forked from one process that has imported everything.
KILL_AND_REPEAT = """
    import json, os, signal, sys
    from pathlib import Path
    import peft, torch, transformers, trl
    from forgetfilter.config import ScreenConfig, resolve
    from forgetfilter.progress import Progress
    from forgetfilter.screening.screen import screen

    settings, root = json.loads(sys.argv[1]), Path(sys.argv[2])
    compared = ("kept.jsonl", "removed.jsonl", "rejected.jsonl", "scores.parquet",
                "readings.parquet", "evidence.parquet", "config.yaml")

    def run(folder, fatal=None):
        "Screen in a child; kill it before the rename to `fatal`, a name's start or a number."
        child = os.fork()
        if child == 0:
            count = 0
            def hook(event, arguments):
                nonlocal count
                if event == "os.rename" and str(folder) in str(arguments[1]):
                    count += 1
                    name = os.path.basename(str(arguments[1]))
                    if fatal == count or isinstance(fatal, str) and name.startswith(fatal):
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(hook)
            try:
                config = resolve(ScreenConfig, {**settings, "output_dir": str(folder)})
                screen(config, Progress(is_silent=True))
                os._exit(0)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def outcome(folder):
        files = {name: (folder / name).read_bytes() for name in compared}
        files["config.yaml"] = files["config.yaml"].replace(str(folder).encode(), b"")
        summary = json.loads((folder / "summary.json").read_text())
        summary.pop("seconds")
        return files, summary

    def check(fatal):
        folder = root / f"killed-{fatal}"
        status = run(folder, fatal)
        if status == 0:
            return False  # it was never reached
        assert status == -signal.SIGKILL, (fatal, status)
        assert run(folder) == 0, fatal
        assert outcome(folder) == whole, f"differs after a kill at {fatal}"
        assert not list(folder.rglob("*.part")), fatal
        assert not (folder / ".deciding").exists(), fatal
        return True

    assert run(root / "whole") == 0
    whole = outcome(root / "whole")
"""


def killing_settings(inputs: Path, model: Path, **changes: Any) -> str:
    quick = {"max_steps": 2, "batch_size": 8, "learning_rate": 2e-2}
    learn = {**quick, "max_steps": 8}
    settings = settings_of(inputs, model, Path("unused"), learn=learn, forget=quick, **changes)
    return json.dumps(settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal", "stages"),
    [
        ("restoration", ["learn-", "restore-", "measure_loss_learned-", "scores.parquet"]),
        ("completion_loss", ["forget-"]),
    ],
)
def test_a_run_killed_in_a_stage_and_repeated_gives_the_files_of_an_unbroken_one(
    tiny_model: Callable[..., Path], inputs: Path, tmp_path: Path, signal: str, stages: list[str]
):
    script = textwrap.dedent(KILL_AND_REPEAT) + textwrap.dedent("""
        for fatal in sys.argv[3:]:
            assert check(fatal), f"{fatal} was never written"
        print("sound")
    """)
    settings = killing_settings(inputs, tiny_model("llama"), signal=signal)
    done = run_warm(script, settings, tmp_path, *stages)
    assert done.stdout == "sound\n", done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_before_any_rename_at_all_can_be_repeated(
    tiny_model: Callable[..., Path], inputs: Path, tmp_path: Path
):
    script = textwrap.dedent(KILL_AND_REPEAT) + textwrap.dedent("""
        fatal = 1
        while check(fatal):
            fatal += 1
        assert fatal > 15, fatal
        print("sound")
    """)
    model = tiny_model("llama")
    done = run_warm(script, killing_settings(inputs, model), tmp_path)
    assert done.stdout == "sound\n", done.stderr


def test_no_worker_outlives_a_killed_screen(
    tiny_model: Callable[..., Path], inputs: Path, tmp_path: Path
):
    """Killed in the middle of training, no process is left that belonged to it."""
    script = textwrap.dedent("""
        import json, os, signal, sys
        from forgetfilter.model.training import course
        from forgetfilter.cli import main
        real = course.Course.callback
        def callback(self):
            inner = real(self)
            inner.on_step_begin = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
            return inner
        course.Course.callback = callback
        main(["screen", "--config", sys.argv[1]])
    """)
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(settings_of(inputs, tiny_model("llama"), tmp_path / "run")))
    ended = run_warm(script, settings)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with pytest.raises(ProcessLookupError):
        os.killpg(ended.pid, 0)  # the whole group is gone
    assert list((tmp_path / "run" / "stages").glob("learn-*.part"))
