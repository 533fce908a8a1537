"""``benchmarks.gpu`` without a GPU: the same code on tiny shapes, its limits, its arithmetic and what it may import."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import gpu, gpu_decode, gpu_results, gpu_train
from benchmarks.gpu import Job
from benchmarks.gpu_results import Results
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import generate

ABSENT = ("lightning", "torchmetrics", "datasets", "jsonargparse", "yaml", "pyarrow", "transformers", "tensorboard")


def smoke(folder: Path, *more: str) -> int:
    return gpu.main(["--device", "cpu", "--smoke", "--output", str(folder), *more])


@pytest.mark.slow
def test_everything_runs_on_tiny_shapes(tmp_path, capsys):
    assert smoke(tmp_path) == 0
    written = json.loads((tmp_path / "results.json").read_text())
    page, printed = (tmp_path / "RESULTS.md").read_text(), capsys.readouterr().out
    rows = written["rows"]
    assert {row["part"] for row in rows} == set(gpu_results.COLUMNS)
    assert {row["status"] for row in rows} <= {"ok", "skipped"}
    assert all(row["row"] in page and row["row"] in printed for row in rows)
    numerics = [row for row in rows if row["part"] == "numerics"]
    assert len(numerics) > 50 and all(row["error"] < 0.01 for row in numerics)
    assert {row["kernel"] for row in numerics if "kernel" in row} == {"products", "SDPA"}
    trained = [row for row in rows if row["part"] == "train"]
    assert len(trained) == 3
    for row in trained:
        assert row["tokens_per_second"] == pytest.approx(2 * 32 / row["ms_per_step"] * 1e3)
        assert row["loss"][1] < row["loss"][0] and row["gib"] is None
    assert written["torch"] == torch.__version__ and "--smoke" in written["command"]
    assert page.startswith("# Not measured on a GPU")
    assert "CUDA graphs: skipped, Unavailable" in page


SCRIPT = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
import importlib, pkgutil
for package in ("lightning_nlp.backbone", "lightning_nlp.decoding"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
from benchmarks import gpu
for part in ("train", "decode"):
    assert gpu.main(["--device", "cpu", "--smoke", "--output", sys.argv[1], "--part", part]) == 0
"""


@pytest.mark.slow
def test_it_needs_nothing_but_torch(tmp_path):
    """Machines with a GPU may have no more than torch, numpy, safetensors and tokenizers."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(absent=ABSENT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(gpu.__file__).parents[1], timeout=300)
    assert done.returncode == 0, done.stderr
    assert "tiny B2, 4 + 6 tokens generate" in done.stdout
    assert "transformers generate" in done.stdout and "skipped: ModuleNotFoundError" in done.stdout
    assert (tmp_path / "previous.results.json").is_file()  # of the part before


def test_a_process_that_fails_or_hangs_is_a_row(tmp_path):
    ceiling = {"part": "ceiling", "module": "gpu_ceiling"}
    jobs = [
        Job(row="too slow", spec={"size": 128}, least=0, most=0.2, **ceiling),
        Job(row="broken", spec={"size": 64, "more": "x"} | {"size": "wrong"}, least=0, **ceiling),
        Job(row="no time", spec={"size": 64}, least=1000, **ceiling),
    ]
    results = Results(tmp_path, "cpu", "command")
    gpu.carry_out(jobs, results, "cpu", 100.0, alone=True)
    written = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["status"] for row in written] == ["stopped", "failed", "skipped"]
    assert written[0]["note"] == "not done after 0 s"
    assert "TypeError" in written[1]["note"]
    assert "at least 1000" in written[2]["note"]


@pytest.mark.slow
def test_rows_of_a_process_come_as_they_are_made(tmp_path):
    job = Job("ceiling", "products", "gpu_ceiling", {"size": 32})
    rows = list(gpu.in_a_process(job, "cpu", 100.0))
    assert [row["unit"] for row in rows] == ["TFLOP/s", "TB/s"] and all(row["value"] > 0 for row in rows)


def test_every_row_is_written_at_once(tmp_path):
    results = Results(tmp_path, "cpu", "command")
    for number in range(3):
        results.add({"part": "ceiling", "row": f"row {number}", "value": 1.0, "unit": "TB/s"})
        assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == number + 1
        assert f"row {number}" in (tmp_path / "RESULTS.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RESULTS.md", "results.json"]
    Results(tmp_path, "cpu", "again")
    assert len(json.loads((tmp_path / "previous.results.json").read_text())["rows"]) == 3


def a_training(row, status="ok", **values):
    numbers = {"tokens_per_second": 475_000.0, "flops_palm": 854_620_000, "flops_causal": 798_000_000}
    return {"part": "train", "row": row, "status": status, **(numbers if status == "ok" else {}), **values}


WRONG = [
    ([{"part": "numerics", "row": "a", "status": "ok"}], 0),
    ([{"part": "numerics", "row": "a", "status": "wrong", "error": float("nan")}], 1),
    ([{"part": "numerics", "row": "a", "status": "stopped"}], 1),
    ([{"part": "numerics", "row": "a", "status": "skipped"}], 0),
    ([a_training("124M", "failed")], 1),
    ([a_training("124M", "failed"), a_training("124M")], 0),  # one way of several did not work
    ([{"part": "decode", "row": "124M", "status": "failed"}], 0),
]


@pytest.mark.parametrize(("rows", "code"), WRONG)
def test_the_exit_code_says_whether_it_is_right(tmp_path, monkeypatch, rows, code):
    monkeypatch.setattr(gpu, "smoke_jobs", lambda: [Job("numerics", "x", "gpu_ceiling")])
    monkeypatch.setattr(gpu, "measure", lambda job, device, emit: [emit(row) for row in rows])
    assert smoke(tmp_path) == code
    json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))


MISTAKES = [
    (["--device", "cpu"], "add --smoke"),
    (["--minutes", "0", "--device", "cpu", "--smoke"], "--minutes must be above 0, not 0"),
    (["--part", "trian"], "invalid choice: 'trian'"),
]
if not torch.cuda.is_available():
    MISTAKES.append(([], "there is no CUDA device here: --device cpu --smoke shows that it runs"))


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        gpu.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


# Arithmetic -------------------------------------------------------------------------------------------------------


def test_shapes_and_flops_are_those_of_their_names():
    jobs = [job for job in gpu.full_jobs() if job.part == "train"]
    sizes = {}
    for job in jobs:
        training = gpu_train.Training(**job.spec)
        sizes[job.row] = training.config.num_params()
        assert training.numerics in ("master", "autocast") and training.compiled in ("none", "blocks", "model", "all")
        assert training.vocabulary % 64 == 0 and list(training.micro_batches) == sorted(training.micro_batches)[::-1]
    assert {row: round(size / 1e6) for row, size in sizes.items()} == {"124M": 124, "350M": 355, "1.3B": 1315}
    training = gpu_train.Training(**jobs[0].spec)
    matrices = 12 * 12 * 768**2 + 50304 * 768
    scores = 12 * 12 * 768 * 1024
    assert gpu_train.flops(training.config, 1024) == (6 * matrices + scores, 6 * matrices + scores // 2)


def test_utilisation_is_of_the_peak_of_the_device(tmp_path):
    assert gpu_results.peak_of("NVIDIA H200") == gpu_results.peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu_results.peak_of("NVIDIA H100 PCIe") == 756e12
    assert gpu_results.peak_of("NVIDIA GeForce RTX 4090") is None
    results = Results(tmp_path, "cpu", "command")
    results.peak = 989e12
    results.add({"part": "ceiling", "row": "product", "value": 800.0, "unit": "TFLOP/s"})
    results.add(a_training("124M"))
    row = results.rows[-1]
    assert row["mfu_palm"] == pytest.approx(0.4105, abs=1e-4)  # published: 41.3 % at about that speed
    assert row["mfu_causal"] == pytest.approx(0.3833, abs=1e-4)
    assert row["of_ceiling"] == pytest.approx(0.5074, abs=1e-4)
    assert row["verdict"] == "below" and row["wanted"] == "41.3% / 46%"
    results.add(a_training("124M", tokens_per_second=533_000.0))
    assert results.rows[-1]["verdict"] == "aim"
    results.add({"part": "decode", "row": "124M B64", "tokens_per_second": 9000.0, "ms_per_token": 1.0})
    results.add({"part": "decode", "row": "transformers", "tokens_per_second": 3000.0, "ms_per_token": 3.0})
    assert results.rows[-2]["ratio"] == 3.0
    assert "| 124M | " in results.page() and "| 41.0% | 38.3% | 50.7% | 41.3% / 46% | below |" in results.page()


def test_the_largest_batch_that_fits_is_measured(monkeypatch):
    tried, rows = [], []

    def measured(training, batch, device):
        tried.append(batch)
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB\nand more")
        return {"micro_batch": batch, "loss": [2.0, 1.0], "first_step_seconds": 1.0}

    monkeypatch.setattr(gpu_train, "measured", measured)
    spec = {
        "row": "x",
        "layers": 1,
        "width": 16,
        "heads": 2,
        "vocabulary": 10,
        "length": 8,
        "micro_batches": [16, 8, 4, 2],
    }
    gpu_train.run(spec, "cpu", rows.append)
    assert tried == [16, 8, 4]
    assert [row.get("status", "ok") for row in rows] == ["failed", "failed", "ok"]
    assert rows[0]["note"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB"
    with pytest.raises(MemoryError, match=r"\(16, 8\)"):
        gpu_train.run({**spec, "micro_batches": [16, 8]}, "cpu", rows.append)


def test_packed_rows_hold_so_many_documents():
    training = gpu_train.Training(
        row="x", layers=1, width=16, heads=2, vocabulary=10, length=64, micro_batches=(2,), documents=4
    )
    for tokens, labels, segments in gpu_train.batches(training, 3, "cpu"):
        assert tokens.shape == labels.shape == segments.shape == (3, 64)
        assert (segments.diff(dim=1) >= 0).all() and segments[:, 0].eq(1).all()
        assert set(segments[:, -1].tolist()) <= {3, 4}  # a document that would begin the row begins none


def test_graphs_of_all_lengths_give_the_tokens_of_generate(monkeypatch):
    """What is captured, with stand-ins that compute while they capture."""

    class Graph:
        def replay(self):
            pass

    class Stream:
        def wait_stream(self, other):
            pass

    nothing = lambda *args, **options: contextlib.nullcontext()  # noqa: E731
    for name, stand_in in (
        ("CUDAGraph", Graph),
        ("Stream", Stream),
        ("current_stream", Stream),
        ("graph", nothing),
        ("stream", nothing),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(n_layers=2, d_model=32, n_heads=2, vocab_size=50, positions="learned")).eval()
    prompts = torch.randint(50, (3, 5))
    with torch.no_grad():
        found = gpu_decode.Graphs(model, prompts, 7)()
    scores = lambda hidden: F.linear(hidden, model.embedding_weight)  # noqa: E731
    settings = GenerationConfig(max_new_tokens=7)
    assert found == generate(model, scores, prompts.tolist(), settings, eos_id=None, pad_id=0)
