"""Where a sweep is kept: it is found from anywhere, under another name too, and deleted as a whole or not at all."""

from __future__ import annotations

from sweeping import outcome, results, run, starts, sweep, write

ONE = {"lr": {"values": [0.1]}}


def test_a_relative_storage_is_that_of_the_beginning_wherever_a_command_runs(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    found = run(tmp_path, parameters=ONE, storage="mine.db")
    monkeypatch.chdir(elsewhere)
    assert outcome(results(tmp_path / "sweeps/toy")) == outcome(found) != {}
    assert sweep("resume", write(tmp_path, parameters=ONE, storage="mine.db"), "--root", tmp_path / "sweeps") == 0
    assert not list(elsewhere.iterdir()) and set(starts(tmp_path / "sweeps/toy").values()) == {1}


def test_a_directory_that_was_renamed_is_the_same_sweep(tmp_path):
    found = run(tmp_path, parameters=ONE)
    (tmp_path / "sweeps/toy").rename(tmp_path / "sweeps/other")
    assert outcome(results(tmp_path / "sweeps/other")) == outcome(found) != {}
