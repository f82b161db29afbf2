"""A screen repeated with other settings: what goes on, what is refused, what is computed again.

Whenever the process is killed on the way, the folder is at the old decision or completes the new.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from conftest import rows_of, sign_again, write_rows
from forgetfilter import cli
from forgetfilter.config import ScreenConfig, load_yaml, resolve
from forgetfilter.errors import DataError, ModelError, RunExistsError
from forgetfilter.files import sha256_file
from forgetfilter.progress import Progress
from forgetfilter.runs.changes import changes_of_screen, unread_groups
from forgetfilter.runs.folder import RunFolder
from forgetfilter.screening import screen as screen_module
from forgetfilter.screening.deciding.decide import filter_run, run_folder
from forgetfilter.screening.deciding.stage_gc import free_stages
from forgetfilter.screening.finetune import finetune
from forgetfilter.screening.screen import screen
from warm import run_warm

SILENT = Progress(is_silent=True)


@pytest.fixture(scope="module")
def finished(
    quick_config: Callable[..., ScreenConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run by the default signal; a test that changes it works on a copy."""
    run = tmp_path_factory.mktemp("finished") / "run"
    learn = {"max_steps": 30, "learning_rate": 2e-2}
    screen(quick_config(run, learn=learn, threshold="fraction:0.25"), SILENT)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def config_of(run: Path, *changes: dict[str, Any]) -> ScreenConfig:
    """The config that a run was made with, changed, for the folder where it lies now."""
    return resolve(ScreenConfig, load_yaml(run / "config.yaml"), {"output_dir": str(run)}, *changes)


def command_of(run: Path, tmp_path: Path, *changes: str) -> list[str]:
    """The command line that repeats a run with changes."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(config_of(run).model_dump()))
    return ["screen", "--quiet", "--config", str(settings), *changes]


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def stages_of(run: Path) -> dict[str, int]:
    """When each stage of a run was made."""
    return {p.name: (p / "stage.json").stat().st_mtime_ns for p in (run / "stages").glob("[!.]*")}


class TestThreshold:
    def test_another_threshold_decides_again_from_what_is_stored(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        shutil.rmtree(run / "stages")  # nothing could be measured without training again
        before = files_of(run)
        assert cli.main(command_of(run, tmp_path, "--threshold", "fraction:0.5")) == 0
        assert "no model was loaded" in capsys.readouterr().out
        summary = json.loads((run / "summary.json").read_text())
        assert summary["threshold"]["rule"] == "fraction:0.5"
        assert summary["decided_by"] == "screen"
        assert load_yaml(run / "config.yaml")["threshold"] == "fraction:0.5"
        assert not (run / "stages").exists()
        changed = {name for name, state in files_of(run).items() if state[1] != before[name][1]}
        assert changed == {
            *("kept.jsonl", "removed.jsonl", "scores.parquet"),
            *("summary.json", "report.html", "report.json", "dataset_card.md", "config.yaml"),
        }
        after = files_of(run)
        assert cli.main(command_of(run, tmp_path)) == 0
        assert "nothing changed" in capsys.readouterr().out
        assert files_of(run) == after

    def test_the_screens_rule_replaces_that_of_a_filter_only_if_it_is_another(self, run: Path):
        filter_run(run, "phi:1e9", force=True)
        assert screen(config_of(run), SILENT).summary["threshold"]["rule"] == "phi:1e9"
        result = screen(config_of(run, {"threshold": "phi:-1e9"}), SILENT)
        assert result.was_decided_again
        assert (result.summary["threshold"]["rule"], result.summary["decided_by"]) == (
            "phi:-1e9",
            "screen",
        )

    def test_overwrite_comes_back_from_a_filter_to_the_screens_own_decision(
        self, finished: Path, run: Path
    ):
        filter_run(run, "phi:1e9", force=True)
        stages = stages_of(run)
        result = screen(config_of(run), SILENT, overwrite=True)
        assert result.summary["decided_by"] == "screen"
        assert (run / "removed.jsonl").read_bytes() == (finished / "removed.jsonl").read_bytes()
        assert stages_of(run) == stages


class TestFingerprint:
    def test_a_decision_is_the_same_only_with_the_same_rule_scores_and_rows(self, run: Path):
        def decision() -> str:
            return json.loads((run / "summary.json").read_text())["decision"]

        first = decision()
        filter_run(run, "phi:1e9", force=True)
        second = decision()
        filter_run(run, "phi:2e9", force=True)  # the same rows are kept, by another value
        third = decision()
        filter_run(run, "fraction:0.25", force=True)
        assert decision() == first
        assert len({first, second, third}) == 3
        scores = pd.read_parquet(run / "scores.parquet")
        scores.loc[0, "before"] += 1e-9
        scores.to_parquet(run / "scores.parquet", index=False)
        sign_again(run)
        filter_run(run, "fraction:0.25", force=True)
        assert decision() != first

    def test_coverage_and_evidence_name_the_decision_that_they_were_made_for(
        self, run: Path, tmp_path: Path
    ):
        def summary() -> dict[str, Any]:
            return json.loads((run / "summary.json").read_text())

        first = summary()
        assert first["made_from"] == dict.fromkeys(("coverage", "evidence"), first["decision"])
        filter_run(run, "fraction:0.5", force=True)
        assert summary()["decision"] != first["decision"]
        # Coverage follows from what is stored, so it is of the new decision at once.
        assert summary()["made_from"] == {
            "coverage": summary()["decision"],
            "evidence": first["decision"],
        }
        stages = stages_of(run)
        command = command_of(run, tmp_path, "--threshold", "fraction:0.5", "--overwrite")
        assert cli.main(command) == 0  # what the report says to type
        again = summary()
        assert again["made_from"] == dict.fromkeys(("coverage", "evidence"), again["decision"])
        assert again["threshold"]["rule"] == "fraction:0.5"
        assert stages_of(run) == stages


class TestSignal:
    def test_another_signal_goes_on_from_the_same_learn_phase_and_back_costs_nothing(
        self, finished: Path, run: Path
    ):
        before = stages_of(run)
        other = config_of(run, {"signal": "completion_loss", "threshold": "fraction:0.5"})
        result = screen(other, SILENT)
        assert not result.was_finished
        assert result.summary["signal"] == "completion_loss"
        assert load_yaml(run / "config.yaml")["signal"] == "completion_loss"
        both = stages_of(run)
        assert before.items() <= both.items()
        assert any(name.startswith("forget-") for name in both.keys() - before.keys())
        assert len([name for name in both if name.startswith("learn-")]) == 1
        expected = set(result.summary["stages"])
        assert expected <= both.keys()

        screen(config_of(finished, {"output_dir": str(run)}), SILENT)
        assert stages_of(run) == both
        for name in ("kept.jsonl", "removed.jsonl", "scores.parquet", "readings.parquet"):
            assert (run / name).read_bytes() == (finished / name).read_bytes()

    def test_settings_that_the_signal_reads_go_on_from_the_learn_phase(self, run: Path):
        before = stages_of(run)
        screen(config_of(run, {"restore": {"steps": 3}}), SILENT)
        new = stages_of(run).keys() - before.keys()
        assert {name.rpartition("-")[0] for name in new} >= {"restore", "measure_loss_restored"}
        assert not [name for name in new if name.startswith(("learn", "measure_loss_base"))]

    def test_settings_that_the_signal_does_not_read_cost_nothing(self, run: Path):
        before = files_of(run)
        unread = {"forget": {"max_steps": 7}, "generation": {"max_new_tokens": 9}}
        result = screen(config_of(run, unread), SILENT)
        assert result.was_finished
        after = files_of(run)
        assert {name for name in after if after[name] != before.get(name)} == {"config.yaml"}
        assert run_folder(run).config()["forget"]["max_steps"] == 7

    def test_moved_inputs_of_the_same_content_change_nothing(self, run: Path, tmp_path: Path):
        moved = tmp_path / "moved.jsonl"
        shutil.copy(config_of(run).noisy_data, moved)
        assert screen(config_of(run, {"noisy_data": str(moved)}), SILENT).was_finished
        assert run_folder(run).config()["noisy_data"] == str(moved)

    @pytest.mark.parametrize(
        ("signal", "unread"),
        [
            ("restoration", {"forget", "generation"}),
            ("completion_loss", {"restore", "generation"}),
            ("rouge1", {"restore"}),
        ],
    )
    def test_what_a_signal_reads_follows_from_its_probes(self, signal: str, unread: set[str]):
        assert unread_groups(signal) == unread

    def test_each_difference_is_named_by_what_depends_on_it(self):
        old = {"signal": "restoration", "seed": 1, "learn": {"batch_size": 4}, "threshold": "auto"}
        new = {"signal": "restoration", "seed": 2, "learn": {"batch_size": 8}, "threshold": "phi:1"}
        found = changes_of_screen(old, new, {"safe_data": "a"}, {"safe_data": "b"})
        assert found.learning == (
            "seed: 1 -> 2",
            "learn.batch_size: 4 -> 8",
            "input safe_data: a -> b",
        )
        assert found.threshold == ("threshold: auto -> phi:1",)
        assert found.must_be_asked_for
        assert not found.only_decides


class TestInputs:
    def test_overwrite_keeps_every_stage_and_uses_what_still_fits(self, run: Path, tmp_path: Path):
        before = stages_of(run)
        safe = write_rows(tmp_path / "safe.jsonl", rows_of(6, start=300))
        config = config_of(run, {"safe_data": str(safe), "reference_data": str(safe)})
        outputs = files_of(run)
        with pytest.raises(RunExistsError, match=r"(?s)input safe_data.*--overwrite") as caught:
            screen(config, SILENT)
        assert "finished stages stay" in str(caught.value)
        assert files_of(run) == outputs
        screen(config, SILENT, overwrite=True)
        after = stages_of(run)
        assert before.items() <= after.items()
        assert len([name for name in after if name.startswith("learn-")]) == 1
        assert (
            run_folder(run).provenance()["inputs"]
            != json.loads(outputs["provenance.json"][1])["inputs"]
        )

    def test_other_rows_with_overwrite_replace_all_outputs_together(
        self, run: Path, make_rows: Callable[..., Path]
    ):
        rows = make_rows(10, start=400)
        before = stages_of(run)
        result = screen(config_of(run, {"noisy_data": str(rows)}), SILENT, overwrite=True)
        assert result.summary["rows"] == 10
        assert (run / "input.jsonl").read_bytes() == rows.read_bytes()
        assert len(result.kept) + len(result.removed) == 10
        assert before.items() <= stages_of(run).items()

    def test_an_overwrite_that_fails_leaves_the_old_decision(self, run: Path, tmp_path: Path):
        empty = write_rows(tmp_path / "bad.jsonl", [{"text": "no answer"}])
        before = files_of(run)
        with pytest.raises(DataError, match="no row that can be scored"):
            screen(config_of(run, {"noisy_data": str(empty)}), SILENT, overwrite=True)
        after = {name: state for name, state in files_of(run).items() if ".part" not in name}
        assert after == before
        assert screen(config_of(run), SILENT).was_finished

    def test_other_reference_rows_are_looked_at_without_being_asked_for(
        self, run: Path, tmp_path: Path
    ):
        reference = write_rows(tmp_path / "reference.jsonl", rows_of(3, start=500))
        result = screen(config_of(run, {"reference_data": str(reference)}), SILENT)
        assert not result.was_finished
        known = run_folder(run).provenance()["inputs"]["reference_data"]
        assert known == sha256_file(reference)


class TestFailedTry:
    @pytest.mark.slow
    def test_a_first_try_that_failed_never_blocks_the_corrected_command(
        self,
        quick_config: Callable[..., ScreenConfig],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        run = tmp_path / "run"
        good = quick_config(run, signal="restoration")
        bad = write_rows(tmp_path / "bad.jsonl", [{"text": "no such column"}])
        tries: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"noisy_data": str(bad)}, DataError),
            ({"safe_data": str(bad)}, DataError),
            ({"safe_data": str(tmp_path / "none.jsonl")}, DataError),
            ({"model": str(tmp_path / "typo")}, ModelError),
        ]
        for changes, error in tries:
            with pytest.raises(error):
                screen(good.model_copy(update=changes), SILENT)
        with monkeypatch.context() as patch:
            # Interrupted once the learn phase is done.
            patch.setattr(screen_module, "write_evidence", lambda *_: _interrupt())
            with pytest.raises(KeyboardInterrupt):
                screen(good.model_copy(update={"seed": 5}), SILENT)
        stages = stages_of(run)
        assert any(name.startswith("learn-") for name in stages)
        assert not screen(good, SILENT).was_finished
        assert run_folder(run).config()["seed"] == 0
        assert run_folder(run).provenance()["seed"] == 0
        assert stages.items() <= stages_of(run).items()

    def test_a_wrong_path_is_found_before_anything_is_written(
        self, quick_config: Callable[..., ScreenConfig], tmp_path: Path
    ):
        run = tmp_path / "run"
        for name, error in (
            ("safe_data", DataError),
            ("reference_data", DataError),
            ("model", ModelError),
        ):
            with pytest.raises(error):
                screen(quick_config(run).model_copy(update={name: str(tmp_path / "none")}), SILENT)
            assert not run.exists()

    def test_the_folder_of_a_study_is_left_alone(
        self, quick_config: Callable[..., ScreenConfig], tmp_path: Path
    ):
        study = RunFolder(tmp_path / "study")
        with study.lock():
            study.open({"strategies": ["none"], "seed": 1}, {"model": "m"})
        before = files_of(study.path)
        for overwrite in (False, True):
            with pytest.raises(RunExistsError, match="run of another command"):
                screen(quick_config(study.path), SILENT, overwrite=overwrite)
        assert files_of(study.path) == before

    def test_a_damaged_decision_is_not_replaced_unasked(self, run: Path):
        (run / "report.html").unlink()
        with pytest.raises(RunExistsError, match="seed: 0 -> 3"):
            screen(config_of(run, {"seed": 3}), SILENT)
        assert not screen(config_of(run), SILENT).was_finished
        assert (run / "report.html").exists()


def _interrupt() -> None:
    raise KeyboardInterrupt


class TestFreeing:
    def test_only_what_the_decision_does_not_use_is_freed(
        self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        first = stages_of(run)
        screen(config_of(run, {"signal": "completion_loss"}), SILENT)
        finetune(run, tmp_path / "adapter", SILENT)
        everything = stages_of(run)
        (run / "stages" / "learn-0123456789abcdef.part").mkdir()
        (run / "stages" / "learn-0123456789abcdef.part" / "half").write_bytes(b"x" * 1000)

        assert cli.main(["gc", str(run), "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert "Would free" in said
        assert "learn-0123456789abcdef.part" in said
        assert everything.items() <= {**stages_of_all(run)}.items()

        freed = free_stages(run)
        assert freed.size > 1000
        left = stages_of(run)
        assert left.items() <= everything.items()
        gone = everything.keys() - left.keys()
        assert {n for n in first if n.startswith(("coverage-", *_RESTORED))} <= gone
        assert all(n.startswith(("coverage-", "restore-", "measure_", "learn_half_")) for n in gone)
        assert {n.partition("-")[0] for n in left} >= {"learn", "forget", "retrain", "coverage"}
        assert any(name.startswith("retrain-") for name in left)
        assert free_stages(run).names == ()

        # Nothing that is in use was lost: the same commands compute nothing again.
        assert screen(config_of(run), SILENT).was_finished
        shutil.rmtree(tmp_path / "adapter")
        finetune(run, tmp_path / "adapter", SILENT)
        assert stages_of(run) == left

    def test_what_an_earlier_decision_was_trained_on_is_freed(self, run: Path, tmp_path: Path):
        free_stages(run)
        finetune(run, tmp_path / "adapter", SILENT)
        filter_run(run, "phi:1e9", force=True)
        (name,) = free_stages(run).names
        assert name.startswith("retrain-")

    def test_a_run_in_use_or_unfinished_is_left_alone(self, run: Path):
        before = stages_of(run)
        with run_folder(run).lock(), pytest.raises(RunExistsError, match="Another process"):
            free_stages(run)
        (run / "summary.json").unlink()
        with pytest.raises(DataError, match="not finished"):
            free_stages(run)
        assert stages_of(run) == before

    def test_a_run_that_does_not_say_what_it_uses_is_made_to_by_overwrite(self, run: Path):
        summary = json.loads((run / "summary.json").read_text())
        free_stages(run)
        before = stages_of(run)
        stages = summary.pop("stages")
        (run / "summary.json").write_text(json.dumps(summary))
        with pytest.raises(DataError, match="--overwrite, which trains nothing again"):
            free_stages(run)
        screen(config_of(run), SILENT, overwrite=True)
        assert json.loads((run / "summary.json").read_text())["stages"] == stages
        assert free_stages(run).names == ()
        assert stages_of(run) == before


_RESTORED = (
    *("measure_loss_restored-", "measure_loss_early-", "measure_loss_early_restored-"),
    *("measure_divergence_restored-",),
)


def stages_of_all(run: Path) -> dict[str, int]:
    """Like `stages_of`, unfinished ones left aside."""
    names = [p.name for p in (run / "stages").glob("[!.]*") if not p.name.endswith(".part")]
    return {n: (run / "stages" / n / "stage.json").stat().st_mtime_ns for n in names}


# Kills a command by SIGKILL just before each rename and each removal in the run folder in turn. All
# stages are there, so that the command comes to its decision soon.
KILL_A_SWITCH = """
    import json, os, shutil, signal, sys
    from pathlib import Path
    import peft, torch, transformers, trl
    from forgetfilter.config import ScreenConfig, load_yaml, resolve
    from forgetfilter.screening.deciding.decide import finished_run
    from forgetfilter.progress import Progress
    from forgetfilter.screening.screen import screen

    root, changes, every = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
    old, new, run = root / "old", root / "new", root / "run"
    compared = ("kept.jsonl", "removed.jsonl", "rejected.jsonl", "scores.parquet",
                "readings.parquet", "evidence.parquet", "config.yaml")

    def repeat():
        config = resolve(ScreenConfig, load_yaml(old / "config.yaml"), changes,
                         {"output_dir": str(run)})
        screen(config, Progress(is_silent=True))

    def outcome(folder):
        files = {name: (folder / name).read_bytes() for name in compared}
        for name in ("old", "new", "run"):
            place = str(root / name).encode()
            files["config.yaml"] = files["config.yaml"].replace(place, b"RUN")
        return files, json.loads((folder / "summary.json").read_text())["decision"]

    wanted = {"old": outcome(old), "new": outcome(new)}
    assert wanted["old"] != wanted["new"]
    seen = []
    for fatal in range(1, 200, every):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(old, run)
        child = os.fork()
        if child == 0:
            count = 0
            def hook(event, arguments):
                global count
                if event in ("os.rename", "os.remove", "os.rmdir") and (
                    str(run) in str(arguments[1 if event == "os.rename" else 0])
                ):
                    count += 1
                    if count == fatal:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(hook)
            try:
                repeat()
                os._exit(0)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        with finished_run(run):  # what every next command begins with
            pass
        found = outcome(run)
        (state,) = [name for name, files in wanted.items() if files == found]
        seen.append(state)
        if status == 0:
            break
        assert not list(run.glob(".deciding*")), fatal
        assert not list(run.glob("*.part")), fatal
    print(json.dumps(seen))
"""


OTHER_CUT = {"threshold": "fraction:0.5"}


@pytest.mark.parametrize(
    ("changes", "every"),
    [
        pytest.param(OTHER_CUT, 3, id="threshold"),
        pytest.param(OTHER_CUT, 1, id="threshold, each instant", marks=pytest.mark.slow),
        pytest.param(
            {"signal": "completion_loss", **OTHER_CUT}, 1, id="signal", marks=pytest.mark.slow
        ),
    ],
)
def test_a_switch_killed_anywhere_leaves_the_old_decision_or_completes_the_new(
    run: Path, tmp_path: Path, changes: dict[str, str], every: int
):
    shutil.copytree(run, tmp_path / "new")
    screen(config_of(tmp_path / "new", changes), SILENT)
    shutil.rmtree(run / "stages")
    shutil.copytree(tmp_path / "new" / "stages", run / "stages")
    run.rename(tmp_path / "old")
    done = run_warm(KILL_A_SWITCH, tmp_path, json.dumps(changes), every)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen == sorted(seen, reverse=True)  # old, …, old, new, …, new
    assert seen.count("old") >= 1
    assert seen.count("new") >= 8 // every


def test_scores_of_a_switch_are_those_of_a_new_run(
    run: Path, tmp_path: Path, quick_config: Callable[..., ScreenConfig]
):
    switched = screen(config_of(run, {"signal": "completion_loss"}), SILENT)
    fresh = screen(
        config_of(run).model_copy(update={"output_dir": str(tmp_path / "fresh")}), SILENT
    )
    pd.testing.assert_frame_equal(switched.scores, fresh.scores)
