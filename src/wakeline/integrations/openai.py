"""Streams of OpenAI's API, published as they arrive.

Any endpoint that implements chat completions or responses will do.

    stream = await client.chat.completions.create(..., stream=True, stream_options={"include_usage": True})
    answer = await publish_chat(stream, session)

    stream = await client.responses.create(..., stream=True)
    response = await publish_response(stream, session)
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wakeline.integrations.extras import needs
from wakeline.integrations.output import ModelOutput, ToolCall, Topics
from wakeline.text import whole

with needs("openai"):
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import Choice
    from openai.types.responses import Response, ResponseFunctionToolCall, ResponseOutputItem, ResponseStreamEvent

if TYPE_CHECKING:
    from wakeline.publisher import SessionPublisher

__all__ = [
    "ChatAnswer",
    "ModelFailedError",
    "ResponsePublisher",
    "ToolCall",
    "Topics",
    "publish_chat",
    "publish_response",
]


class ModelFailedError(RuntimeError):
    """The model reported a failure, or its stream ended early.

    Attributes:
        code: The code of the failure, if it has one.
        response: The response so far, if there is one.
    """

    def __init__(self, message: str, *, code: str | None = None, response: Response | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.response = response


@dataclass
class ChatAnswer:
    """The result of a chat completion.

    Attributes:
        id: The completion's id.
        model: The model that answered.
        text: The text of the first choice, a refusal included.
        tool_calls: The tools that the first choice calls, with their arguments as the model wrote them.
        finish_reason: Why the first choice ended; None if the endpoint did not report it.
        usage: The used tokens, if the request asked for them (`stream_options={"include_usage": True}`).
    """

    id: str = ""
    model: str = ""
    text: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str | None = None
    usage: CompletionUsage | None = None


async def publish_chat(
    stream: AsyncIterable[ChatCompletionChunk],
    session: SessionPublisher,
    *,
    message: str | None = None,
    topics: Topics | None = None,
) -> ChatAnswer:
    """Publish a stream of chat completions and return its result.

    Args:
        stream: The stream of `chat.completions.create(stream=True)`; always closed afterwards.
        session: The publisher of the session.
        message: The id of the message that grows; default the completion's id. Further choices append a dot and their
            number to it.
        topics: What is published, and where.
    """
    publishing = _ChatPublisher(ModelOutput(session, topics or Topics()), message)
    async with _closing(stream):
        async for chunk in stream:
            await publishing.take(chunk)
    return await publishing.finish()


class _ChatPublisher:
    """Publishes the chunks of one chat completion."""

    def __init__(self, output: ModelOutput, message: str | None) -> None:
        self._output = output
        self._message = message
        self._calls: dict[tuple[int, int], dict[str, str]] = {}
        self._choices: set[int] = set()
        self.answer = ChatAnswer()

    async def take(self, chunk: ChatCompletionChunk) -> None:
        answer = self.answer
        answer.id = answer.id or chunk.id
        answer.model = chunk.model or answer.model
        answer.usage = chunk.usage or answer.usage
        for choice in chunk.choices:
            await self._take_choice(choice)

    async def _take_choice(self, choice: Choice) -> None:
        self._choices.add(choice.index)
        said = (choice.delta.content or "") + (choice.delta.refusal or "")
        await self._output.say(self._name(choice.index), said)
        for part in choice.delta.tool_calls or ():
            call = self._calls.setdefault((choice.index, part.index), {"id": "", "name": "", "arguments": ""})
            call["id"] += part.id or ""
            if part.function is not None:
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
        if choice.index == 0:
            self.answer.text += said
            self.answer.finish_reason = choice.finish_reason or self.answer.finish_reason

    def _name(self, index: int) -> str:
        if self._message is None:
            # Some compatible endpoints give no id.
            self._message = self.answer.id or f"chat-{uuid.uuid4().hex}"
        return self._message if index == 0 else f"{self._message}.{index}"

    async def finish(self) -> ChatAnswer:
        answer = self.answer
        answer.text = whole(answer.text)  # an activity's result cannot encode half a surrogate pair
        for index in sorted(self._choices):
            await self._output.complete(self._name(index))
        for (choice, number), parts in sorted(self._calls.items()):
            call = ToolCall(
                parts["id"] or f"{self._name(choice)}.call{number}", parts["name"], whole(parts["arguments"])
            )
            await self._output.call(call)
            if choice == 0:
                answer.tool_calls.append(call)
        if (usage := answer.usage) is not None:
            await self._output.used(
                self._name(0),
                model=answer.model,
                input=usage.prompt_tokens,
                output=usage.completion_tokens,
                total=usage.total_tokens,
            )
        return answer


async def publish_response(
    stream: AsyncIterable[ResponseStreamEvent],
    session: SessionPublisher,
    *,
    message: str | None = None,
    topics: Topics | None = None,
) -> Response:
    """Publish a stream of the Responses API and return the whole response.

    Args:
        stream: The stream of `responses.create(stream=True)`; always closed afterwards.
        session: The publisher of the session.
        message: The id of the message that grows; default that of the output item. Further output messages append a dot
            and their number to it.
        topics: What is published, and where.

    Raises:
        ModelFailedError: The model failed, or the stream ended before the response was complete. The message stays
            incomplete.
    """
    publishing = ResponsePublisher(session, message=message, topics=topics)
    async with _closing(stream):
        async for event in stream:
            await publishing.take(event)
    return publishing.response()


class ResponsePublisher:
    """Publishes the events of one response that do not come from a stream of OpenAI's client.

    Args:
        session: The publisher of the session.
        message: See `publish_response`.
        topics: See `publish_response`.
    """

    def __init__(self, session: SessionPublisher, *, message: str | None = None, topics: Topics | None = None) -> None:
        self._output = ModelOutput(session, topics or Topics())
        self._message = message
        self._names: dict[str, str] = {}
        self._response: Response | None = None

    async def take(self, event: ResponseStreamEvent) -> None:
        """Publish an event.

        Raises:
            ModelFailedError: The event reports that the model failed.
        """
        if event.type == "response.output_text.delta" or event.type == "response.refusal.delta":
            await self._output.say(self._name(event.item_id), event.delta)
        elif event.type == "response.output_item.done":
            await self._take_item(event.item)
        elif event.type == "response.completed" or event.type == "response.incomplete":
            await self._end(event.response)
        elif event.type == "response.failed":
            error = event.response.error
            raise ModelFailedError(
                error.message if error else "the model failed without a reason",
                code=error.code if error else None,
                response=event.response,
            )
        elif event.type == "error":
            raise ModelFailedError(event.message, code=event.code)

    def response(self) -> Response:
        """Return the whole response, after its last event.

        Raises:
            ModelFailedError: The last event has not arrived.
        """
        if self._response is None:
            raise ModelFailedError("expected the stream to end with a complete response, got its end before that")
        return self._response

    def _name(self, item: str) -> str:
        """Return the id of an output item's message."""
        if item not in self._names:
            number = len(self._names)
            given = self._message
            self._names[item] = item if given is None else given if number == 0 else f"{given}.{number}"
        return self._names[item]

    async def _take_item(self, item: ResponseOutputItem) -> None:
        if item.type == "message":
            await self._output.complete(self._name(item.id))
        elif isinstance(item, ResponseFunctionToolCall):
            await self._output.call(ToolCall(item.call_id, item.name, item.arguments))
        elif item.type == "custom_tool_call":
            await self._output.call(ToolCall(item.call_id, item.name, item.input))
        elif item.type.endswith("_call") and (id := getattr(item, "id", None)) is not None:
            # A tool that the endpoint itself ran, such as a search, is reported once, when it has returned.
            await self._output.settle(id, item.type.removesuffix("_call"))

    async def _end(self, response: Response) -> None:
        self._response = response
        for name in self._names.values():
            await self._output.complete(name)
        if (usage := response.usage) is not None:
            await self._output.used(
                response.id,
                model=response.model,
                input=usage.input_tokens,
                output=usage.output_tokens,
                total=usage.total_tokens,
            )


@asynccontextmanager
async def _closing(stream: AsyncIterable[Any]) -> AsyncIterator[None]:
    """Close a stream at the end.

    A model whose stream is not read any more continues, and costs, until its connection is closed.
    """
    try:
        yield
    finally:
        close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
        if close is not None:
            await close()
