"""What FLOPs are counted from: the matrices of a task, the tokens of a batch; dtypes, and memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_nlp import CausalLM, TransformerConfig
from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.counting import Work, matrices, training_flops
from lightning_nlp.callbacks.utilization import Utilization, Weights, kind_of, resident, work_of
from lightning_nlp.tasks.masked_lm import MaskedLM
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequence
from lightning_nlp.tasks.text_classification import TextClassification

SHAPE = {"n_layers": 2, "d_model": 16, "n_heads": 2, "vocab_size": 30, "pad_id": 0, "max_length": 32}


def built(task):
    task.configure_model()
    return task


TASKS = [
    (CausalLM, {}),
    (CausalLM, {"tie_embeddings": False, "bias": True, "output_bias": True}),
    (CausalLM, {"positions": "learned", "feedforward": "swiglu", "n_kv_heads": 1}),
    (CausalLM, {"positions": "relative", "qk_norm": True}),
    (CausalLM, {"attention": "additive", "positions": "none"}),
    (MaskedLM, {"arrangement": "encoder", "output_transform": True, "token_types": 2}),
    (MaskedLM, {"arrangement": "encoder", "window": 4, "global_tokens": 1}),
    (SequenceToSequence, {"arrangement": "encoder_decoder", "decoder_start_id": 1, "n_encoder_layers": 3}),
]


@pytest.mark.parametrize(("task", "parts"), TASKS)
def test_matrices_of_the_module_are_those_of_the_configuration(task, parts):
    config = TransformerConfig(**SHAPE, **parts)
    weights = Weights(built(task(config)))
    assert weights.trained == matrices(config)
    assert not any(weights.extra.values())
    work = Work(2, 20, 10, 30)
    assert weights.flops(work, "palm") == training_flops(config, work)


def test_a_class_is_no_vocabulary():
    config = TransformerConfig(**SHAPE, arrangement="encoder")
    weights = Weights(built(TextClassification(config, labels=["a", "b", "c"])))
    assert weights.trained == {**matrices(config), "labels": 3 * 16}
    assert weights.flops(Work(2, 20, 2), "palm") == training_flops(config, Work(2, 20, 2), outputs=3)


def test_adapters_and_what_they_freeze():
    config = TransformerConfig(**SHAPE)
    weights = Weights(built(CausalLM(config, adapter=AdapterConfig(kind="lora", rank=2))))
    assert weights.trained == {"tokens": 0, "source": 0, "labels": 0}
    assert weights.extra == {"tokens": 2 * 2 * (2 * 16 + 2 * 16), "source": 0, "labels": 0}
    all_of = training_flops(config, Work(1, 8, 8))
    assert weights.flops(Work(1, 8, 8), "palm") < 0.8 * all_of


def test_work_of_a_batch():
    segments = torch.tensor([[1, 1, 2, 0], [1, 1, 1, 1]])
    labels = torch.tensor([[5, -100, 6, -100], [1, 2, 3, 4]])
    batch = {"segments": segments, "labels": labels}
    assert work_of(batch) == [2, 7, 6, 0]
    assert work_of({**batch, "source_segments": torch.tensor([[1, 0], [1, 1]])}) == [2, 7, 6, 3]
    assert work_of({"segments": segments, "labels": torch.tensor([0, 1])}) == [2, 7, 2, 0]


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("precision", "device", "products", "kind"),
    [
        ("32-true", CPU, "highest", "fp32"),
        ("32-true", CPU, "high", "fp32"),
        ("32-true", CUDA, "highest", "fp32"),
        ("32-true", CUDA, "high", "tf32"),
        ("bf16-mixed", CUDA, "highest", "bf16"),
        ("bf16-true", CPU, "highest", "bf16"),
        ("bf16-master", CPU, "highest", "bf16"),
        ("16-mixed", CUDA, "high", "fp16"),
        ("16-true", CUDA, "high", "fp16"),
        ("transformer-engine", CUDA, "high", "bf16"),
        ("transformer-engine-float16", CUDA, "high", "fp16"),
        ("64-true", CPU, "highest", None),
    ],
)
def test_what_is_multiplied(precision, device, products, kind, monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: products)
    assert kind_of(precision, device) == kind


def trainer(device, precision="bf16-mixed", ranks=1):
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, world_size=ranks, precision=precision, is_global_zero=True)


def test_shares_of_a_listed_device(monkeypatch):
    """124M parameters, 1,024 tokens, 475k tokens/s on each H100: 41.3 % with all parameters, 41.0 % with matrices."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("lightning_nlp.callbacks.utilization.matmul_flops", lambda device, dtype: 790e12)
    config = TransformerConfig(size="base", vocab_size=50257, positions="learned", bias=True)
    with torch.device("meta"):
        task = built(CausalLM(config))
    used = Utilization(trainer("cuda", ranks=8), task)
    shares = used.shares(used.rates(Work(64, 64 * 1024, 64 * 1024), 8 * 475_000))
    assert shares["mfu_palm"] == pytest.approx(0.4102, abs=0.0001)
    assert shares["mfu_causal"] == pytest.approx(0.4102 - 475_000 * 6 * 12 * 768 * 1024 / 989.4e12, abs=0.0001)
    assert shares["mfu_palm_measured"] == pytest.approx(shares["mfu_palm"] * 989.4 / 790)


def test_a_cpu_has_a_ceiling_alone(monkeypatch):
    monkeypatch.setattr("lightning_nlp.callbacks.utilization.matmul_flops", lambda device, dtype: 1e11)
    task = built(CausalLM(TransformerConfig(**SHAPE)))
    used = Utilization(trainer("cpu", "32-true"), task)
    assert used.shares(used.rates(Work(1, 16, 16), 1000.0)).keys() == {"mfu_palm_measured", "mfu_causal_measured"}
    assert used.rates(Work(0, 0, 0), 0.0) == {}


def test_a_module_of_ones_own_has_no_flops():
    used = Utilization(trainer("cpu"), torch.nn.Linear(2, 2))
    assert used.weights is None and used.rates(Work(1, 16, 16), 1000.0) == {}


def test_memory_of_this_process():
    before = resident()
    held = torch.ones(64 * 2**20 // 4)
    after = resident()
    assert after["resident_peak_bytes"] >= after["resident_bytes"] > 0
    assert after["resident_bytes"] - before["resident_bytes"] > 48 * 2**20
    del held


def test_memory_is_known_where_the_system_says_less(monkeypatch):
    """Some sandboxes have no ``VmHWM``."""
    monkeypatch.setattr(Path, "read_text", lambda self: "Name:\tpython\nVmRSS:\t  100 kB\n")
    found = resident()
    assert found["resident_bytes"] == 100 * 1024 and found["resident_peak_bytes"] > 2**20
