"""Options of a publisher that follow from the current activity."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from temporalio import activity

from wakeline.events import publisher_of_activity
from wakeline.publisher.errors import PublisherMisusedError
from wakeline.publisher.values import Converter


@dataclass(frozen=True)
class Described:
    """The current activity, as its publisher needs it.

    Attributes:
        options: Arguments of `SessionPublisher`.
        context: The context in which `activity.heartbeat` may be called.
        heartbeat_details: The last details of the attempt before.
        is_first: Whether no other process can have published as this attempt before.
    """

    options: dict[str, Any]
    context: contextvars.Context
    heartbeat_details: Sequence[Any]
    is_first: bool


def described(session: str | None) -> Described:
    """Describe the current activity.

    Args:
        session: The session; the Workflow Id by default.

    Raises:
        PublisherMisusedError: No workflow scheduled the activity, and no session was given.
        RuntimeError: The caller is not an activity.
    """
    info = activity.info()
    name = session or info.workflow_id
    if name is None:
        raise PublisherMisusedError("expected an activity that a workflow scheduled, got one without: pass session='…'")
    options = {
        "session": name,
        "publisher": publisher_name(info),
        "attempt": info.attempt,
        "run": info.workflow_run_id or info.activity_run_id,
        "activity": info.activity_id,
        "workflow": info.workflow_id,
        "namespace": namespace_of(info),
        "data_converter": _converter(),
    }
    with suppress(RuntimeError):  # a `def` activity has no client
        options["temporal_client"] = activity.client()
    # When the worker of a local activity dies, the next worker runs it again under the same attempt.
    return Described(options, contextvars.copy_context(), info.heartbeat_details, is_first=not info.is_local)


def namespace_of(info: activity.Info) -> str | None:
    """Return the namespace of the workflow that scheduled an activity; None without a workflow."""
    return None if info.workflow_id is None else info.namespace


def publisher_name(info: activity.Info) -> str:
    """Return the name under which an activity publishes."""
    return publisher_of_activity(info.workflow_run_id or info.activity_run_id or "", info.activity_id)


def _converter() -> Converter:
    try:
        return activity.client().data_converter
    except RuntimeError:
        return activity.payload_converter()
