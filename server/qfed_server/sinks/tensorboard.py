"""TensorBoard: one folder a run, written by TensorBoard's own writer, without torch and without TensorFlow.

    LOGDIR/NAME-RUN/   events file; `tensorboard --logdir LOGDIR` shows it

Errors  MissingExtra without tensorboard (`pip install 'qfed[tensorboard]'`)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qfed.config import to_toml
from qfed.errors import MissingExtra
from qfed_server.dashboard.runs import Run
from qfed_server.sinks import Point


class TensorBoard:
    """A Sink."""

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.plugins.text.summary_v2 import text_pb
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard") from error
        self._folder = folder
        self._event, self._summary, self._text = event_pb2.Event, summary_pb2.Summary, text_pb
        self._writer, self._open = EventFileWriter, dict[str, Any]()

    def begin(self, run: Run) -> None:
        """The configuration as text."""
        toml = "\n".join("    " + line for line in to_toml(run.config).splitlines())
        summary = self._text("config", toml)
        self._write(run, [self._event(wall_time=run.began, step=0, summary=summary)])

    def put(self, run: Run, points: Sequence[Point]) -> None:
        """Scalars."""
        value = self._summary.Value
        self._write(
            run,
            [
                self._event(
                    wall_time=point.t,
                    step=point.round,
                    summary=self._summary(value=[value(tag=point.series, simple_value=point.value)]),
                )
                for point in points
            ],
        )

    def end(self, run: Run) -> None:
        """How it ended, as text."""
        told = run.status if run.why is None else f"{run.status}: {run.why}"
        t = run.ended or run.changed
        self._write(run, [self._event(wall_time=t, step=run.done, summary=self._text("end", told))])
        self._open.pop(run.name).close()

    def _write(self, run: Run, events: Sequence[object]) -> None:
        if run.name not in self._open:
            title = re.sub(r"[^\w.-]+", "-", run.title)[:60]
            self._open[run.name] = self._writer(str(self._folder / f"{title}-{run.name}"))
        for event in events:
            self._open[run.name].add_event(event)
        self._open[run.name].flush()
