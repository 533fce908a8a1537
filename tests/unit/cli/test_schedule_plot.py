"""`list schedules --plot`: curves as text and as a picture, and one line for what cannot be drawn."""

from __future__ import annotations

import builtins

import pytest

from lightning_nlp import registry
from lightning_nlp.__main__ import main
from lightning_nlp.cli import schedule_plot


def test_every_schedule_is_a_line(capsys):
    assert main(["list", "schedules", "--plot", "--steps", "500"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("learning rate over 500 steps")
    assert [line.split()[0] for line in lines] == list(registry.SCHEDULES)
    assert len({len(line) for line in lines}) == 1
    assert "▁▄▆█" in lines[0] and lines[0].endswith("  0.040  1.000  1.000")  # 25 steps of warm-up


def test_a_curve_is_what_was_asked_for(capsys):
    asked = ["--schedule", "wsd,warmup=0,decay=50,form=linear,final=0", "--schedule", "linear,warmup=0,final=0"]
    assert main(["list", "schedules", "--plot", *asked, "--steps", "101"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-3:] == ["1.000", "1.000", "0.020"]  # 50 of 101 steps: from 51 on
    assert lines[1].split()[-3:] == ["1.000", "0.505", "0.010"]
    curve = lines[0].split()[1]
    assert len(curve) == schedule_plot.WIDTH and curve[:32] == "█" * 32 and list(curve) == sorted(curve, reverse=True)


def test_a_curve_has_eight_heights():
    assert schedule_plot.sparkline([0.0, 0.06, 0.13, 0.4, 0.6, 0.95, 1.0]) == "▁▁▂▄▅██"


@pytest.mark.parametrize("name", ["schedules.png", "schedules.svg"])
def test_a_picture(name, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / name
    assert main(["list", "schedules", "--plot", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    start = path.read_bytes()[:100]
    assert start.startswith(b"\x89PNG") if name.endswith("png") else b"svg" in start or b"<?xml" in start


def test_without_matplotlib_the_picture_is_refused_and_the_text_is_not(tmp_path, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *args):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["list", "schedules", "--plot", str(tmp_path / "a.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'lightning_nlp[pictures]'" in line and not (tmp_path / "a.png").exists()
    assert main(["list", "schedules", "--plot"]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--schedule", "cosin"], "did you mean 'cosine'?"),
        (["--schedule", "wsd,decy=3"], "--schedule wsd,decy=3: there is no 'decy'; did you mean 'decay'?"),
        (["--schedule", "wsd,decay"], "write decay=VALUE"),
        (["--schedule", "wsd,decay=x"], "decay must be a number, not 'x'"),
        (["--schedule", "cosine,power=3"], "schedule.power belongs to polynomial"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert main(["list", "schedules", "--plot", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "optimizers", "--plot"], "--plot draws schedules"),
        (["list", "--plot"], "--plot draws schedules"),
        (["list", "schedules", "--steps", "5"], "--schedule and --steps go with --plot"),
    ],
)
def test_only_schedules_are_drawn(argv, message, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_no_place_to_write(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["list", "schedules", "--plot", str(tmp_path / "absent" / "a.png")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    assert main(["list", "schedules", "--plot", str(tmp_path / "a.txt")]) == 2
    assert "the name must end in one of" in capsys.readouterr().err
