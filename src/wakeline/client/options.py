"""Keyword arguments as types, for methods that pass them on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypedDict

from wakeline.errors import WakelineError

if TYPE_CHECKING:
    from temporalio.converter import DataConverter, PayloadCodec


class ClientOptions(TypedDict, total=False):
    """Options of a client; `SessionClient` tells what each means."""

    data_converter: DataConverter | None
    codec: PayloadCodec | None
    silence: timedelta
    retry_timeout: timedelta


class Reading(TypedDict, total=False):
    """How to read events; `Session.events` tells what each means."""

    from_: str
    topics: str | Iterable[str] | None
    until: Literal["settled", "never"]
    wait_for_start: bool
    device: str | None
    on_lost: Callable[[WakelineError], None] | None
    on_resumed: Callable[[], None] | None


class Viewing(TypedDict, total=False):
    """How to view a session; `Session.view` tells what each means."""

    topics: str | Iterable[str] | None
    until: Literal["settled", "never"]
    wait_for_start: bool
    device: str | None
    on_lost: Callable[[WakelineError], None] | None
    on_resumed: Callable[[], None] | None


class PageReading(TypedDict, total=False):
    """How to read a page; `Session.page` tells what each means."""

    before: str | None
    from_: str | None
    topics: str | Iterable[str] | None
    limit: int | None
    wait: float
    view: Literal["raw", "compact"]


class ExactlyOnce(TypedDict, total=False):
    """What makes an append idempotent; `Session.publish_many` tells what each means."""

    publisher: str | None
    attempt: int
    sequence: int | None
