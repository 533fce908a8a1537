"""TensorBoard's HParams tab: what was varied, and what came of it, one session for every trial."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning_nlp.sweeps import space
from lightning_nlp.sweeps.parameters import plain
from lightning_nlp.sweeps.results import Results

STATUS = {"done": 1, "pruned": 1, "failed": 2, "running": 3, "waiting": 3}
"""States as TensorBoard's plugin numbers them: success, failure, running."""


def write_hparams(results: Results, directory: Path) -> None:
    """Write event files below ``directory``, in place of those that are there.

    The trials' own event files stay as they are: theirs speak of all settings of a run, these of what was varied.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary  # pulls in protobuf: a second
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    sweep = results.opened.sweep
    keys = space.varied(sweep) + ([sweep.replicate.key] if sweep.replicate is not None else [])
    shutil.rmtree(directory, ignore_errors=True)

    def tagged(tag: str, content: Any) -> Summary:
        return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content))])

    experiment = api_pb2.Experiment(name=sweep.name, description=sweep.description)
    for key in keys:
        values = [trial.settings[key] for trial in results.trials if key in trial.settings]
        experiment.hparam_infos.append(hparam_info(api_pb2, key, values))
    name = api_pb2.MetricName(tag=sweep.metric.name)
    experiment.metric_infos.append(api_pb2.MetricInfo(name=name, display_name=sweep.metric.name))
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION)
    write_events(directory, [(0, tagged(metadata.EXPERIMENT_TAG, content))])
    for trial in results.trials:
        if not trial.attempts:
            continue
        start = plugin_data_pb2.SessionStartInfo(group_name=trial.cell, start_time_secs=trial.attempts[0]["started"])
        for key in keys:
            if key in trial.settings:
                fill(start.hparams[key], trial.settings[key])
        content = plugin_data_pb2.HParamsPluginData(session_start_info=start, version=metadata.PLUGIN_DATA_VERSION)
        events: list[tuple[int, Summary]] = [(0, tagged(metadata.SESSION_START_INFO_TAG, content))]
        if trial.value is not None:
            value = Summary.Value(tag=sweep.metric.name, simple_value=trial.value)
            events.append((trial.step, Summary(value=[value])))
        end = plugin_data_pb2.SessionEndInfo(
            status=STATUS[trial.state],
            end_time_secs=trial.attempts[-1]["started"] + trial.attempts[-1].get("seconds", 0),
        )
        content = plugin_data_pb2.HParamsPluginData(session_end_info=end, version=metadata.PLUGIN_DATA_VERSION)
        if trial.ended:
            events.append((trial.step, tagged(metadata.SESSION_END_INFO_TAG, content)))
        write_events(directory / trial.trial, events)


def write_events(directory: Path, events: list[tuple[int, Any]]) -> None:
    """One event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(directory))
    for step, summary in events:
        writer.add_event(Event(step=step, wall_time=0.0, summary=summary))
    writer.close()


def hparam_info(api: Any, key: str, values: list[Any]) -> Any:
    """A parameter, with its domain where it is one of a few."""
    kinds = {type(value) for value in values}
    info = api.HParamInfo(name=key, display_name=key)
    if kinds <= {int, float} and kinds:
        info.type = api.DATA_TYPE_FLOAT64
    elif kinds == {bool}:
        info.type = api.DATA_TYPE_BOOL
    else:
        info.type = api.DATA_TYPE_STRING
    distinct = list(dict.fromkeys(plain(value) if info.type == api.DATA_TYPE_STRING else value for value in values))
    if len(distinct) <= 20:
        info.domain_discrete.extend(sorted(distinct))
    return info


def fill(target: Any, value: Any) -> None:
    """Put a value into a protocol buffer's Value."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, (int, float)):
        target.number_value = value
    else:
        target.string_value = plain(value)
