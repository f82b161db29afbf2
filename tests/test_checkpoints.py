"""A killed phase goes on from its last checkpoint to the very same result, or from the start."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import contents, rows_of, write_rows
from forgetfilter.config import (
    LearnSettings,
    LoraSettings,
    RestoreSettings,
    ScreenConfig,
    resolve,
)
from forgetfilter.data import read_rows
from forgetfilter.data.records import EncodedRow
from forgetfilter.errors import ConfigError
from forgetfilter.lab.strategies.bayesian import BayesianSteps
from forgetfilter.lab.strategies.lisa import LisaSteps
from forgetfilter.lab.strategies.rep_noise import RepNoiseSteps
from forgetfilter.lab.strategies.safe_grad import SafeGradSteps
from forgetfilter.lab.strategies.vaccine import VaccineSteps
from forgetfilter.model.loading.base_model import load_base_model, load_tokenizer
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.model.state import ModelState
from forgetfilter.model.training.checkpoints import PhaseCheckpoints
from forgetfilter.model.training.fine_tuning import train
from forgetfilter.model.training.plan import TrainPlan
from forgetfilter.model.training.step_method import Step, StepMethod
from forgetfilter.model.workbench import Workbench
from forgetfilter.runs.stages import StageStore
from forgetfilter.runs.unfinished import UNFINISHED
from forgetfilter.scoring.records import Probe
from killing import EVERY_STEP, Killed, Killing
from warm import run_warm

LORA = LoraSettings(r=2, alpha=4, dropout=0.1)
QUICK = {"learning_rate": 1e-2, "batch_size": 8, "warmup_ratio": 0.0}
EPOCHS = LearnSettings(**QUICK, stop="epochs", num_train_epochs=3)
LEARNED = LearnSettings(**QUICK, stop="learned", num_train_epochs=6)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill, other than a power cut, takes nothing away that was written."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Place:
    """Where stages are made, by one workbench after another."""

    def __init__(self, model: Path, rows: Path, folder: Path) -> None:
        self._model, self.rows_file, self.folder = str(model), rows, folder

    def bench(self, progress: Killing, minutes: float = EVERY_STEP) -> Workbench:
        return Workbench(
            self._model,
            StageStore(self.folder),
            lora=LORA,
            seed=0,
            progress=progress,
            max_new_tokens=4,
            checkpoint_minutes=minutes,
        )

    def at(self, name: str) -> Place:
        return Place(Path(self._model), self.rows_file, self.folder / name)

    def rows(self, bench: Workbench) -> list[EncodedRow]:
        return bench.encoder.encode(read_rows(self.rows_file).rows)[0]

    def attempt(
        self, phase: str, settings: LearnSettings, kill: int | None = None, method: Any = None
    ) -> tuple[ModelState | None, list[str]]:
        """Train, killed at this step of the attempt; what came out, and what was said."""
        progress = Killing(kill)
        bench = self.bench(progress)
        bench.kept_steps = {phase: []}
        rows = self.rows(bench)
        own = method(rows) if method else None
        arguments = ("learned", rows, settings, bench.base, phase, None, own)
        state = None
        if kill is None:
            state = bench.train(*arguments)
        else:
            with pytest.raises(Killed):
                bench.train(*arguments)
        return state, [line for line in progress.lines if line.startswith(f"{phase}:")]

    def train(
        self, phase: str, settings: LearnSettings, *kills: int, method: Any = None
    ) -> tuple[dict[str, bytes], list[str]]:
        """Train in several attempts, all but the last one killed; what came out of that and was
        said in it."""
        for kill in kills:
            self.attempt(phase, settings, kill, method)
        state, said = self.attempt(phase, settings, None, method)
        assert state is not None
        assert state.adapter is not None
        stage = Path(state.adapter).parent
        assert not (stage / UNFINISHED).exists()
        return contents(stage, without="stage.json"), said


@pytest.fixture(scope="module")
def place(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("checkpoints")
    rows = write_rows(root / "rows.jsonl", rows_of(22))
    return Place(tiny_model("llama"), rows, root / "stages")


# 22 rows in steps of 8: three steps an epoch.
@pytest.mark.parametrize(
    ("phase", "settings", "kills", "last"),
    [
        # In the middle of the second epoch, and just before its last step is reported.
        ("learn", EPOCHS, (5, 2), 5),
        # After the last step of an epoch, before what is measured there is known; then in the
        # second epoch; then where the learning rate falls.
        ("learn", LEARNED, (3, 3, 3, 3), 8),
        ("retrain", EPOCHS, (5, 3), 6),  # in an order of its own
    ],
)
def test_a_phase_that_was_killed_ends_as_one_that_was_not(
    place: Place, phase: str, settings: LearnSettings, kills: Sequence[int], last: int
):
    name = f"{phase}-{settings.stop}"
    whole, said = place.at(f"{name}-whole").train(phase, settings)
    assert said == []
    made, said = place.at(f"{name}-killed").train(phase, settings, *kills)
    steps = json.loads(whole["training.json"])["steps"]
    total = 9 if settings.stop == "epochs" else 18
    assert steps > last
    assert said == [f"{phase}: goes on from step {last} of {total}"]
    assert made == whole
    if settings.stop == "learned":
        report = json.loads(whole["training.json"])
        assert report["level_epochs"] is not None
        assert len(report["learned_shares"]) == report["level_epochs"]


class Forgetful(StepMethod):
    """A method that says nothing of its state."""

    key = {"forgetful": 1}  # noqa: RUF012

    def gradient(self, step: Step) -> float:
        return step.add_gradient(step.rows)


METHODS: dict[str, Callable[[list[EncodedRow]], StepMethod]] = {
    "bds": lambda rows: BayesianSteps(rows[:5], len(rows), 0.05, 0),
    "lisa": lambda rows: LisaSteps(rows[:5], (1, 2), 1.0, 0),
    "safe_grad": lambda rows: SafeGradSteps(rows[:5], 3, 1.0, 0, 8192),
    "vaccine": lambda rows: VaccineSteps(2.0),
    "rep_noise": lambda rows: RepNoiseSteps(list(reversed(rows)), 0.1, 0.1, 0),
}


@pytest.mark.parametrize("name", METHODS)
def test_what_a_step_method_remembers_goes_on_too(place: Place, name: str):
    settings = EPOCHS.model_copy(update={"num_train_epochs": 2})
    whole, _ = place.at(f"{name}-whole").train("retrain", settings, method=METHODS[name])
    killed = place.at(f"{name}-killed")
    made, said = killed.train("retrain", settings, 5, method=METHODS[name])
    assert said == ["retrain: goes on from step 4 of 6"]
    assert made == whole


def test_a_method_whose_state_can_not_be_saved_starts_over_and_says_so(place: Place):
    settings = EPOCHS.model_copy(update={"num_train_epochs": 1})
    method = lambda rows: Forgetful()  # noqa: E731
    whole, _ = place.at("forgetful-whole").train("retrain", settings, method=method)
    made, said = place.at("forgetful-killed").train("retrain", settings, 3, method=method)
    assert said == [
        "retrain: has no checkpoints, because Forgetful can't save what it remembers from step to "
        "step; killed, it begins at its start"
    ]
    assert made == whole


def test_the_fine_tune_of_a_whole_model_goes_on_too(
    place: Place, tiny_model: Callable[..., Path], tmp_path: Path
):
    folder = str(tiny_model("llama"))
    tokenizer = load_tokenizer(folder)
    rows = place.rows(place.bench(Killing()))
    settings = EPOCHS.model_copy(update={"num_train_epochs": 2})
    plan = TrainPlan("learn", rows, settings, 0)
    found: list[dict[str, Any]] = []
    outcomes: list[Any] = []
    for name, kills in (("whole", (None,)), ("killed", (5, None))):
        stage = tmp_path / name
        stage.mkdir()
        for kill in kills:
            model = load_base_model(folder, choose_placement("cpu", "float32"))
            model.requires_grad_(True)
            progress = Killing(kill)
            own = PhaseCheckpoints(stage, "learn", 6, EVERY_STEP, "cpu", progress)
            if kill is not None:
                with pytest.raises(Killed):
                    train(model, tokenizer, plan, progress, None, own)
                continue
            outcomes.append(train(model, tokenizer, plan, progress, None, own))
            found.append({name: p.detach().clone() for name, p in model.named_parameters()})
            assert (progress.begun == [4]) == (name == "killed")
    assert outcomes[0] == outcomes[1]
    assert all(bool((found[0][name] == found[1][name]).all()) for name in found[0])


def learned(place: Place) -> ModelState:
    """A state to restore and to read; made once."""
    settings = EPOCHS.model_copy(update={"num_train_epochs": 1})
    bench = place.bench(Killing(), 0)
    return bench.train("learned", place.rows(bench), settings, bench.base, "forget")


def test_a_restoration_that_was_killed_ends_as_one_that_was_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    # Base's log-probabilities of some batches are read together, whichever are still to come.
    import forgetfilter.model.training.restoring as restoring

    made: list[dict[str, bytes]] = []
    settings = RestoreSettings(steps=8, batch_size=3)
    for name, kills in (("whole", ()), ("killed", (4, 3))):
        own = place.at(f"restore-{name}")
        for kill in (*kills, None):
            progress = Killing()
            bench = own.bench(progress)
            vocabulary = len(bench.tokenizer)
            monkeypatch.setattr(restoring, "_MOST_AHEAD", vocabulary * 130)
            start = learned(place)
            progress.left = kill
            arguments = ("restored", own.rows(bench)[:10], settings, start)
            if kill is not None:
                with pytest.raises(Killed):
                    bench.restore(*arguments)
                continue
            state = bench.restore(*arguments)
            made.append(contents(Path(str(state.adapter)).parent, without="stage.json"))
            said = [line for line in progress.lines if line.startswith("restore:")]
            assert said == ["restore: goes on from step 5 of 8"] * (name == "killed")
    assert made[0] == made[1]
    assert len(json.loads(made[0]["restoring.json"])["moves"]) == 8


PROBES = [
    Probe("loss", "learned"),
    Probe("divergence", "learned"),
    Probe("generation", "learned"),
    Probe("neighbours", "learned"),
    Probe("likeness", "learned"),
    Probe("safe_neighbours", "learned"),
    Probe("unsafe_likeness", "learned"),
    Probe("rate", "learned", objective="kl_to_base"),
]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.kind)
def test_a_pass_over_rows_that_was_killed_gives_the_same_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch, probe: Probe
):
    from forgetfilter.model.measuring import comparing, likeness
    from forgetfilter.model.passes import forward

    monkeypatch.setattr(forward, "CPU_BATCH_TOKENS", 100)  # so that there are several batches
    for module in (likeness, comparing):
        monkeypatch.setattr(module, "_STANDARD_ROWS", 4)
    files: list[bytes] = []
    batches = 0
    for name in ("whole", "killed"):
        own = place.at(f"{probe.kind}-{name}")
        progress = Killing()
        bench = own.bench(progress)
        bench.max_batch_tokens = 100
        rows, state = own.rows(bench), learned(place)
        states = {"learned": state}
        safe = rows[:6]
        if name == "killed":
            if probe.kind == "rate":  # its directions are a stage of their own
                bench.measure([probe], states, rows[:1], safe)
            progress.left = batches - 1
            with pytest.raises(Killed):
                bench.measure([probe], states, rows, safe)
            (part,) = own.folder.glob("measure_*.part")
            assert list(part.glob(f"{UNFINISHED}/*/readings.npz"))
            progress.left = None
            progress.updates.clear()
        bench.measure([probe], states, rows, safe)
        folders = own.folder.glob(f"measure_{probe.name}-*")
        stage = max(folders, key=lambda path: path.stat().st_mtime_ns)
        assert not (stage / UNFINISHED).exists()
        files.append((stage / "readings.parquet").read_bytes())
        went_on = [line for line in progress.lines if "goes on from row" in line]
        assert len(went_on) == (name == "killed")
        assert name == "whole" or progress.updates[probe.name] < batches
        batches = progress.updates[probe.name]
    assert files[0] == files[1]


def test_texts_and_numbers_come_back_from_shards_as_they_were(tmp_path: Path):
    from forgetfilter.model.passes.shards import Shards

    stage = tmp_path / "measure_x-0.part"
    stage.mkdir()
    texts = ["", "two\0\0", "\ud800", "ä\n", ""]
    numbers = np.array([0.1, -0.0, 1e-300, 3.0, 0.0])
    first = Shards(stage, "x", EVERY_STEP, Killing())
    first.begin(5, {"texts": list(texts), "numbers": numbers})
    first.add([3, 1])
    first.add([2])
    progress = Killing()
    found, values = [""] * 5, np.zeros(5)
    is_done = Shards(stage, "x", 0, progress).begin(5, {"texts": found, "numbers": values})
    assert is_done.tolist() == [False, True, True, True, False]
    assert found == ["", *texts[1:4], ""]
    assert values.tobytes() == np.array([0.0, *numbers[1:4], 0.0]).tobytes()
    assert progress.lines == ["x: goes on from row 3 of 5"]


def test_a_damaged_checkpoint_is_not_believed(place: Place):
    whole, _ = place.at("damaged-whole").train("learn", EPOCHS)
    own = place.at("damaged")
    own.attempt("learn", EPOCHS, 6)
    (part,) = own.folder.glob("learn-*.part")
    entries = sorted((part / UNFINISHED).iterdir())
    assert [entry.name for entry in entries] == [f"{step:012d}" for step in (4, 5)]
    for name in ("adapter", "early"):  # as of a process that died while it wrote them
        (part / name).mkdir(exist_ok=True)
        (part / name / "adapter_model.safetensors").write_bytes(b"torn")
    path = entries[1] / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-100])
    _, said = own.attempt("learn", EPOCHS, 1)
    damaged = "learn: what was kept at step {} isn't used: {} is not as it was written"
    assert said == [
        damaged.format(5, "optimizer.pt"),
        # The early adapter of that time is gone too.
        damaged.format(4, "early/adapter_model.safetensors"),
    ]
    made, said = own.train("learn", EPOCHS)
    assert said == []
    assert made == whole


def test_every_command_that_trains_says_how_often():
    from forgetfilter.cli import build_parser
    from forgetfilter.cli.screening import screen_layers
    from forgetfilter.lab.cli.studies import _config
    from forgetfilter.lab.studies.settings import CompareConfig, screen_config

    parser = build_parser()
    paths = {"noisy_data": "a", "model": "m", "output_dir": "r"}
    assert resolve(ScreenConfig, paths).checkpoint_minutes == 10
    for command in (["screen"], ["demo"]):
        options = parser.parse_args([*command, "--checkpoint-minutes", "2.5"])
        layers = screen_layers(options)
        assert resolve(ScreenConfig, *layers, paths).checkpoint_minutes == 2.5
    tuned = ["finetune", "run", "--output-dir", "adapter", "--checkpoint-minutes", "0"]
    assert parser.parse_args(tuned).checkpoint_minutes == 0
    grid = str(Path(__file__).parent.parent / "examples" / "tiny_compare.yaml")
    for study in ("compare", "interleave", "curves", "immunise", "compose", "leaderboard"):
        options = parser.parse_args([study, grid, "--checkpoint-minutes", "2.5"])
        assert options.checkpoint_minutes == 2.5
    options = parser.parse_args(["compare", grid, "--checkpoint-minutes", "2.5"])
    config = _config(CompareConfig, options)
    assert config.settings["learn"]
    assert screen_config(config, 0).checkpoint_minutes == 2.5
    for wrong in (-1, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="checkpoint_minutes"):
            resolve(ScreenConfig, paths, {"checkpoint_minutes": wrong})


def test_how_often_changes_nothing_of_what_is_made():
    from forgetfilter.runs.changes import Changes, changes_of_screen

    old, new = ({"signal": "restoration", "checkpoint_minutes": m} for m in (10.0, 2.0))
    assert changes_of_screen(old, new, {}, {}) == Changes()
    assert changes_of_screen({"signal": "restoration"}, new, {}, {}) == Changes()


KILL_AT_RANDOM = """
    import json, os, random, signal, sys, time, traceback
    from pathlib import Path
    from forgetfilter.config import LearnSettings, LoraSettings, RestoreSettings
    from forgetfilter.data import read_rows
    from forgetfilter.model.workbench import Workbench
    from forgetfilter.progress import Progress
    from forgetfilter.runs.stages import StageStore
    from forgetfilter.scoring.records import Probe

    os.fsync = lambda _: None  # a kill, other than a power cut, takes nothing away
    given, root = json.loads(sys.argv[1]), Path(sys.argv[2])
    random.seed(given["seed"])
    log = open(root / "log", "a")

    class Logged(Progress):
        def say(self, text):
            print(text, file=log, flush=True)

    def work(folder):
        bench = Workbench(given["model"], StageStore(folder), lora=LoraSettings(r=2, alpha=4,
            dropout=0.1), seed=0, progress=Logged(is_silent=True), max_new_tokens=4,
            max_batch_tokens=200, checkpoint_minutes=given["minutes"])
        rows = bench.encoder.encode(read_rows(Path(given["rows"])).rows)[0]
        bench.kept_steps = {"learn": []}
        learned = bench.train("learned", rows, LearnSettings(**given["learn"]), bench.base, "learn")
        if given["steps"]:
            settings = RestoreSettings(steps=given["steps"], batch_size=3)
            restored = bench.restore("restored", rows[:10], settings, learned)
            states = {"learned": learned, "restored": restored}
            probes = [Probe("loss", "restored"), Probe("generation", "learned")]
            bench.measure(probes, states, rows, rows[:6])

    def start(folder):
        child = os.fork()
        if child == 0:
            try:
                work(folder)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        return child

    def entries(folder):
        return {str(path) for path in folder.glob("*/unfinished/*") if path.name.isdigit()}

    def killed(folder):
        "Kill a child at a random instant after some checkpoints; False where it ended before."
        child, seen, known = start(folder), set(), entries(folder)
        wanted = random.randint(1, given["most"])
        while len(seen) < wanted:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                assert status == 0
                return False
            seen |= entries(folder) - known
            time.sleep(0.002)
        time.sleep(random.random() * given["pause"])
        os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def outcome(folder):
        files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        return {str(name): path.read_bytes() for name, path in files.items()
                if path.name != "stage.json" and ".locks" not in path.parts}

    assert os.waitpid(start(root / "whole"), 0)[1] == 0
    log.truncate(0)
    kills = 0
    while kills < given["kills"] and killed(root / "killed"):
        kills += 1
    assert os.waitpid(start(root / "killed"), 0)[1] == 0
    assert outcome(root / "killed") == outcome(root / "whole"), given["seed"]
    print(kills)
"""


def killing(model: Path, rows: Path, learn: dict[str, Any], **changes: Any) -> str:
    """What the script above is given."""
    seed = int.from_bytes(os.urandom(4), "big")  # other instants each time; shown on failure
    given = {"model": str(model), "rows": str(rows), "learn": learn, "seed": seed}
    return json.dumps({**given, **changes})


def test_a_screen_that_is_killed_at_random_instants_makes_the_same_files(
    tiny_model: Callable[..., Path], place: Place, tmp_path: Path
):
    learn = {**QUICK, "batch_size": 4, "stop": "epochs", "num_train_epochs": 2}
    given = {"minutes": EVERY_STEP, "steps": 4, "most": 5, "kills": 3, "pause": 0.05}
    settings = killing(tiny_model("llama"), place.rows_file, learn, **given)
    done = run_warm(KILL_AT_RANDOM, settings, tmp_path)
    assert done.returncode == 0, settings + done.stderr
    assert int(done.stdout) >= 2
    said = (tmp_path / "log").read_text()
    assert "learn: goes on from step " in said


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_learn_phase_of_the_bundled_model_killed_at_ten_random_instants(tmp_path: Path):
    from forgetfilter.lab.testbed import bundled_model_path
    from forgetfilter.lab.testbed.noisy import make_noisy

    rows = write_rows(tmp_path / "noisy.jsonl", make_noisy(240, 0.1, 0)[0])
    learn = {"stop": "epochs", "num_train_epochs": 4}  # 60 steps
    given = {"minutes": 0.01, "steps": 0, "most": 3, "kills": 10, "pause": 1.0}
    done = run_warm(KILL_AT_RANDOM, killing(bundled_model_path(), rows, learn, **given), tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 10
    said = (tmp_path / "log").read_text().count("goes on from step ")
    assert said == 10
