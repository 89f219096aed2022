"""Publishing from threads that have no event loop, such as activities that are `def` functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from wakeline.streams.topics import TopicHandle

if TYPE_CHECKING:
    from wakeline.streams.client import WorkflowStreamClient

T = TypeVar("T")


class SyncWorkflowStreamClient:
    """Publishes to the stream of one workflow, from any number of threads.

        with SyncWorkflowStreamClient(WorkflowStreamClient.create(temporal, "order-1")) as stream:
            stream.topic("status", type=Status).publish(Status("paid"))

    Sends in a thread of its own, which all such clients of the process share. Leaving the block sends all that is
    buffered and waits until the server has it.
    """

    def __init__(self, client: WorkflowStreamClient) -> None:
        """Wrap a client; `WorkflowStreamClient.from_within_activity_sync` makes one for an activity.

        Args:
            client: What to publish with; from here on for this object alone to enter.
        """
        self._client = client

    def __enter__(self) -> Self:
        """Begin to send in the background."""
        _call(self._client.__aenter__())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Send what is buffered, then stop.

        Raises:
            PublishDroppedError: Events were given up, and no other error is on its way.
        """
        _call(self._client.__aexit__(kind))

    @overload
    def topic(self, name: str) -> TopicHandle[Any]: ...
    @overload
    def topic(self, name: str, *, type: type[T]) -> TopicHandle[T]: ...

    def topic(self, name: str, *, type: type[T] | None = None) -> TopicHandle[T] | TopicHandle[Any]:
        """A handle whose `publish` may be called from any thread; see `WorkflowStreamClient.topic`."""
        return self._client.topic(name) if type is None else self._client.topic(name, type=type)

    def flush(self) -> None:
        """Send what was published until now and wait until the server has it; see `WorkflowStreamClient.flush`.

        Raises:
            PublishDroppedError: Events were given up since the last report.
        """
        _call(self._client.flush())


_loop: asyncio.AbstractEventLoop | None = None
_starting = threading.Lock()


def _call(work: Coroutine[Any, Any, T]) -> T:
    """Have the sending thread do something, and wait for it."""
    return asyncio.run_coroutine_threadsafe(work, _sending_loop()).result()


def _sending_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="wakeline-streams", daemon=True).start()
        return _loop
