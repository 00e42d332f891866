"""MLflow: one MLflow run a qfed run, in the experiment "qfed", found again by its tag qfed.run.

    URI   a tracking server, or sqlite:///FILE for a database on this machine

MLflow's own telemetry is switched off before it is loaded: the aggregator phones nobody.
Errors  MissingExtra without mlflow-skinny (`pip install 'qfed[mlflow]'`); ConfigError for a store that does not answer
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qfed.config import to_tree
from qfed.errors import ConfigError, MissingExtra
from qfed_server.dashboard.runs import Run
from qfed_server.sinks import Point

EXPERIMENT, TAG = "qfed", "qfed.run"
_BATCH = 1000  # MLflow's limit of metrics a call
_PARAMETERS = 100
_LONGEST = 500
_ENDS = {"completed": "FINISHED", "stopped": "KILLED"}


class MLflow:
    """A Sink."""

    name = "mlflow"

    def __init__(self, uri: str) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["DO_NOT_TRACK"] = "true"
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise MissingExtra("mlflow-skinny", "mlflow") from error
        self._metric, self._param = Metric, Param
        try:
            self._client = MlflowClient(uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
        except MlflowException as error:
            raise ConfigError(f"uri={uri!r} is no MLflow store that answers ({error})") from None

    def begin(self, run: Run) -> None:
        """An MLflow run with the configuration as parameters."""
        if self._find(run) is not None:
            return
        made = self._client.create_run(
            self._experiment,
            start_time=round(1000 * run.began),
            tags={TAG: run.name, "mlflow.runName": run.title},
        )
        flat = [self._param(key, str(value)[:_LONGEST]) for key, value in _flat(to_tree(run.config))]
        for at in range(0, len(flat), _PARAMETERS):
            self._client.log_batch(made.info.run_id, params=flat[at : at + _PARAMETERS])

    def put(self, run: Run, points: Sequence[Point]) -> None:
        """Metrics."""
        identifier = self._known(run)
        metrics = [self._metric(p.series, float(p.value), round(1000 * p.t), p.round) for p in points]
        for at in range(0, len(metrics), _BATCH):
            self._client.log_batch(identifier, metrics=metrics[at : at + _BATCH])

    def end(self, run: Run) -> None:
        """How it ended."""
        identifier = self._known(run)
        if run.why is not None:
            self._client.set_tag(identifier, "qfed.why", run.why[:_LONGEST])
        ended = round(1000 * (run.ended or run.changed))
        self._client.set_terminated(identifier, _ENDS.get(run.status, "FAILED"), ended)

    def _find(self, run: Run) -> str | None:
        found = self._client.search_runs([self._experiment], f"tags.`{TAG}` = '{run.name}'", max_results=1)
        return found[0].info.run_id if found else None

    def _known(self, run: Run) -> str:
        identifier = self._find(run)
        if identifier is None:
            raise ConfigError(
                f"the MLflow run with tag {TAG}={run.name} is gone; remove tracked-{self.name}.json for a new one"
            )
        return identifier


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
