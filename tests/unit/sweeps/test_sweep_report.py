"""Reports: self-contained, escaped, complete; and what TensorBoard reads in them."""

from __future__ import annotations

import base64
import csv
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from sweeping import run, sweep
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

HOSTILE = "<script>alert(1)</script>|\"'&"


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A sweep with failures, replicates, and a text that would like to be a script."""
    pytest.importorskip("matplotlib")
    parameters = {
        "lr": {"values": [1e-3, 1e-2, 1e-1, 1.0]},
        "end": {"values": ["well", "mistake"]},
        "note": {"values": [HOSTILE]},
        "seed": {"values": [1, 2], "role": "replicate"},
    }
    return run(tmp_path_factory.mktemp("report"), parameters=parameters, description=HOSTILE)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_html_stands_alone_and_runs_nothing(drawn, reported):
    directory = reported.opened.directory.path
    html = (directory / "report.html").read_text()
    tags = Tags()
    tags.feed(html)
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "iframe", "object", "form"}
    assert not [name for _, attrs in tags.seen for name in attrs if name.startswith("on")]
    sources = [attrs["src"] for _, attrs in tags.seen if "src" in attrs]
    assert len(sources) == 4 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    policy = next(attrs["content"] for tag, attrs in tags.seen if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert HOSTILE not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for source in sources:
        picture = base64.b64decode(source.partition(",")[2]).decode()
        assert picture.startswith("<svg") and "<script" not in picture
    for trial in reported.trials:
        assert trial.trial in html


def test_markdown_has_every_configuration_and_failure(drawn, reported):
    directory = reported.opened.directory.path
    text = (directory / "report.md").read_text()
    assert len(re.findall(r"^\| \d", text, re.MULTILINE)) == len(reported.configurations) == 8
    assert text.count(" configuration: unknown key") == 8  # two seeds of four configurations
    assert "<script" not in text
    for picture in re.findall(r"\]\((.*?)\)", text):
        assert (directory / picture).read_text().startswith("<svg")


def test_csv_has_a_line_for_every_trial(drawn, reported):
    rows = list(csv.DictReader((reported.opened.directory.path / "trials.csv").open()))
    assert [(row["trial"], row["state"], row["note"]) for row in rows] == [
        (trial.trial, trial.state, HOSTILE) for trial in reported.trials
    ]


def test_reports_written_again_are_the_same(drawn, reported):
    directory = reported.opened.directory.path
    files = [directory / name for name in ("report.html", "report.md", "trials.csv", "best.yaml")]
    before = [file.read_text() for file in files]
    assert sweep("report", directory) == 0
    assert [file.read_text() for file in files] == before


def test_hparams_are_read_by_tensorboard(drawn, reported):
    directory = reported.opened.directory.path / "tensorboard"

    def content(path, tag):
        accumulator = EventAccumulator(str(path)).Reload()
        return accumulator, accumulator.SummaryMetadata(tag).plugin_data.content

    _, root = content(directory, metadata.EXPERIMENT_TAG)
    experiment = metadata.parse_experiment_plugin_data(root)
    assert [info.name for info in experiment.hparam_infos] == ["lr", "end", "note", "seed"]
    assert [info.name.tag for info in experiment.metric_infos] == ["val/loss"]
    sessions = [path for path in directory.iterdir() if path.is_dir()]
    assert {path.name for path in sessions} == {trial.trial for trial in reported.trials if trial.attempts}
    for trial in (trial for trial in reported.trials if trial.attempts):
        accumulator, raw = content(directory / trial.trial, metadata.SESSION_START_INFO_TAG)
        start = metadata.parse_session_start_info_plugin_data(raw)
        assert start.group_name == trial.cell and start.hparams["lr"].number_value == trial.settings["lr"]
        assert start.hparams["note"].string_value == HOSTILE
        _, raw = content(directory / trial.trial, metadata.SESSION_END_INFO_TAG)
        assert metadata.parse_session_end_info_plugin_data(raw).status == (1 if trial.state == "done" else 2)
        if trial.state == "done":
            (point,) = accumulator.Scalars("val/loss")
            assert (point.step, point.value) == (trial.step, pytest.approx(trial.value, rel=1e-6))


def test_no_plots_without_matplotlib_and_a_line_says_so(tmp_path, capsys):
    run(tmp_path)  # plots are left out of this one
    assert "no plots: pip install 'lightning_nlp[pictures]'" in capsys.readouterr().out
    assert "<img" not in (tmp_path / "sweeps/toy/report.html").read_text()


@pytest.mark.slow
def test_a_browser_shows_it(drawn, reported, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    picture = tmp_path / "report.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,2400"]
    page = (reported.opened.directory.path / "report.html").as_uri()
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", page],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert picture.is_file(), done.stderr[-500:]
    from matplotlib import image

    pixels = image.imread(picture)[..., :3]
    blue = (abs(pixels - [0x1F / 255, 0x6F / 255, 0xB2 / 255]) < 0.02).all(axis=-1)
    assert blue.sum() > 300  # curves and bars inside images that its policy let through
    assert (pixels == 1).all(axis=-1).mean() > 0.5
