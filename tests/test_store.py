"""Stages are whole or absent and runs can be resumed, whenever the process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import contents
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.runs.folder import RunFolder
from forgetfilter.runs.provenance import describe_environment, git_revision
from forgetfilter.runs.stages import StageStore

CONFIG: dict[str, Any] = {
    "model": "tiny",
    "learn": {"learning_rate": 2e-5, "epochs": 3},
    "targets": ("q", "v"),
    "seed": 7,
    "output_dir": Path("run"),
}
INPUTS = {"noisy_dataset": "a" * 64}


def build_one(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"12345")


def never(folder: Path) -> None:
    pytest.fail("a whole stage was built again")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


# --- stages ---------------------------------------------------------------------------------------


def test_a_stage_is_built_once_for_each_key(tmp_path: Path) -> None:
    reused: list[str] = []
    store = StageStore(tmp_path / "stages", on_reuse=reused.append)
    folder = store.stage("learn", {"seed": 1, "steps": [1, 2]}, build_one)
    assert (folder / "sub" / "weights").read_bytes() == b"12345"
    assert folder.name.startswith("learn-")
    assert store.stage("learn", {"steps": (1, 2), "seed": 1}, never) == folder
    assert reused == ["learn"]
    others = {
        store.stage("learn", {"seed": 2, "steps": [1, 2]}, build_one),
        store.stage("forget", {"seed": 1, "steps": [1, 2]}, build_one),
    }
    assert len(others | {folder}) == 3
    record = json.loads((folder / "stage.json").read_text())
    assert (record["name"], record["key"]) == ("learn", {"seed": 1, "steps": [1, 2]})
    assert record["files"] == {"sub/weights": 5}


def test_a_vague_key_is_refused(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for key in ({"path": tmp_path}, {"rate": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            store.stage("learn", key, never)
    with pytest.raises(ValueError):
        store.stage("../learn", {}, never)


def test_what_is_uncounted_costs_nothing_until_it_is_asked_for_again(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    with store.uncounted():
        store.stage("learn", {}, build_one)
    assert store.seconds() == {}
    store.stage("learn", {}, never)
    assert store.seconds().keys() == {"learn"}


def test_seconds_of_a_stage_that_another_asks_for_count_once(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def inner(folder: Path) -> None:
        store.stage("innermost", {}, lambda own: time.sleep(0.2))
        time.sleep(0.1)

    def outer(folder: Path) -> None:
        store.stage("inner", {}, inner)
        time.sleep(0.05)
        with store.uncounted():
            store.stage("own", {}, lambda own: time.sleep(0.1))

    start = time.perf_counter()
    store.stage("outer", {}, outer)
    whole, seconds = time.perf_counter() - start, store.seconds()
    assert seconds.keys() == {"outer", "inner", "innermost"}
    assert seconds["innermost"] >= 0.2
    assert seconds["inner"] >= 0.1
    assert seconds["outer"] >= 0.15  # with what is not counted, as its own
    assert sum(seconds.values()) <= whole + 0.002  # each is rounded


def test_seconds_are_those_of_the_building_also_when_reused(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        (folder / "done").touch()
        time.sleep(0.06)

    first = StageStore(tmp_path)
    first.stage("learn", {}, slow)
    first.stage("measure", {"state": "base"}, slow)
    first.stage("measure", {"state": "learned"}, slow)
    first.stage("measure", {"state": "learned"}, never)
    seconds = first.seconds()
    assert seconds["learn"] >= 0.05
    assert seconds["measure"] >= 0.1
    second = StageStore(tmp_path)
    assert second.seconds() == {}
    second.stage("learn", {}, never)
    assert second.seconds() == {"learn": seconds["learn"]}


def test_a_failed_build_is_passed_on_and_begun_anew(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.stage("learn", {}, broken)
    (left,) = tmp_path.glob("[!.]*")
    assert left.name.endswith(".part")
    assert store.seconds() == {}
    folder = store.stage("learn", {}, build_one)
    assert not (folder / "half").exists()
    assert list(tmp_path.glob("[!.]*")) == [folder]


@pytest.mark.parametrize("damage", ["weights", "record", "nonsense", "truncated"])
def test_a_damaged_stage_is_built_again(tmp_path: Path, damage: str) -> None:
    folder = StageStore(tmp_path).stage("learn", {}, build_one)
    before = contents(folder, without="stage.json")
    match damage:
        case "weights":
            (folder / "sub" / "weights").unlink()
        case "record":
            (folder / "stage.json").unlink()
        case "nonsense":
            (folder / "stage.json").write_text('["not a record"]')
        case _:
            (folder / "sub" / "weights").write_bytes(b"123")
    assert StageStore(tmp_path).stage("learn", {}, build_one) == folder
    assert contents(folder, without="stage.json") == before


def test_a_stage_killed_while_it_builds_is_absent_and_then_whole(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from forgetfilter.runs.stages import StageStore

        def build(folder):
            for number in range(100):
                (folder / f"{number:02}").write_bytes(b"x" * 1000)
                if number == 50 and sys.argv[2] == "hang":
                    print("building", flush=True)
                    time.sleep(60)

        print(StageStore(Path(sys.argv[1])).stage("learn", {"seed": 1}, build), flush=True)
    """
    with start_python(code, tmp_path, "hang") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "building\n"
        child.send_signal(signal.SIGKILL)
    (left,) = tmp_path.glob("[!.]*")
    assert left.name.endswith(".part")
    with start_python(code, tmp_path, "finish") as child:
        folder = Path(child.communicate()[0].strip())
    assert child.returncode == 0
    assert list(tmp_path.glob("[!.]*")) == [folder]
    assert len(list(folder.iterdir())) == 101
    assert StageStore(tmp_path).stage("learn", {"seed": 1}, never) == folder


# --- run folders ----------------------------------------------------------------------------------


def open_run(
    path: Path, config: dict[str, Any] = CONFIG, inputs: dict[str, str] = INPUTS, **options: Any
) -> bool:
    run = RunFolder(path)
    with run.lock():
        return run.open(config, inputs, **options)


def test_a_new_run_records_how_to_replay_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    assert open_run(path) is False
    config = yaml.safe_load((path / "config.yaml").read_text())
    assert config == {**CONFIG, "targets": ["q", "v"], "output_dir": "run"}
    assert list(config) == list(CONFIG)
    assert RunFolder(path).config() == config
    provenance = json.loads((path / "provenance.json").read_text())
    assert provenance["inputs"] == INPUTS
    assert provenance["seed"] == 7
    assert provenance["python"].startswith(f"{sys.version_info.major}.")
    assert {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "forgetfilter"} == (
        set(provenance["versions"])
    )


def test_the_same_run_is_resumed_and_nothing_changes(tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    before = snapshot(tmp_path)
    moved = {**CONFIG, "output_dir": "elsewhere"}
    assert open_run(tmp_path / "run", moved, ignore=frozenset({"output_dir"})) is True
    relearned = {**CONFIG, "learn": {"epochs": 9}}
    assert open_run(tmp_path / "run", relearned, ignore=frozenset({"learn"})) is True
    assert snapshot(tmp_path) == before


def test_a_changed_setting_or_input_is_refused_by_name(tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    changed = {**CONFIG, "learn": {"learning_rate": 1e-3, "epochs": 3}, "model": "\x1b[31mred"}
    del changed["seed"]
    before = snapshot(tmp_path)
    with pytest.raises(RunExistsError) as caught:
        open_run(tmp_path / "run", changed, {"noisy_dataset": "b" * 64, "safe_dataset": "c" * 64})
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert "learn.learning_rate: 2e-05 -> 0.001" in lines
    assert "model: tiny -> \\x1b[31mred" in lines
    assert "seed: 7 -> (absent)" in lines
    assert "input noisy_dataset: aaaaaaaaaaaaaa… -> bbbbbbbbbbbbbb…" in lines
    assert "input safe_dataset: (absent) -> cccccccccccccc…" in lines
    assert "learn.epochs" not in str(caught.value)
    assert "--overwrite" in lines[-1]
    assert snapshot(tmp_path) == before


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    open_run(tmp_path / "run", {str(n): n for n in range(30)})
    with pytest.raises(RunExistsError, match="and 22 more"):
        open_run(tmp_path / "run", {str(n): -1 - n for n in range(30)})


def test_overwrite_deletes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run)
    StageStore(run / "stages").stage("learn", {}, build_one)
    stages = snapshot(run / "stages")
    for name in ("kept.jsonl", "report.html", "notes.txt"):
        (run / name).write_text("written by a run, or by the user")
    (run / "mine").mkdir()
    assert open_run(run, {"seed": 8}, {"noisy_dataset": "b" * 64}, overwrite=True) is False
    assert {path.name for path in run.iterdir()} == {
        *(".lock", "config.yaml", "provenance.json", "notes.txt", "mine", "stages")
    }
    assert snapshot(run / "stages") == stages  # they are named by what they are made from
    assert RunFolder(run).config() == {"seed": 8}
    assert RunFolder(run).provenance()["inputs"] == {"noisy_dataset": "b" * 64}


def test_overwrite_of_the_same_run_resumes_it(tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    (tmp_path / "run" / "kept.jsonl").write_text("kept")
    assert open_run(tmp_path / "run", overwrite=True) is True
    assert (tmp_path / "run" / "kept.jsonl").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", ["thesis.tex", "config.yaml"])
def test_a_folder_of_someone_elses_is_left_alone(
    tmp_path: Path, foreign: str, overwrite: bool
) -> None:
    (tmp_path / foreign).write_text("model: theirs\n")
    (tmp_path / "report.html").write_text("theirs")
    before = snapshot(tmp_path)
    with pytest.raises(RunExistsError, match="another --output-dir"):
        open_run(tmp_path, overwrite=overwrite)
    assert snapshot(tmp_path) == before


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunExistsError, match="can't be used as a run folder"):
        open_run(tmp_path / "file")


def test_an_unreadable_configuration_needs_overwrite(tmp_path: Path) -> None:
    open_run(tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text + "]: {broken")
    with pytest.raises(RunExistsError, match=r"config\.yaml can't be read"):
        open_run(tmp_path)
    assert open_run(tmp_path, overwrite=True) is False
    assert open_run(tmp_path) is True


def test_leftovers_of_a_killed_write_are_swept(tmp_path: Path) -> None:
    left = tmp_path / ".forgetfilter-0123456789abcdef.part"
    left.write_bytes(b"half a config")
    open_run(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize(
    "value", [1e-5, 1e22, 0.1 + 0.2, "1e-5", "no", "2024-01-01", "", "日本", "\x1b\u2028", None, []]
)
def test_every_setting_survives_the_file(tmp_path: Path, value: Any) -> None:
    open_run(tmp_path, {"value": value})
    assert RunFolder(tmp_path).config() == {"value": value}
    assert open_run(tmp_path, {"value": value}) is True


def test_a_folder_without_a_run_has_no_configuration(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="is not a run folder"):
            RunFolder(path).config()
    assert not (tmp_path / "absent").exists()


def test_provenance_grows_and_is_rewritten_only_if_it_must(tmp_path: Path) -> None:
    open_run(tmp_path)
    run = RunFolder(tmp_path)
    run.write_provenance({"model": {"fingerprint": "f", "targets": ("q", "v")}})
    before = snapshot(tmp_path)
    run.write_provenance({"model": {"fingerprint": "f", "targets": ("q", "v")}})
    assert snapshot(tmp_path) == before
    assert run.provenance()["inputs"] == INPUTS
    assert run.provenance()["model"] == {"fingerprint": "f", "targets": ["q", "v"]}


def test_a_second_process_is_kept_out_until_the_first_is_killed(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from forgetfilter.runs.folder import RunFolder

        with RunFolder(Path(sys.argv[1])).lock():
            print("locked", flush=True)
            time.sleep(60)
    """
    run = RunFolder(tmp_path / "run")
    with start_python(code, run.path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(RunExistsError, match="Another process is using"), run.lock():
            pytest.fail("two processes hold one run folder")
        child.send_signal(signal.SIGKILL)
    with run.lock():
        assert run.open(CONFIG, INPUTS) is False


def test_the_lock_is_needed_and_is_let_go(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(RuntimeError):
        run.open(CONFIG, INPUTS)
    with run.lock(), pytest.raises(RunExistsError), RunFolder(tmp_path).lock():
        pytest.fail("one folder was locked twice")
    with run.lock():
        pass


def test_the_revision_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    package = tmp_path / "src" / "forgetfilter"
    installed = tmp_path / "venv" / "lib" / "forgetfilter"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "module.py").touch()
    assert git_revision(package) is None
    git("init", "--quiet")
    assert git_revision(package) is None
    git("add", "src")
    git("commit", "--quiet", "--no-verify", "--message", "one")
    assert git_revision(package) == git("rev-parse", "HEAD")
    assert git_revision(installed) is None
    (package / "module.py").write_text("changed")
    assert git_revision(package) == git("rev-parse", "HEAD") + "+changes"


def test_missing_packages_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetfilter.runs.provenance._PACKAGES", ("yaml-that-is-not", "pytest"))
    versions = describe_environment()["versions"]
    assert versions == {"yaml-that-is-not": None, "pytest": pytest.__version__}
