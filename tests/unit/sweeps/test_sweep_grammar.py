"""What a sweep's file may say, and the exact line for what it may not."""

from __future__ import annotations

import copy
import datetime

import pytest
import yaml

from lightning_nlp import yaml_file
from lightning_nlp.__main__ import main
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.duration import parse_duration
from lightning_nlp.sweeps.grammar import parse_sweep, read_sweep

GOOD = {
    "method": "random",
    "metric": {"name": "val/loss", "goal": "minimize"},
    "run_cap": 4,
    "base": ["base.yaml"],
    "parameters": {
        "model.optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "model.backbone.d_model": {"values": [64, 128]},
        "seed_everything": {"values": [1, 2], "role": "replicate"},
    },
}
LR, WIDTH = "parameters.model.optimizer.lr", "parameters.model.backbone.d_model"
REMOVE = object()
MISTAKES = [
    ("methd", "grid", "methd: unknown key; did you mean 'method'? (known: name, description, method, metric, run_cap, seed, base, program, parameters, trials, early_terminate, retries, launcher, storage)"),
    ("method", REMOVE, "method is required"),
    ("method", "gird", "method must be one of grid, list, random, bayes, asha, got 'gird'; did you mean 'grid'?"),
    ("metric", "val/loss", "metric must be a mapping of keys to values, got 'val/loss'"),
    ("metric.name", REMOVE, "metric.name is required"),
    ("metric.goal", "minimise", "metric.goal must be one of minimize, maximize, got 'minimise'; did you mean 'minimize'?"),
    ("metric.target", 3, "metric.target: unknown key (known: name, goal, of)"),
    ("run_cap", 0, "run_cap must be a whole number, at least 1, got 0"),
    ("run_cap", "many", "run_cap must be a whole number, at least 1, got 'many'"),
    ("run_cap", REMOVE, "run_cap: method random has no end by itself: give the number of configurations"),
    ("seed", 1.5, "seed must be a whole number, at least 0, got 1.5"),
    ("name", "a/b", "name: 'a/b' is not allowed: use up to 64 letters, digits, '.', '_' or '-'"),
    ("base", REMOVE, "base: give the configuration every trial starts from, e.g. [configs/quickstart.yaml]"),
    ("base", 3, "base must be a list of texts, got 3"),
    ("parameters", {}, "parameters: nothing to search: none has 'values' or 'min' and 'max'"),
    ("parameters", {"a": {"value": 1}}, "parameters: nothing to search: none has 'values' or 'min' and 'max'"),
    (f"{LR}", 1e-3, f"{LR} must be a mapping: write {{value: 0.001}}"),
    (f"{LR}", [1, 2], f"{LR} must be a mapping: write {{values: [1, 2]}}"),
    (f"{LR}.minn", 1, f"{LR}.minn: unknown key; did you mean 'min'? (known: value, values, min, max, q, distribution, expr, vars, role)"),
    (f"{LR}.values", [1], f"{LR} needs one of value, values, min and max, expr; got values and min and max"),
    (f"{LR}", {}, f"{LR} needs one of value, values, min and max, expr; got none"),
    (f"{LR}.max", REMOVE, f"{LR}.max is required by distribution log_uniform_values"),
    (f"{LR}.max", 1e-5, f"{LR}: min (0.0001) must be less than max (1e-05)"),
    (f"{LR}.min", 0, f"{LR}.min must be more than 0 for log_uniform_values, got 0"),
    (f"{LR}.min", "low", f"{LR}.min must be a number, got low"),
    (f"{LR}.q", 0.1, f"{LR}.q does not belong to distribution log_uniform_values"),
    (f"{LR}.distribution", "log_uniform", f"{LR}.distribution: there is no 'log_uniform'; did you mean 'log_uniform_values'? (known: constant, categorical, uniform, int_uniform, q_uniform, log_uniform_values, q_log_uniform_values)"),
    (f"{LR}.parameters", {}, f"{LR}.parameters: no nesting: write the dotted key model.optimizer.lr.NAME"),
    (f"{WIDTH}.values", [], f"{WIDTH}.values must be a list of at least one value, got []"),
    (f"{WIDTH}.values", [64, 64], f"{WIDTH}.values: 64 is given twice"),
    (f"{WIDTH}.values", [{"a": 1}], f"{WIDTH}.values: a mapping is no single value: write dotted keys"),
    (f"{WIDTH}.role", "repeat", f"{WIDTH}.role must be one of search, replicate, got 'repeat'; did you mean 'replicate'?"),
    (f"{WIDTH}.role", "replicate", "parameters.seed_everything.role: 'model.backbone.d_model' is the replicate already"),
    (f"{LR}.role", "replicate", f"{LR}: a replicate needs 'values', e.g. [1, 2, 3]"),
    ("parameters.name", {"values": ["a"]}, "parameters.name: the sweep itself decides this"),
    ("parameters.a b", {"values": ["a"]}, "parameters: 'a b' is no dotted key such as model.optimizer.lr"),
    ("parameters.x", {"expr": "d // 2"}, "parameters.x.expr: 'd' is no variable (known: none: give them in 'vars')"),
    ("parameters.x", {"expr": "d // 2", "vars": {"d": "model.width"}}, "parameters.x.vars.d: there is no parameter 'model.width'"),
    ("parameters.x", {"expr": "__import__('os')"}, "parameters.x.expr: there is no function '__import__' (known: min, max, abs, round, int, float, sqrt, log2, log10, exp)"),
    ("parameters.x", {"expr": "[1]"}, "parameters.x.expr: '[1]' is not allowed: only numbers, variables, + - * / // % ** and functions"),
    ("parameters.x", {"value": 1, "vars": {}}, "parameters.x.vars belongs to 'expr'"),
    ("trials", [{"a": 1}], "trials: belongs to method list, not to random"),
    ("early_terminate", {"type": "asha"}, "early_terminate.min_iter is required"),
    ("early_terminate", {"type": "ash", "min_iter": 1}, "early_terminate.type must be one of asha, hyperband, median, got 'ash'; did you mean 'asha'?"),
    ("early_terminate", {"type": "asha", "min_iter": 1, "max_iter": 9}, "early_terminate.max_iter: unknown key; did you mean 'min_iter'? (known: type, resource, min_iter, eta, s)"),
    ("early_terminate", {"type": "hyperband", "min_iter": 9, "max_iter": 9}, "early_terminate.max_iter must be more than min_iter: the length of a whole trial"),
    ("early_terminate", {"type": "asha", "min_iter": 1, "eta": 1}, "early_terminate.eta must be a whole number, at least 2, got 1"),
    ("retries", {"on": ["nan"]}, "retries.on must be one of preempted, killed, host_oom, stalled, got 'nan'"),
    ("launcher", {"type": "slurm"}, "launcher.type must be local, got 'slurm': other machines join with `lightning-nlp sweep worker`, and `lightning-nlp sweep slurm` prints an array of them"),
    ("launcher", {"timeout": "soon"}, "launcher.timeout 'soon' is no duration: write 90s, 15m, 1h30m, 1.5h or 1d"),
    ("launcher", {"timeout": 0}, "launcher.timeout 0 is no duration: write 90s, 15m, 1h30m, 1.5h or 1d"),
    ("launcher", {"grace": "0s"}, "launcher.grace '0s' is no duration: write 90s, 15m, 1h30m, 1.5h or 1d"),
    ("launcher", {"heartbeat": False}, "launcher.heartbeat False is no duration: write 90s, 15m, 1h30m, 1.5h or 1d"),
    ("launcher", {"timeout": "9" * 300}, "launcher.timeout '999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999' is no duration: write 90s, 15m, 1h30m, 1.5h or 1d"),
    ("launcher", {"parallel": 0}, "launcher.parallel must be a whole number, at least 1, got 0"),
    ("launcher", {"gpus": 1}, "launcher.gpus: unknown key (known: type, parallel, cores, gpus_per_trial, timeout, grace, heartbeat)"),
    ("storage", "postgresql://u:secret@h:notaport/db", "storage: this postgresql URL cannot be read: write postgresql://user@host:5432/name"),
    (f"{WIDTH}.values", [[1, [float("nan")]]], f"{WIDTH}.values: nan is no finite number"),
    (f"{WIDTH}.values", [[[[[[[[[[[1]]]]]]]]]]], f"{WIDTH}.values: lists in lists, more than 8 deep"),
    ("storage", "mysql://host/db", "storage: 'mysql' is not supported: use postgresql:// or a file (SQLite)"),
]  # fmt: skip


def changed(place: str, value: object) -> dict:
    """GOOD with one thing wrong."""
    content = copy.deepcopy(GOOD)
    top, _, rest = place.partition(".")
    if top == "parameters" and rest:
        key = next((known for known in content["parameters"] if rest.startswith(known)), rest)
        holder, name = content["parameters"], key
        if rest != key:
            holder, name = content["parameters"][key], rest.removeprefix(f"{key}.")
    elif rest:
        holder, name = content[top], rest
    else:
        holder, name = content, top
    if value is REMOVE:
        del holder[name]
    else:
        holder[name] = value
    return content


@pytest.mark.parametrize(("place", "value", "line"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(place, value, line):
    with pytest.raises(ConfigError) as caught:
        parse_sweep(changed(place, value), "sweep")
    assert str(caught.value) == line


def test_what_is_not_wrong_is_accepted():
    sweep = parse_sweep(copy.deepcopy(GOOD), "mine")
    assert sweep.name == "mine" and sweep.replicate.values == (1, 2) and sweep.run_cap == 4
    assert [each.key for each in sweep.of_kind("values", "range")] == ["model.optimizer.lr", "model.backbone.d_model"]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"a": 1}, "a mapping is no single value: write dotted keys"),
        (float("nan"), "nan is no finite number"),
        (datetime.date(2020, 1, 1), "datetime.date(2020, 1, 1) must be a number, text, true, false or null"),
        ([[{}]], "a mapping is no single value: write dotted keys"),
    ],
)
def test_values_of_a_list_are_single_ones(value, line):
    content = {**copy.deepcopy(GOOD), "method": "list", "parameters": {}, "trials": [{"lr": 1}, {"lr": value}]}
    with pytest.raises(ConfigError) as caught:
        parse_sweep(content, "sweep")
    assert str(caught.value) == f"trials[1].lr: {line}"


@pytest.mark.parametrize(
    ("method", "more", "line"),
    [
        ("grid", {}, f"{LR}: method grid needs 'values', not a range"),
        ("list", {}, "trials: method list needs a list of configurations, each a mapping of keys to values"),
        ("asha", {}, "early_terminate.min_iter is required"),
        (
            "asha",
            {"early_terminate": {"type": "median"}},
            "early_terminate.type: method asha stops by asha, not by 'median'",
        ),
    ],
)
def test_methods_ask_for_what_they_need(method, more, line):
    with pytest.raises(ConfigError) as caught:
        parse_sweep({**copy.deepcopy(GOOD), **more, "method": method}, "sweep")
    assert str(caught.value) == line


def test_numbers_are_read_as_people_write_them(tmp_path):
    path = tmp_path / "numbers.yaml"
    path.write_text("a: [1e-4, 1E5, -2e3, 1.5e-3, 3, .5e1, 1e, 1e-4x, '1e-4']\n")
    assert yaml_file.read(path, "sweep file")["a"] == [1e-4, 1e5, -2e3, 1.5e-3, 3, 5.0, "1e", "1e-4x", "1e-4"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("method: grid\nmethod: list\n", "sweep file '{path}' line 2: duplicate key 'method'"),
        ("method: [grid\n", "sweep file '{path}' line 2: did not find expected ',' or ']'"),
        ("- grid\n", "sweep file '{path}' must hold keys and values (method, metric, parameters ...)"),
        ("a: !!python/object/apply:os.system [ls]\n", "sweep file '{path}' line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("? [a, b]\n: 1\n", "sweep file '{path}' line 1: a list or a mapping is no key"),
        ("seed: 0x_\n", "sweep file '{path}': a value cannot be read: invalid literal for int() with base 16: ''"),
        (f"a: {'[' * 2000}{']' * 2000}\n", "sweep file '{path}': nested too deeply"),
        ("!!set [a]\n", "sweep file '{path}': a value cannot be read: cannot unpack non-iterable ScalarNode object"),
        ("", "sweep file '{path}' must hold keys and values (method, metric, parameters ...)"),
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_named_by_its_line(text, line, tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    assert main(["sweep", "run", str(path), "--dry_run"]) == 2
    assert capsys.readouterr().err == f"lightning-nlp: error: {line.format(path=path)}\n"


def test_a_file_that_is_not_there_has_a_neighbour(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(GOOD))
    assert main(["sweep", "run", str(tmp_path / "swep.yaml")]) == 2
    assert "does not exist; did you mean 'sweep.yaml'?" in capsys.readouterr().err
    assert main(["sweep", "run", str(tmp_path / "sweep.yaml")]) == 2
    assert "base: 'base.yaml' does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(90, 90), ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1.5h", 5400), ("1h30m", 5400), ("1d", 86400)],
)
def test_times_are_read_alike_everywhere(given, seconds):
    assert parse_sweep({**GOOD, "launcher": {"timeout": given}}, "sweep").launcher.timeout == seconds
    assert parse_duration(given, "trainer.time_budget").total_seconds() == seconds


def test_files_have_names(tmp_path):
    path = tmp_path / "lr_width.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert read_sweep(path).name == "lr_width" and read_sweep(path, "other").name == "other"


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["run", "absent.yaml", "--dry_run"]])
def test_light_commands_import_nothing_heavy(words):
    import subprocess
    import sys

    code = (
        f"import sys; from lightning_nlp.__main__ import main; main(['sweep', *{words!r}]); "
        "print(sorted({'torch', 'lightning', 'optuna', 'numpy', 'sqlalchemy', 'rich', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
