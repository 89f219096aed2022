"""The workflow's own stream as a detour while the gateway is away.

The gateway's follower later appends these events to the session under their own publisher and sequence numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from temporalio.api.common.v1 import Payload

from wakeline.errors import WakelineError
from wakeline.events import IDENTITY_KEY, WirePayload
from wakeline.logs import get_logger
from wakeline.publisher.frames import Identity
from wakeline.retry import Backoff
from wakeline.streams.client import WorkflowStreamClient

if TYPE_CHECKING:
    from temporalio.client import Client

logger = get_logger(__name__)

# Each signal adds an event to the workflow's history, so a few large ones are better than many small ones.
_INTERVAL: Final = 0.2
_MOST: Final = 5000
_LEAVING_SECONDS: Final = 5.0


class _Body(msgspec.Struct):
    topic: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    payload: WirePayload | None = None
    key: str | None = None
    message: dict[str, Any] | None = None
    notify: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Body).decode


class Fallback:
    """Signals a workflow while the gateway is away.

    Args:
        client: The Temporal client.
        workflow_id: The workflow, which hosts a stream.
        identity: The publisher.
        max_retry: The longest time for which a signal is retried.
        coded: Whether the publisher's codec has already encoded the payloads.
    """

    needs_sequence = True
    max_batch = _MOST

    def __init__(
        self, client: Client, workflow_id: str, identity: Identity, max_retry: timedelta, *, coded: bool = False
    ) -> None:
        self.identity = identity
        self._coded = coded
        self._stream = WorkflowStreamClient.create(
            client, workflow_id, batch_interval=timedelta(seconds=_INTERVAL), max_retry_duration=max_retry
        )
        self._workflow_id = workflow_id
        self._entered = False
        self._last = float("-inf")
        self._polls = Backoff(0.2)
        self._taken = 0  # the sequence number after the last accepted event

    async def ready(self) -> None:
        """Wait until it is time for one more signal."""
        left = self._last + _INTERVAL - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    async def take(self, sequence: int | None, bodies: Sequence[bytes]) -> None:
        """Signal a batch, see `Detour.take`; Temporal stores it in the workflow's history."""
        assert sequence is not None
        self._polls.reset()
        self._taken = sequence
        if not self._entered:
            self._entered = True
            await self._stream.__aenter__()
        for at, body in enumerate(bodies):
            event = _decode(body)
            await self._stream.topic(event.topic).publish_wait(self._payload(event, sequence + at))
        await self._stream.flush()
        self._taken = sequence + len(bodies)
        self._last = asyncio.get_running_loop().time()

    async def settle(self, opened: int, expected: int | None) -> bool:
        """Return whether the follower has appended every event, see `Detour.settle`."""
        if opened >= (self._taken if expected is None else expected):
            return True
        await self._polls.wait()
        return False

    async def refused(self, error: WakelineError) -> Sequence[bytes]:
        """Return nothing: the follower appends what the workflow has, see `Detour.refused`."""
        return ()

    async def close(self) -> None:
        """Leave the stream."""
        if not self._entered:
            return
        self._entered = False
        try:
            async with asyncio.timeout(_LEAVING_SECONDS):
                await self._stream.__aexit__(None)
        except (TimeoutError, WakelineError) as error:
            # Each `take` that awaited its events has raised already; no caller awaits these.
            logger.warning("the stream of workflow %s was left early: %s", self._workflow_id, error)

    def _payload(self, event: _Body, sequence: int) -> Payload:
        if event.payload is None:
            payload = Payload(metadata={"encoding": b"json/plain"}, data=bytes(event.data))
        else:
            payload = Payload(metadata=event.payload.metadata, data=event.payload.data)
        encoded = self._coded and event.payload is not None
        payload.metadata[IDENTITY_KEY] = identity_json(
            self.identity, sequence, event.key, event.message, event.notify, encoded=encoded
        )
        return payload


def identity_json(
    identity: Identity,
    sequence: int,
    key: str | None,
    message: dict[str, Any] | None,
    notify: dict[str, Any] | None = None,
    *,
    encoded: bool = False,
) -> bytes:
    """Return the identity of one event, for the metadata of its payload.

    Args:
        identity: The publisher.
        sequence: The event's sequence number.
        key: Its key, if it has one.
        message: The growing message that it belongs to.
        notify: The notice for users.
        encoded: Whether a codec has encoded it already.

    Returns:
        A JSON object without the members that are None.
    """
    members = {
        "publisher": identity.publisher,
        "attempt": identity.attempt,
        "sequence": sequence,
        "run": identity.run,
        "activity": identity.activity,
        "supersede": identity.supersede,
        "key": key,
        "message": message,
        "notify": notify,
        "encoded": encoded or None,
    }
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None})
