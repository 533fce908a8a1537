"""Names, refusals and status of run directories."""

from __future__ import annotations

import pytest

from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory, check_name, create


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "nul\0", "with space"])
def test_bad_names_are_refused(name):
    with pytest.raises(ConfigError, match="run name"):
        check_name(name)


def test_existing_run_is_refused_with_the_line_that_resumes_it(tmp_path):
    create(tmp_path, "one").write_status("running")
    with pytest.raises(ConfigError, match=r"--run .*one"):
        create(tmp_path, "one")
    run = create(tmp_path, "one", overwrite=True)
    assert list(run.path.iterdir()) == []


def test_overwrite_never_deletes_what_is_no_run(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no run"):
        create(tmp_path, "precious", overwrite=True)
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_unwritable_root(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot create run directory"):
        create(tmp_path / "file", "one")


def test_status_keeps_the_step_and_maps_codes(tmp_path):
    run = RunDirectory(tmp_path)
    assert run.read_status() == {}
    run.write_status("running", step=12)
    run.finish(143, "SIGTERM received")
    status = run.read_status()
    assert (status["state"], status["exit_code"], status["step"]) == ("terminated", 143, 12)
