"""Checkpoints are valid only with their manifest, byte for byte; damage is named and never loaded."""

from __future__ import annotations

import json

import pytest

from lightning_nlp.errors import CheckpointError
from lightning_nlp.run import manifest


def save(directory, step, content=b"weights", **extra):
    final = manifest.checkpoint_path(directory, step)
    partial = manifest.partial_path(final)
    partial.write_bytes(content)
    return manifest.publish(partial, final, {"step": step, **extra})


def test_published_checkpoint_verifies_and_leaves_no_partial(tmp_path):
    checkpoint = save(tmp_path, 3)
    assert checkpoint.damage() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3.ckpt", "step-3.json"]


def test_directory_checkpoint_is_hashed_file_by_file(tmp_path):
    final = manifest.checkpoint_path(tmp_path, 1)
    partial = manifest.partial_path(final)
    (partial / "shard").mkdir(parents=True)
    (partial / "shard" / "0.bin").write_bytes(b"a" * 100)
    checkpoint = manifest.publish(partial, final, {"step": 1})
    assert checkpoint.damage() is None
    (final / "shard" / "0.bin").write_bytes(b"a" * 99 + b"b")
    assert "shard/0.bin does not match" in checkpoint.damage()


DAMAGES = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 6 bytes instead of 7"),
    "bit flipped": (lambda path: path.write_bytes(b"weighus"), "does not match its checksum"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "manifest cut": (lambda path: path.with_suffix(".json").write_text('{"step": 2'), "is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_newest_is_named_set_aside_and_the_one_before_used(tmp_path, name):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    spoil, message = DAMAGES[name]
    spoil(newest.path)
    lines = []
    found = manifest.newest_valid(tmp_path, lines.append)
    assert found is not None and found.step == 1
    assert len(lines) == 1 and "step 2 is damaged" in lines[0] and message in lines[0]
    assert [item.step for item in manifest.published(tmp_path)] == [1]


def test_refuses_to_start_over_when_all_are_damaged_now_and_later(tmp_path):
    save(tmp_path, 1).path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="refusing to start over"):
            manifest.newest_valid(tmp_path, lambda line: None)


def test_none_when_nothing_was_ever_published(tmp_path):
    manifest.partial_path(manifest.checkpoint_path(tmp_path, 1)).write_bytes(b"x")
    assert manifest.newest_valid(tmp_path, lambda line: None) is None
    assert manifest.newest_valid(tmp_path / "absent", lambda line: None) is None


def test_killed_between_rename_and_manifest_is_swept_up(tmp_path):
    save(tmp_path, 1)
    manifest.checkpoint_path(tmp_path, 2).write_bytes(b"renamed, manifest never written")
    manifest.partial_path(manifest.checkpoint_path(tmp_path, 3)).write_bytes(b"half")
    assert manifest.newest_valid(tmp_path, lambda line: None).step == 1
    manifest.sweep_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1.ckpt", "step-1.json"]


@pytest.mark.parametrize(("mode", "expected"), [("min", 2), ("max", 3)])
def test_best_reads_scores_from_manifests(tmp_path, mode, expected):
    for step, score in ((1, 0.5), (2, 0.1), (3, 0.9)):
        save(tmp_path, step, metrics={"val/loss": score})
    save(tmp_path, 4)
    assert manifest.best(tmp_path, "val/loss", mode, lambda line: None).step == expected
    assert manifest.best(tmp_path, "val/other", mode, lambda line: None).step == 4


def test_annotate_adds_scores_once_and_keeps_the_data(tmp_path):
    save(tmp_path, 5)
    manifest.annotate(tmp_path, 5, {"val/loss": 1.0})
    manifest.annotate(tmp_path, 5, {"val/loss": 2.0})
    (found,) = manifest.published(tmp_path)
    assert found.manifest["metrics"] == {"val/loss": 1.0} and found.damage() is None


def test_remove_deletes_the_manifest_first(tmp_path, monkeypatch):
    checkpoint = save(tmp_path, 1)
    monkeypatch.setattr(manifest, "remove_path", lambda path: None)  # killed right after the first deletion
    manifest.remove(checkpoint)
    assert not checkpoint.manifest_path.exists() and checkpoint.path.exists()
    assert manifest.published(tmp_path) == []


def test_manifest_is_plain_json(tmp_path):
    checkpoint = save(tmp_path, 7, tokens=70)
    value = json.loads(checkpoint.manifest_path.read_text())
    assert value["tokens"] == 70 and value["files"]["."]["bytes"] == 7 and len(value["files"]["."]["sha256"]) == 64


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_score_that_is_no_number_is_no_score(tmp_path, mode):
    for step, score in ((1, float("nan")), (2, 1.5), (3, float("inf"))):
        save(tmp_path, step, metrics={"val/loss": score})
    assert manifest.best(tmp_path, "val/loss", mode, print).step == 2
    assert [item.step for item in manifest.by_score(manifest.published(tmp_path), "val/loss", mode)] == [2]
