"""From points to the bytes of an event file, by TensorBoard's own code.

Apart from the rest: importing it takes half a second, for which no start of a run should wait.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from llmtrain_trainer.tracking.points import Point

_VERSION = "brain.Event:2"
"""What an event file begins with, so that TensorBoard looks for `SessionLog`."""


def head(seconds: float, forget_from: int | None) -> bytes:
    """Returns what a new file begins with.

    Args:
        seconds: The time, in seconds since 1970.
        forget_from: The step from which on what earlier files say is forgotten; none for no step.
    """
    events = [Event(wall_time=seconds, file_version=_VERSION)]
    if forget_from is not None:
        log = SessionLog(status=SessionLog.START)
        events.append(Event(wall_time=seconds, step=forget_from, session_log=log))
    return _encode(events)


def body(points: Sequence[Point]) -> bytes:
    """Returns the points."""
    return _encode(_event_of(point) for point in points)


def _event_of(point: Point) -> Event:
    summary = Summary()
    for name, value in point.values.items():
        summary.value.add(tag=name, simple_value=value)
    return Event(wall_time=point.seconds, step=point.step, summary=summary)


def _encode(events: Iterable[Event]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
