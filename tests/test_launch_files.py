"""The files to launch with are read by what they are for, as far as that is here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parent.parent / "examples" / "launch"
ACCELERATE = ("one_node.yaml", "fsdp2.yaml", "deepspeed_zero3.yaml")


def test_every_file_is_tested_here_and_named_in_the_documents():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {*ACCELERATE, "slurm.sbatch", "kueue_job.yaml"}
    page = (FOLDER.parent.parent / "docs" / "many_devices.md").read_text(encoding="utf-8")
    for name in names:
        assert f"examples/launch/{name}" in page


@pytest.mark.parametrize("name", ACCELERATE)
def test_accelerate_reads_its_configurations(name: str):
    from accelerate.commands.config.config_args import load_config_from_file

    config: Any = load_config_from_file(str(FOLDER / name))
    assert config.num_processes > 1
    assert config.mixed_precision == "no"


@pytest.mark.parametrize(
    ("name", "parted", "offloaded"),
    [
        ("one_node.yaml", False, False),
        ("fsdp2.yaml", True, False),
        ("deepspeed_zero3.yaml", True, False),
    ],
)
def test_what_accelerate_makes_of_a_file_is_what_we_read(
    name: str, parted: bool, offloaded: bool, monkeypatch: Any
):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    from forgetfilter.model.processes.joining import asks_for_parts

    words = ["--config_file", str(FOLDER / name), "-m", "forgetfilter", "screen"]
    options, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    options.deepspeed_fields_from_accelerate_config = []  # as the launcher does before this
    is_zero = name.startswith("deepspeed")
    found = prepare_deepspeed_cmd_env(options)[1] if is_zero else prepare_multi_gpu_env(options)
    for variable in list(os.environ):
        if variable.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.delenv(variable)
    for variable, value in found.items():
        if variable.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(variable, value)
    assert asks_for_parts() == (parted, offloaded)


@pytest.mark.parametrize(
    ("zero", "found"),
    [
        ({"stage": 3}, (True, False)),
        ({"stage": 3, "offload_param": {"device": "cpu"}}, (True, True)),
        ({"stage": 2}, (False, False)),
        ({}, None),
    ],
)
def test_a_configuration_of_deepspeed_itself_is_read(
    zero: dict[str, Any], found: tuple[bool, bool] | None, tmp_path: Path, monkeypatch: Any
):
    from forgetfilter.errors import ModelError
    from forgetfilter.model.processes.joining import asks_for_parts

    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": zero}))
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    if found is None:
        with pytest.raises(ModelError, match="The stage of ZeRO can't be read"):
            asks_for_parts()
    else:
        assert asks_for_parts() == found


def test_slurm_file_is_a_script_that_passes_its_words_on():
    path = FOLDER / "slurm.sbatch"
    subprocess.run(["bash", "-n", str(path)], check=True)
    # What Slurm has is given here; srun and torchrun say what they are called with.
    script = f"""
        scontrol() {{ echo first; echo second; }}
        srun() {{ shift; SLURM_NODEID=1 "$@"; }}
        torchrun() {{ printf '%s\\n' "$@"; }}
        export -f torchrun
        SLURM_JOB_NODELIST='[first,second]' SLURM_NNODES=2 SLURM_GPUS_ON_NODE=4
        export SLURM_JOB_NODELIST SLURM_NNODES SLURM_GPUS_ON_NODE
        set -- 'noisy rows.jsonl' --output-dir run
        . {path}
    """
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    words = said.stdout.splitlines()
    assert words[:10] == [
        *("--nnodes", "2", "--nproc-per-node", "4", "--node-rank", "1"),
        *("--master-addr", "first", "--master-port", "29500"),
    ]
    assert words[10:] == ["-m", "forgetfilter", "screen", "noisy rows.jsonl", "--output-dir", "run"]


def test_kubernetes_file_starts_one_pod_a_machine():
    service, job = yaml.safe_load_all((FOLDER / "kueue_job.yaml").read_text(encoding="utf-8"))
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    spec = job["spec"]
    assert spec["suspend"] is True
    assert "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    template = spec["template"]["spec"]
    assert template["subdomain"] == service["metadata"]["name"]
    (container,) = template["containers"]
    (command,) = container["args"]
    subprocess.run(["bash", "-n", "-c", command], check=True)
    assert f"--nnodes {spec['completions']} " in command
    assert f"--nproc-per-node {container['resources']['requests']['nvidia.com/gpu']} " in command
    assert command.split("-m ")[1].startswith("forgetfilter screen ")
