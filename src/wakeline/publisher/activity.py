"""What the current activity says about who publishes."""

from __future__ import annotations

import contextvars
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from temporalio import activity

from wakeline.publisher.errors import PublisherMisusedError
from wakeline.publisher.values import Converter

_LONGEST_ID: Final = 180


@dataclass(frozen=True)
class Described:
    """An activity, as its publisher needs it.

    Attributes:
        options: For the constructor.
        context: Where `activity.heartbeat` may be called.
        heartbeat_details: Those of the attempt before.
    """

    options: dict[str, Any]
    context: contextvars.Context
    heartbeat_details: Sequence[Any]


def described(session: str | None) -> Described:
    """The current activity.

    Args:
        session: The session; the Workflow Id where it is None.

    Raises:
        PublisherMisusedError: There is neither.
        RuntimeError: This is not an activity.
    """
    info = activity.info()
    name = session or info.workflow_id
    if name is None:
        raise PublisherMisusedError("expected an activity that a workflow scheduled, or session='…'")
    options = {
        "session": name,
        "publisher": publisher_name(info),
        "attempt": info.attempt,
        "run": info.workflow_run_id,
        "activity": info.activity_id,
        "workflow": info.workflow_id,
        "namespace": namespace_of(info),
        "data_converter": _converter(),
    }
    with suppress(RuntimeError):  # a `def` activity has none
        options["temporal_client"] = activity.client()
    return Described(options, contextvars.copy_context(), info.heartbeat_details)


def namespace_of(info: activity.Info) -> str | None:
    """The namespace of the workflow that scheduled an activity; None if none did."""
    return None if info.workflow_id is None else info.namespace


def publisher_name(info: activity.Info) -> str:
    """A name for an activity that no other has: ids of activities count from 1 in every run.

    An id may be anything; a publisher's name is short, and printable ASCII.
    """
    run, its = info.workflow_run_id or info.activity_run_id, info.activity_id
    if not (its.isascii() and its.isprintable() and len(its) <= _LONGEST_ID):
        its = hashlib.sha256(its.encode()).hexdigest()
    return f"{run}:{its}"


def _converter() -> Converter:
    try:
        return activity.client().data_converter
    except RuntimeError:
        return activity.payload_converter()
