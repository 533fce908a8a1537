"""Adapters from the command line and from Python: only they are trained, runs resume exactly, files go onto their base."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import lightning_nlp
from lightning_nlp.__main__ import main
from lightning_nlp.backbone.adapters import adapted_layers, is_adapter
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.loading import load_adapters, save_adapters
from lightning_nlp.tasks.adapting import fold_adapters
from tests.integration import runs

pytestmark = pytest.mark.slow
LORA = ["--model.adapter.kind", "lora", "--model.adapter.rank", "2", "--model.adapter.dropout", "0.1"]
TEXTS = ["the cat sat on a mat", "warm seas and red hills while some birds flew"]


@pytest.fixture(scope="module")
def adapted(trained, corpus, tmp_path_factory):
    """A LoRA run on the trained language model, uninterrupted."""
    root = tmp_path_factory.mktemp("adapted")
    config = runs.write_config(root / "tiny.yaml", corpus, max_steps=12, validate_every=6)
    assert (
        main(["fit", "-c", str(config), "--root", str(root), "--name", "lora", "--init_from", str(trained), *LORA]) == 0
    )
    return root / "lora"


def state(run: Path, step: int) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"step-{step}.ckpt", weights_only=True)["state_dict"]


def outputs(task) -> list[torch.Tensor]:
    """Hidden states and scores of the texts."""
    found = []
    for text in TEXTS:
        tokens = torch.tensor([task.head.encode_prompt(text)])
        with torch.no_grad():
            hidden = task.backbone(tokens)
            found += [hidden, task.head.scores(task.backbone, hidden)]
    return found


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_the_adapter_is_trained(trained, adapted):
    before, after = state(trained, 10), state(adapted, 12)
    new = [name for name in after if name not in before]
    assert new and all(map(is_adapter, new))
    assert all(torch.equal(before[name], after[name]) for name in before)  # the output matrix is the embedding: frozen
    assert all(after[name].abs().max() > 0 for name in new)
    optimizer = torch.load(adapted / "checkpoints" / "step-12.ckpt", weights_only=True)["optimizer_states"][0]
    assert len(optimizer["state"]) == len(new)


def test_it_says_what_is_trained(trained, tiny, tmp_path, capsys):
    args = ["fit", "-c", str(tiny), "--root", str(tmp_path), "--trainer.max_steps", "1", *LORA]
    assert main([*args, "--name", "based", "--init_from", str(trained)]) == 0
    said = capsys.readouterr().err
    task = lightning_nlp.load(tmp_path / "based")
    total = sum(parameter.numel() for parameter in task.parameters())
    # One layer, width 32, rank 2, queries and values: A 2 x 2 x 32, B 2 x 32 x 2.
    assert f"training 256 of {total:,} parameters ({25600 / total:.2g} %): 256 adapter" in said
    assert "2 adapter tensors" in said and "note:" not in said
    assert main([*args, "--name", "baseless"]) == 0
    assert "note: the adapter's base is new and random" in capsys.readouterr().err


def test_stopped_and_resumed_is_exact(trained, adapted, tmp_path):
    run = tmp_path / "stopped"
    args = ("fit", "-c", adapted.parent / "tiny.yaml", "--run", run, *LORA)
    first = runs.command(*args, "--init_from", trained)
    process = subprocess.Popen(first, env=runs.environment(), stderr=subprocess.DEVNULL)
    assert runs.stop_after(process, run, 4, 0.0, signal.SIGTERM) and runs.last_step(run) < 12
    assert main(["fit", "--run", str(run)]) == 0
    assert runs.history(run) == runs.history(adapted)
    one, other = state(run, 12), state(adapted, 12)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_saved_alone_and_loaded_onto_the_base(trained, adapted, tmp_path):
    task = lightning_nlp.load(adapted, "last")
    directory = save_adapters(task, tmp_path / "alone")
    names = load_file(directory / "adapters.safetensors")
    assert set(names) == {name for name in task.state_dict() if is_adapter(name) or name.startswith("heads.")}
    base = lightning_nlp.load(trained)
    for onto in (trained, base, adapted):  # a run, a task, and a task that is adapted itself
        again = load_adapters(directory, onto)
        assert same(outputs(again), outputs(task))
        assert {n: torch.equal(v, again.state_dict()[n]) for n, v in task.state_dict().items()} == dict.fromkeys(
            task.state_dict(), True
        )
    assert not same(outputs(base), outputs(task)) and not adapted_layers(base)  # the base was copied from, not changed
    with pytest.raises(ConfigError, match="has adapters already"):
        save_adapters(task, directory)
    with pytest.raises(ConfigError, match="no adapter to save"):
        save_adapters(base, tmp_path / "none")


def test_another_base_and_damage_are_refused(trained, adapted, tmp_path):
    directory = save_adapters(lightning_nlp.load(adapted, "last"), tmp_path / "alone")
    base = lightning_nlp.load(trained)
    with torch.no_grad():
        base.backbone.decoder.layers[0].feedforward.up.weight[0, 0] += 1e-6
    with pytest.raises(CheckpointError, match="of another base: its weights have hash"):
        load_adapters(directory, base)
    smaller = lightning_nlp.CausalLM(
        lightning_nlp.TransformerConfig(
            n_layers=1, d_model=32, n_heads=2, vocab_size=260, positions="learned", feedforward="swiglu"
        )
    )
    smaller.configure_model()
    with pytest.raises(CheckpointError, match="of another base"):
        load_adapters(directory, smaller)
    with pytest.raises(ConfigError, match="there are no adapters at"):
        load_adapters(tmp_path, trained)
    file = directory / "adapters.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match the checksum"):
        load_adapters(directory, trained)


def test_folded_task_is_plain_and_does_the_same(adapted):
    task, plain = lightning_nlp.load(adapted), fold_adapters(lightning_nlp.load(adapted))
    rebuilt = type(plain)(**plain.plain_hyperparameters())
    rebuilt.configure_model()
    rebuilt.load_state_dict(plain.state_dict())
    rebuilt.eval().head.tokenizer = plain.head.tokenizer
    assert not adapted_layers(rebuilt) and all(parameter.requires_grad for parameter in plain.parameters())
    assert same(outputs(rebuilt), outputs(plain)) and not same(outputs(plain), outputs(task))
    for one, other in zip(outputs(plain), outputs(task), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_weights_of_an_adapted_run_keep_their_function(adapted, tmp_path, tiny, capsys):
    """``--init_from`` an adapted run: merged into a plain one or one with another adapter, kept by the same adapter."""
    task = lightning_nlp.load(adapted)
    args = ["fit", "-c", str(tiny), "--root", str(tmp_path), "--init_from", str(adapted), "--trainer.max_steps", "1"]
    still = ["--model.optimizer.lr", "1e-30"]
    for name, flags, merged in (
        ("plain", [], True),
        ("same", LORA, False),
        ("other", [*LORA, "--model.adapter.rank", "3"], True),
    ):
        assert main([*args, *still, *flags, "--name", name]) == 0
        assert ("its lora adapter is merged" in capsys.readouterr().err) is merged
        found = lightning_nlp.load(tmp_path / name)
        assert bool(adapted_layers(found)) is (name != "plain")
        for one, other in zip(outputs(found), outputs(task), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_freezing_by_pattern(trained, tiny, tmp_path, capsys):
    args = ["fit", "-c", str(tiny), "--root", str(tmp_path), "--init_from", str(trained), "--trainer.max_steps", "2"]
    flags = ["--model.freeze", "[backbone]", "--model.trainable", '["*norm", "feedforward.up"]']
    assert main([*args, "--name", "frozen", *flags]) == 0
    assert " backbone" in next(line for line in capsys.readouterr().err.splitlines() if line.startswith("training "))
    before, after = state(trained, 10), state(tmp_path / "frozen", 2)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layer = "backbone.decoder.layers.0"
    wanted = {f"{layer}.attention_norm.weight", f"{layer}.feedforward_norm.weight", f"{layer}.feedforward.up.weight"}
    assert changed == {*wanted, "backbone.decoder.final_norm.weight"}
    task = lightning_nlp.load(tmp_path / "frozen")
    assert {name for name, parameter in task.named_parameters() if parameter.requires_grad} == changed


MISTAKES = {
    "target": (
        ["--model.adapter.kind", "lora", "--model.adapter.targets", "[attention.outptu]"],
        "near: 'attention.output'",
    ),
    "freeze": (
        ["--model.freeze", "[token_embeding]"],
        "model.freeze: 'token_embeding' matches nothing; near: 'token_embedding",
    ),
    "trainable": (["--model.trainable", "[backbone]"], "model.trainable: 'backbone' is trained anyway"),
    "everything frozen": (["--model.freeze", '["*"]'], "there is nothing to train"),
    "kind": (["--model.adapter.kind", "loar"], "did you mean 'lora'"),
    "key": (["--model.adapter.rnak", "3"], "did you mean 'model.adapter.rank'"),
    "rank without kind": (["--model.adapter.rank", "3"], "adapter.rank belongs to adapter.kind lora"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, tiny, tmp_path, capsys):
    flags, expected = MISTAKES[name]
    assert main(["fit", "-c", str(tiny), "--root", str(tmp_path), *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("run ")]
    assert line.startswith("lightning-nlp: error: ") and expected in line


CHANGES = [
    (["--model.adapter.rank", "3"], "the checkpoint has model.adapter.rank 2, this configuration 3"),
    (["--model.adapter.kind", "bottleneck", "--model.adapter.rank", "8"], "the checkpoint has model.adapter.kind lora"),
    (["--model.freeze", "[up]"], r"the checkpoint has model.freeze None, this configuration \['up'\]"),
]


@pytest.mark.parametrize(("flags", "expected"), CHANGES)
def test_a_run_goes_on_with_its_own_adapter(flags, expected, adapted, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(adapted, run)
    assert main(["fit", "--run", str(run), "--trainer.max_steps", "14", *flags]) != 0
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert re.search(expected, complaint) and "--init_from" in complaint
    saved = yaml.safe_load((run / "config.fit.yaml").read_text())["model"]["init_args"]
    assert (saved["adapter"]["kind"], saved["adapter"]["rank"], saved["freeze"]) == ("lora", 2, None)
