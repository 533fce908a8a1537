"""Three workers, three directories, one PostgreSQL: as three machines would."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from sweeping import process, results, starts, sweep, until, write

pytestmark = pytest.mark.slow


def program(name: str) -> str | None:
    """A tool of PostgreSQL; Debian keeps them off the PATH."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(kept[-1]) if kept else None)


@pytest.fixture(scope="module")
def server():
    """The URL of an empty database of an unprivileged server."""
    pytest.importorskip("psycopg", reason="no driver: pip install 'lightning_nlp[postgres]'")
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL on this machine")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # sockets need a short path
    identity = {}
    if os.getuid() == 0:  # PostgreSQL refuses root
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    made = subprocess.run(
        [initdb, "-D", data, "-U", "sweeper", "-A", "trust", "--no-sync"], capture_output=True, text=True, **identity
    )
    if made.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"initdb failed: {made.stderr.strip().splitlines()[-1]}")
    options = ["-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-c", "fsync=off"]
    running = subprocess.Popen([postgres, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity)
    try:
        import psycopg

        def answers() -> bool:
            assert running.poll() is None, "PostgreSQL ended"
            try:
                psycopg.connect(f"postgresql://sweeper@127.0.0.1:{port}/postgres").close()
            except psycopg.OperationalError:
                return False
            return True

        until(answers)
        yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_three_workers_share_one_study_and_outlive_one_of_them(server, tmp_path):
    parameters = {"lr": {"values": [0.01 * number for number in range(1, 13)]}, "sleep": {"value": 0.25}}
    launcher = {"parallel": 1, "grace": "5s", "heartbeat": "1s"}
    path = write(tmp_path, "shared", storage=server, parameters=parameters, launcher=launcher)
    roots = [tmp_path / f"machine-{number}" for number in range(3)]
    workers = [process("worker", path, "--root", root) for root in roots]
    until(lambda: all(starts(root / "shared") for root in roots) and len(starts(roots[0] / "shared")) >= 2)
    workers[0].kill()
    workers[0].wait()
    for worker in workers[1:]:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, out
    found = results(roots[1] / "shared")
    assert [each.state for each in found.configurations] == ["done"] * 12
    done = {trial.attempts[-1]["worker"] for trial in found.trials}
    assert len(done) == 3  # the first had finished one, or more
    counted = [starts(root / "shared") for root in roots]
    total = {trial.trial: sum(each.get(trial.trial, 0) for each in counted) for trial in found.trials}
    assert sorted(total.values())[:-1] == [1] * 11 and max(total.values()) <= 2  # only what died was started again
    assert len({trial.trial for trial in found.trials}) == 12
    assert sweep("report", roots[2] / "shared") == 0


def test_another_sweep_of_the_same_name_is_refused(server, tmp_path, capsys):
    path = write(tmp_path, "taken", storage=server, parameters={"lr": {"values": [0.1]}})
    assert sweep("run", path, "--root", tmp_path / "one") == 0
    path = write(tmp_path, "taken", storage=server, parameters={"lr": {"values": [0.2]}})
    assert sweep("worker", path, "--root", tmp_path / "two") == 2
    assert "the study 'taken' in the storage is of another sweep: parameters.lr differ" in capsys.readouterr().err
    assert sweep("run", path, "--root", tmp_path / "one", "--overwrite") == 0
    assert [each.settings for each in results(tmp_path / "one/taken").configurations] == [{"lr": 0.2}]


def test_a_server_that_is_away_is_one_line_without_the_password(tmp_path, capsys):
    pytest.importorskip("psycopg", reason="no driver: pip install 'lightning_nlp[postgres]'")
    path = write(tmp_path, storage="postgresql://me:secret@127.0.0.1:1/none")
    assert sweep("run", path, "--root", tmp_path / "sweeps") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "storage 'postgresql://me:***@127.0.0.1:1/none': " in line and "refused" in line and "secret" not in line


def test_an_array_script_starts_workers(server, tmp_path, capsys):
    path = write(tmp_path, "array", storage=server, launcher={"parallel": 2, "cores": 3, "gpus_per_trial": 1})
    assert sweep("slurm", path, "--root", tmp_path / "sweeps", "--workers", 5, "--time", "02:00:00") == 0
    script = capsys.readouterr().out
    for line in (
        "#SBATCH --array=0-4",
        "#SBATCH --cpus-per-task=6",
        "#SBATCH --gpus-per-task=2",
        "#SBATCH --time=02:00:00",
    ):
        assert line in script.splitlines()
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert f"sweep worker {tmp_path / 'sweeps/array'}" in script
    assert sweep("slurm", path, "--root", tmp_path / "sweeps", "--time", "1; rm -rf /") == 2
