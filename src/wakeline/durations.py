"""The check of durations that a program passes."""

from __future__ import annotations

from datetime import timedelta


def seconds_of(duration: timedelta, name: str) -> float:
    """Return a duration in seconds.

    Args:
        duration: The duration.
        name: The argument that it was passed as.

    Raises:
        TypeError: It is no timedelta, but a number, for example.
    """
    if not isinstance(duration, timedelta):  # a program without a type checker passes seconds
        raise TypeError(f"expected {name} to be a timedelta, such as timedelta(seconds=5), got {duration!r}")
    return duration.total_seconds()
