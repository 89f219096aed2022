"""Keyword arguments as types, for methods that pass them on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypedDict

from wakeline.buffer import WhenFull
from wakeline.streams.errors import PublishDroppedError
from wakeline.streams.flushed import OnFlushed
from wakeline.streams.notices import StreamEnd, StreamGap


class Buffering(TypedDict, total=False):
    """Arguments of a client beside the official ones, see `WorkflowStreamClient`."""

    on_dropped: Callable[[PublishDroppedError], None] | None
    on_flushed: OnFlushed | None
    max_buffered_items: int | None
    max_buffered_bytes: int | None
    when_full: WhenFull


class Publishing(Buffering, total=False):
    """All arguments of a client that publishes, see `WorkflowStreamClient`."""

    batch_interval: timedelta
    max_batch_size: int | None
    max_retry_duration: timedelta


class Notices(TypedDict, total=False):
    """Arguments of `subscribe` beside the official ones, see `WorkflowStreamClient.subscribe`."""

    retry_timeout: timedelta | None
    on_end: Callable[[StreamEnd], None] | None
    on_gap: Callable[[StreamGap], None] | None


class Reading(Notices, total=False):
    """All arguments of `subscribe` about how to read, see `WorkflowStreamClient.subscribe`."""

    poll_cooldown: timedelta
