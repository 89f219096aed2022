"""What a model and its tools do, as events: the same events, whichever library drives the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wakeline.publisher import Message, SessionPublisher


@dataclass(frozen=True, kw_only=True)
class Topics:
    """The topics that an integration publishes under; None for what is not to be told.

    Attributes:
        text: What the model says, as messages that grow; each says `complete` when it is.
        tools: What it calls, keyed by the call's id: `{"id", "name", "state", "arguments"?, "result"?, "error"?}`, `state`
            being `called`, `returned` or `failed`.
        steps: The nodes and chains of a graph, keyed by their run's id: `{"id", "name", "state", "error"?}`, `state` being
            `started`, `completed` or `failed`.
        usage: The tokens it took, keyed by what took them: `{"id", "model"?, "input_tokens", "output_tokens", "total_tokens"}`.
    """

    text: str = "answer"
    tools: str | None = "tool"
    steps: str | None = "step"
    usage: str | None = "usage"


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model calls.

    Attributes:
        id: The call's id.
        name: The tool's name.
        arguments: Its arguments: JSON as the model wrote it, or a value that stands for it.
    """

    id: str
    name: str
    arguments: Any = None


class ModelOutput:
    """Publishes to one session what models and tools do.

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
        """Add text to a message; an empty one adds nothing."""
        if not text:
            return
        if message not in self._open:
            self._open[message] = self._text.message(message)
            self._said[message] = []
        await self._open[message].append(text)
        self._said[message].append(text)

    async def complete(self, message: str, whole: str | None = None) -> None:
        """Say that a message is complete.

        Args:
            message: The message. One without text was none.
            whole: What it must be, where that is known: what is missing is added, and another text is put right, such as that of
                a model which began anew.
        """
        if message not in self._open:
            if not whole:
                return
            await self.say(message, whole)
        said = "".join(self._said.pop(message))
        await self._open.pop(message).complete(None if whole is None or whole == said else whole)

    async def call(self, call: ToolCall) -> None:
        """A tool is called."""
        told = {"id": call.id, "name": call.name, "state": "called", "arguments": presentable(call.arguments)}
        self._called[call.id] = told
        await self._tell_tool(told)

    async def settle(self, id: str, name: str, *, result: Any = None, error: Any = None) -> None:
        """A tool has returned, or has failed if there is an `error`.

        What was called is told again: the latest event of the call's key stands for all of them.
        """
        told = self._called.pop(id, {"id": id, "name": name})
        if error is None:
            await self._tell_tool({**told, "state": "returned", "result": presentable(result)})
        else:
            await self._tell_tool({**told, "state": "failed", "error": presentable(error)})

    async def step(self, id: str, name: str, state: str, *, error: str | None = None) -> None:
        """A node or chain has started, completed or failed."""
        if self._steps is not None:
            told = {"id": id, "name": name, "state": state}
            await self._steps.publish(told if error is None else {**told, "error": error}, key=id)

    async def used(
        self, id: str, *, model: str | None = None, input: int, output: int, total: int | None = None
    ) -> None:
        """What was used is known."""
        if self._usage is not None:
            total = input + output if total is None else total
            told: dict[str, Any] = {"id": id, "input_tokens": input, "output_tokens": output, "total_tokens": total}
            await self._usage.publish({**told, "model": model} if model else told, key=id)

    async def _tell_tool(self, told: dict[str, Any]) -> None:
        if self._tools is not None:
            await self._tools.publish(told, key=told["id"])


def presentable(value: Any) -> Any:
    """A value as JSON can say it. A tool may take and return anything, and what cannot be shown must not fail its run."""
    # All libraries that are joined here bring pydantic; the base install does not have it.
    from pydantic_core import to_jsonable_python

    if isinstance(value, str):
        return _parsed(value)
    return to_jsonable_python(value, fallback=str, bytes_mode="base64", inf_nan_mode="null")


def _parsed(text: str) -> Any:
    """JSON in a string, as arguments and results of tools are passed; other text as it is."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except ValueError:
        return text
