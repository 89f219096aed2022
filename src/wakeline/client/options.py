"""Keyword arguments as types, for methods that pass them on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypedDict

from wakeline.errors import WakelineError

if TYPE_CHECKING:
    from temporalio.converter import DataConverter, PayloadCodec


class ClientOptions(TypedDict, total=False):
    """Options of a client; `SessionClient` documents each."""

    data_converter: DataConverter | None
    codec: PayloadCodec | None
    silence: timedelta
    retry_timeout: timedelta


class Reading(TypedDict, total=False):
    """Arguments of `Session.view` and `Session.events`, which document each."""

    from_: str
    topics: str | Iterable[str] | None
    until: Literal["settled", "never"]
    wait_for_start: bool
    device: str | None
    on_lost: Callable[[WakelineError], None] | None
    on_resumed: Callable[[], None] | None


class PageReading(TypedDict, total=False):
    """Arguments of `Session.page`, which documents each."""

    before: str | None
    from_: str | None
    topics: str | Iterable[str] | None
    limit: int | None
    wait: float
    view: Literal["raw", "compact"]


class Sending(TypedDict, total=False):
    """Arguments of `Session.send`, which documents each."""

    kind: Literal["signal", "update", "cancel", "terminate", "start"]
    id: str | None
    run: str | None
    start: str | None
    device: str | None
    expect: int | None
    wait: timedelta | None
    on_lost: Callable[[WakelineError], None] | None


class Answer(TypedDict, total=False):
    """Arguments of `Session.answer`, which documents each."""

    status: Literal["resolved", "cancelled"]
    device: str | None
    digest: str | None
    expect: int | None
    on_lost: Callable[[WakelineError], None] | None


class ExactlyOnce(TypedDict, total=False):
    """Arguments that make an append idempotent; `Session.publish_many` documents each."""

    publisher: str | None
    attempt: int
    sequence: int | None


def reader_query(device: str | None, *, wait_for_start: bool) -> dict[str, str]:
    """Return the query parameters for a device and for waiting until a session starts."""
    return ({} if device is None else {"device": device}) | ({"wait_for_start": "true"} if wait_for_start else {})


def topics_query(topics: str | Iterable[str] | None) -> dict[str, str]:
    """Return the query parameter for topics; none for all topics."""
    if topics is None:
        return {}
    return {"topics": topics if isinstance(topics, str) else ",".join(topics)}
