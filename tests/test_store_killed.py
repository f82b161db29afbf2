"""The files on disk are sound whenever the process is killed: before each operation in turn."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

KILL_EVERYWHERE = """
    # Runs `action` in a forked child again and again, killing it by SIGKILL just before its
    # first, second, third … operation on the file system, until it gets through unharmed. After
    # each kill `check` says whether what is left is sound.
    import os, shutil, signal, sys
    from pathlib import Path
    from forgetfilter.runs import folder as store
    from forgetfilter.data import write_lines
    from forgetfilter.runs.stages import StageStore
    from forgetfilter.runs.folder import RunFolder

    store.describe_environment = lambda: {}
    root = Path(sys.argv[1])
    watched = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir",
               "os.scandir", "shutil.rmtree"}

    def kill_everywhere(prepare, action, check):
        for fatal in range(1, 1000):
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            prepare()
            child = os.fork()
            if child == 0:
                count = 0
                def hook(event, arguments):
                    nonlocal count
                    if event in watched and str(root) in str(arguments[0]):
                        count += 1
                        if count == fatal:
                            os.kill(os.getpid(), signal.SIGKILL)
                sys.addaudithook(hook)
                try:
                    action()
                finally:
                    os._exit(0 if sys.exc_info()[0] is None else 1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, -signal.SIGKILL), status
            check(status == 0)
            if status == 0:
                return fatal - 1

    def build(folder):
        (folder / "one").write_text("1")
        (folder / "two").write_text("2")

    def check_stage(finished):
        built = []
        folders = [path for path in root.glob("[!.]*") if not path.name.endswith(".part")]
        assert len(folders) <= 1
        for folder in folders:
            assert sorted(os.listdir(folder)) == ["one", "stage.json", "two"]
        folder = StageStore(root).stage("s", {}, lambda path: (built.append(1), build(path)))
        assert len(built) + len(folders) == 1
        assert sorted(os.listdir(folder)) == ["one", "stage.json", "two"]
        assert list(root.glob("[!.]*")) == [folder]

    def make_stage():
        StageStore(root).stage("s", {}, build)

    def damage_stage():
        make_stage()
        next(root.glob("[!.]*")).joinpath("one").write_text("longer")

    def check_repaired(finished):
        folder = StageStore(root).stage("s", {}, build)
        assert [(folder / name).read_text() for name in ("one", "two")] == ["1", "2"]
        assert list(root.glob("[!.]*")) == [folder]

    run = root / "run"

    def begin(seed, **options):
        folder = RunFolder(run)
        with folder.lock():
            resumed = folder.open({"seed": seed}, {"noisy": f"hash {seed}"}, **options)
        assert folder.config() == {"seed": seed}
        assert folder.provenance()["inputs"] == {"noisy": f"hash {seed}"}
        return resumed

    def finish_run():
        begin(1)
        StageStore(run / "stages").stage("s", {}, build)
        write_lines(run / "kept.jsonl", [b"old"])

    def check_begun(finished):
        begin(1)
        assert sorted(os.listdir(run)) == [".lock", "config.yaml", "provenance.json"]

    def check_overwritten(finished):
        begin(2, overwrite=True)
        assert sorted(os.listdir(run)) == [".lock", "config.yaml", "provenance.json", "stages"]
        assert len(list(run.glob("stages/*/two"))) == 1

    def check_earlier_or_later(finished):
        # Without --overwrite either run may be there, whole or anew, never the rest of one.
        try:
            resumed = begin(1)
        except store.RunExistsError:
            resumed = False
            begin(2)
        else:
            assert not finished
        assert (run / "kept.jsonl").exists() == resumed
        assert len(list(run.glob("stages/*/two"))) == 1

    def check_lines(finished):
        found = (root / "file").read_bytes()
        assert found in ((b"new\\n" * 2,) if finished else (b"old\\n", b"new\\n" * 2))

    kills = [
        kill_everywhere(lambda: None, make_stage, check_stage),
        kill_everywhere(damage_stage, make_stage, check_repaired),
        kill_everywhere(lambda: None, lambda: begin(1), check_begun),
        kill_everywhere(finish_run, lambda: begin(2, overwrite=True), check_overwritten),
        kill_everywhere(finish_run, lambda: begin(2, overwrite=True), check_earlier_or_later),
        kill_everywhere(lambda: write_lines(root / "file", [b"old"]),
                        lambda: write_lines(root / "file", [b"new"] * 2), check_lines),
    ]
    print(*kills)
"""


def test_no_instant_of_being_killed_is_fatal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILL_EVERYWHERE), str(tmp_path / "root")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    kills = [int(count) for count in done.stdout.split()]
    assert len(kills) == 6
    assert min(kills) >= 3  # the harness did strike inside each of them
    assert sum(kills) > 60
