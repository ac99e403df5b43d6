"""The scripts of docs/cluster with stand-ins for the programs of a cluster."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).resolve().parents[1] / "docs" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
NOTE = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
"""
STAND_IN = f"""{NOTE}
code=$(head -n 1 "$CODES"); sed -i 1d "$CODES"
trap 'exit 143' TERM
if [ "$code" = wait ]; then while true; do sleep 0.05; done; fi
exit "$code"
"""
"""A program that notes how it was called, and ends with the next of the given exit codes."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_well_formed(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    if (shellcheck := shutil.which("shellcheck")) is not None:
        assert subprocess.run([shellcheck, script]).returncode == 0


def test_the_skypilot_task_has_the_fields_that_restart_it() -> None:
    task = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"]["max_restarts_on_errors"] > 0
    assert task["file_mounts"]["/runs"]["mode"] == "MOUNT"
    subprocess.run(["bash", "-n"], input=task["run"], text=True, check=True)


def stand_ins(folder: Path, codes: str, **variables: str) -> dict[str, str]:
    """Write the programs, which end with the exit codes in turn; return the environment."""
    for name in ("srun", "torchrun", "scontrol"):
        path = folder / name
        path.write_text(STAND_IN if name != "scontrol" else NOTE)
        path.chmod(0o755)
    (folder / "squeue").write_text(f"#!/bin/bash\necho {variables.pop('state', 'RUNNING')}\n")
    (folder / "squeue").chmod(0o755)
    (folder / "codes").write_text(codes.replace(" ", "\n") + "\n")
    return {
        "PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(folder / "calls"),
        "CODES": str(folder / "codes"), "PAUSE": "0", "SLURM_JOB_ID": "4711",
        "RENDEZVOUS": "login:29400", **variables,
    }  # fmt: skip


def start(folder: Path, script: str, codes: str, **variables: str) -> subprocess.Popen[str]:
    """Start a script."""
    environment = stand_ins(folder, codes, **variables)
    command = ["bash", str(CLUSTER / script), str(folder / "run"), "--config", "base"]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def calls(folder: Path) -> list[str]:
    """Return the programs that were called, without their options but scontrol's."""
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line if line.startswith("scontrol") else line.split()[0] for line in lines]


def stopped(folder: Path, process: subprocess.Popen[str]) -> int:
    """Send SIGTERM to a script once its first program runs, and return its exit code."""
    deadline = time.monotonic() + 20
    while not calls(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)  # the stand-in sets its trap
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    return process.returncode


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "--config base"), ({"CACHE": "/my disk"}, "--config base --data.cache_dir /my disk")],
)
def test_slurm_names_a_cache_of_shards_only_where_there_is_one(
    tmp_path: Path, variables: dict[str, str], expected: str
) -> None:
    start(tmp_path, "slurm.sh", "0", **variables).communicate(timeout=20)
    assert (tmp_path / "calls").read_text().strip().endswith(f"--out {tmp_path / 'run'} {expected}")


@pytest.mark.parametrize(("cache", "expected"), [("", ""), ("/disk", "--data.cache_dir /disk")])
def test_skypilot_names_a_cache_of_shards_only_where_there_is_one(
    tmp_path: Path, cache: str, expected: str
) -> None:
    task = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text())
    given = task["envs"] if not cache else {**task["envs"], "CACHE": cache}
    machine = dict.fromkeys(("NODE_IPS", "NUM_NODES", "NUM_GPUS_PER_NODE", "TASK_ID"), "1")
    environment = stand_ins(tmp_path, "0", **given)
    environment |= {f"SKYPILOT_{name}": value for name, value in machine.items()}
    subprocess.run(["bash", "-uc", task["run"]], env=environment, check=True)
    call = (tmp_path / "calls").read_text().strip()
    assert call.endswith(f"--out /runs/first {task['envs']['OPTIONS']} {expected}".strip())


def test_a_job_before_its_time_limit_saves_and_goes_back_to_the_queue(tmp_path: Path) -> None:
    assert stopped(tmp_path, start(tmp_path, "slurm.sh", "wait")) == 143
    assert calls(tmp_path) == ["srun", "scontrol requeue 4711"]


@pytest.mark.parametrize("variables", [{"state": "COMPLETING"}, {"SLURM_RESTART_COUNT": "20"}])
def test_a_cancelled_job_or_one_of_many_restarts_stays_away(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    assert stopped(tmp_path, start(tmp_path, "slurm.sh", "wait", **variables)) == 143
    assert calls(tmp_path) == ["srun"]


@pytest.mark.parametrize(
    ("codes", "code", "number"),
    [("0", 0, 1), ("2", 2, 1), ("127", 127, 1), ("137 75 253 0", 0, 4), ("137 2", 2, 2)],
)
def test_a_step_that_lost_a_process_is_started_again_in_its_job(
    tmp_path: Path, codes: str, code: int, number: int
) -> None:
    process = start(tmp_path, "slurm.sh", codes, MAX_RESTARTS="3")
    process.communicate(timeout=20)
    assert process.returncode == code
    assert calls(tmp_path) == ["srun"] * number


@pytest.mark.parametrize(("codes", "code", "number"), [("1 0", 0, 2), ("1 1 1 1", 1, 3)])
def test_torchrun_is_started_again_while_there_is_progress(
    tmp_path: Path, codes: str, code: int, number: int
) -> None:
    process = start(tmp_path, "torchrun.sh", codes)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert calls(tmp_path) == ["torchrun"] * number


def test_a_stopped_torchrun_stays_stopped(tmp_path: Path) -> None:
    assert stopped(tmp_path, start(tmp_path, "torchrun.sh", "wait 0")) == 143
    assert calls(tmp_path) == ["torchrun"]
