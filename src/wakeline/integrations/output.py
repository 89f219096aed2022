"""The output of models and their tools as events, equal for all libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from wakeline.errors import EventTooLargeError
from wakeline.errors.publishing import ValueRefusedError
from wakeline.events import MAX_KEY_BYTES
from wakeline.presentable import presentable, said
from wakeline.text import whole

if TYPE_CHECKING:
    from wakeline.publisher import Message, SessionPublisher, Topic

_LONGEST_PIECE: Final = 150_000  # characters; as JSON each is six bytes at the most, and an event 1 MiB
_FREE: Final = frozenset({"arguments", "result", "error"})
"""The members of an event whose values and sizes are not bounded."""


@dataclass(frozen=True, kw_only=True)
class Topics:
    """The topics under which an integration publishes; None for output that is not published.

    Attributes:
        text: The model's text, as messages that grow and are marked as complete.
        tools: The tools that it calls, keyed by the call's id: `{"id", "name", "state", "arguments"?, "result"?,
            "error"?}` with the `state` `called`, `returned` or `failed`.
        steps: The nodes and chains of a graph, keyed by their run's id: `{"id", "name", "state", "error"?}` with the
            `state` `started`, `completed` or `failed`.
        usage: The used tokens, keyed by the id of their user: `{"id", "model"?, "input_tokens", "output_tokens",
            "total_tokens"}`.
    """

    text: str = "answer"
    tools: str | None = "tool"
    steps: str | None = "step"
    usage: str | None = "usage"


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool by the model.

    Attributes:
        id: The call's id.
        name: The tool's name.
        arguments: Its arguments: JSON as the model wrote it, or a value.
    """

    id: str
    name: str
    arguments: Any = None


class ModelOutput:
    """Publishes the output of models and tools to one session.

    Args:
        session: The session's publisher.
        topics: What is published, and where.
    """

    def __init__(self, session: SessionPublisher, topics: Topics) -> None:
        self._text = session.topic(topics.text, append="text")
        self._tools = None if topics.tools is None else session.topic(topics.tools, keyed=True)
        self._steps = None if topics.steps is None else session.topic(topics.steps, keyed=True)
        self._usage = None if topics.usage is None else session.topic(topics.usage, keyed=True)
        self._open: dict[str, Message[Any]] = {}
        self._said: dict[str, list[str]] = {}
        self._called: dict[str, dict[str, Any]] = {}

    async def say(self, message: str, text: str) -> None:
        """Append text to a message; an empty text appends nothing."""
        if not text:
            return
        if message not in self._open:
            self._open[message] = self._text.message(_named(message))
            self._said[message] = []
        for start in range(0, len(text), _LONGEST_PIECE):
            await self._open[message].append(text[start : start + _LONGEST_PIECE])
        self._said[message].append(text)

    async def complete(self, message: str, final: str | None = None) -> None:
        """Mark a message as complete; a message without text is not published.

        Args:
            message: The message's id.
            final: Its final text, if known. Missing text is appended; if the published text differs otherwise, for example
                because the model restarted, it is replaced.
        """
        if message not in self._open:
            if not final:
                return
            await self.say(message, final)
        before, growing = "".join(self._said.pop(message)), self._open.pop(message)
        if final is not None and whole(final) != whole(before):
            # If the whole text is too large for an event, the pieces so far stay as they are.
            with suppress(EventTooLargeError):
                await growing.complete(final)
                return
        await growing.complete()

    async def call(self, call: ToolCall) -> None:
        """Publish that a tool is called."""
        event = {"id": call.id, "name": call.name, "state": "called", "arguments": shown(call.arguments)}
        self._called[call.id] = event
        await self._publish_tool(event)

    async def settle(self, id: str, name: str, *, result: Any = None, error: Any = None) -> None:
        """Publish that a tool has returned, or has failed if there is an `error`.

        The event repeats the call, because the latest event with the call's key replaces the earlier ones.
        """
        event = self._called.pop(id, {"id": id, "name": name})
        if error is None:
            await self._publish_tool({**event, "state": "returned", "result": shown(result)})
        else:
            await self._publish_tool({**event, "state": "failed", "error": shown(error)})

    async def step(self, id: str, name: str, state: str, *, error: str | None = None) -> None:
        """Publish that a node or chain has started, completed or failed."""
        if self._steps is not None:
            event = {"id": id, "name": name, "state": state}
            await _publish(self._steps, event if error is None else {**event, "error": error})

    async def used(
        self, id: str, *, model: str | None = None, input: int, output: int, total: int | None = None
    ) -> None:
        """Publish the number of used tokens."""
        if self._usage is not None:
            total = input + output if total is None else total
            event: dict[str, Any] = {"id": id, "input_tokens": input, "output_tokens": output, "total_tokens": total}
            await _publish(self._usage, {**event, "model": model} if model else event)

    async def _publish_tool(self, event: dict[str, Any]) -> None:
        if self._tools is not None:
            await _publish(self._tools, event)


async def _publish(topic: Topic[Any], event: dict[str, Any]) -> None:
    """Publish an event under its id; a value that cannot be published is replaced by a note."""
    try:
        await topic.publish(event, key=_named(event["id"]))
    except (EventTooLargeError, ValueRefusedError) as error:
        stand_in = "… (too large)" if isinstance(error, EventTooLargeError) else "… (cannot be shown)"
        shortened = {name: stand_in if name in _FREE else value for name, value in event.items()}
        await topic.publish(shortened, key=_named(event["id"]))


def shown(value: Any) -> Any:
    """Return a JSON value for anything that a tool accepts or returns."""
    return presentable(_parsed(value) if isinstance(value, str) else value, _read)


def _read(value: Any) -> Any:
    # Every integrated library depends on pydantic; the base install does not.
    from pydantic_core import to_jsonable_python

    if isinstance(value, Iterator):
        return said(value)  # an iterator is not read: its items belong to its consumer
    return to_jsonable_python(value, fallback=said, bytes_mode="base64", inf_nan_mode="null")


def _parsed(text: str) -> Any:
    """Decode JSON in a string, such as a tool's arguments; return other text unchanged."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return text


def _named(name: str) -> str:
    """Return a valid message id or key for a name; the same for the same name."""
    text = whole(name) or "unnamed"
    if len(text.encode()) <= MAX_KEY_BYTES:
        return text
    return f"{text[:32]}…{sha256(text.encode()).hexdigest()}"
