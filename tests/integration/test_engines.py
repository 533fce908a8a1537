"""Jobs that others start: torchrun on two nodes, SLURM with its signals and requeues; and a process that hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_nlp.run import manifest
from tests.integration import runs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_torchrun_on_two_nodes_equals_one_process(tiny, tmp_path):
    settings = ["--model.backbone.dropout", "0", "--trainer.max_steps", "8", "--trainer.validate_every", "4"]
    runs.run("fit", "-c", tiny, "--root", tmp_path, "--name", "one", *settings)
    nodes, port = [], free_port()
    for node in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(node)]
        command += ["--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
        command += ["-m", "lightning_nlp", "fit", "-c", str(tiny), "--root", str(tmp_path), "--name", "two", *settings]
        command += ["--trainer.strategy", "fsdp2", "--trainer.num_nodes", "2"]
        nodes.append(subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True))
    errors = [node.communicate(timeout=300)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    one, two = (runs.history(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == (value if isinstance(value, str) else pytest.approx(value, abs=2e-5)), key


def stand_in(directory: Path, name: str, text: str) -> None:
    """A program of that name for a job script to call."""
    path = directory / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_slurm_requeues_once_and_goes_on_by_itself(tiny, tmp_path):
    """The job script, with stand-ins for ``srun`` (one task, which gets the signal) and ``scontrol``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    stand_in(programs, "srun", 'exec "$@"')
    stand_in(programs, "scontrol", f'echo "$@" >> {tmp_path}/scontrol.log')
    stand_in(programs, "lightning-nlp", f'echo $$ > {tmp_path}/task.pid; exec {sys.executable} -m lightning_nlp "$@"')
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    slurm["SLURM_NODELIST"] = "here"
    environment = {**ENVIRONMENT, **slurm, "PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "configs/slurm/fit.sbatch"), str(tiny), "job", "--trainer.max_steps", "30"]
    job = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "runs" / "job"
    while job.poll() is None and runs.last_step(run) < 7:
        time.sleep(0.02)
    os.kill(int((tmp_path / "task.pid").read_text()), signal.SIGUSR1)
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 85, errors
    assert (tmp_path / "scontrol.log").read_text() == "requeue 17\n"
    assert json.loads((run / "status.json").read_text())["state"] == "requeue"
    again = subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "scontrol.log").read_text() == "requeue 17\n"
    assert runs.last_step(run) == 30 and runs.steps_back(run) == []


def test_a_process_that_hangs_is_named(tiny, tmp_path):
    """Stopped, not killed: nothing tells the others but their own patience."""
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "trainer:\n  devices: 2\n  max_steps: 100000\n  validate_every: 0\n  strategy:\n"
        "    class_path: ModelParallel\n    init_args: {timeout: 6s}\n"
    )
    args = ["fit", "-c", tiny, "-c", overlay, "--root", tmp_path, "--name", "hang"]
    process = runs.start(args, ENVIRONMENT)
    run = tmp_path / "hang"
    while process.poll() is None and runs.last_step(run) < 8:
        time.sleep(0.05)
    (child,) = children(process.pid)
    os.kill(child, signal.SIGSTOP)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 86, errors
    last = errors.strip().splitlines()[-1]
    assert "stalled after step" in last and "waited in vain for process 1 (last seen at step" in last
    assert json.loads((run / "status.json").read_text())["state"] == "stalled"
    assert (
        not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text()
    )  # nobody is left stopped
    assert manifest.published(run / "checkpoints")


def children(pid: int) -> list[int]:
    """Of a process: those it started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found
