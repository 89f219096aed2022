"""LangChain and LangGraph, published as they run, by a callback handler.

await graph.ainvoke(input, {"callbacks": [SessionCallbackHandler(session)]})
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

from wakeline.integrations.activity_session import current_session
from wakeline.integrations.extras import needs
from wakeline.integrations.output import ModelOutput, ToolCall, Topics

with needs("langchain"):
    from langchain_core.callbacks import AsyncCallbackHandler
    from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
    from langchain_core.outputs import ChatGeneration, LLMResult

from wakeline.presentable import said

if TYPE_CHECKING:
    from wakeline.publisher import SessionPublisher

__all__ = ["SessionCallbackHandler", "Topics"]

# LangGraph's tag of its internal runs, which are no nodes of the graph.
_HIDDEN = "langsmith:hidden"


class SessionCallbackHandler(AsyncCallbackHandler):
    """Publishes tokens, tools, nodes, chains and usage of a run.

    It is for `ainvoke`, `astream` and the like, not for `invoke`. Tokens require a model that streams:
    `ChatOpenAI(streaming=True)`, or a graph that is read with `stream_mode="messages"`. The text of a model that does not
    stream is published as a whole.

    Args:
        session: The publisher of the session; default that of the running activity, which requires a `WakelinePlugin`.
        message: The id of the message that grows, for a chain that calls a model once; default the id of the model's run.
        topics: What is published, and where.
    """

    # Callbacks run in order with the run and fail it if they cannot publish: a superseded attempt must not continue.
    run_inline = True
    raise_error = True

    def __init__(
        self, session: SessionPublisher | None = None, *, message: str | None = None, topics: Topics | None = None
    ) -> None:
        self._session = session
        self._message = message
        self._topics = topics or Topics()
        self._output: ModelOutput | None = None
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # made before the loop runs: bound by the first callback
        self._steps: dict[UUID, str] = {}
        self._tools: dict[UUID, tuple[str, str]] = {}

    async def _publishing(self) -> ModelOutput:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError("expected one event loop, got another: use ainvoke or astream, not invoke or stream")
        if self._output is None:
            return self._begun(self._session or await current_session())
        return self._output

    def _begun(self, session: SessionPublisher) -> ModelOutput:
        # Concurrent runs share one output: another run may have created it while this one opened the session.
        if self._output is None:
            self._output = ModelOutput(session, self._topics)
        return self._output

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **more: Any
    ) -> None:
        """Ignore the start of a model, for which the base class would raise an error."""

    async def on_llm_new_token(self, token: str | list[str | dict[str, Any]], *, run_id: UUID, **more: Any) -> None:
        """Append to the message."""
        output = await self._publishing()
        await output.say(self._message or str(run_id), _text(token))

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **more: Any) -> None:
        """Complete the message, and publish the usage."""
        output = await self._publishing()
        name = self._message or str(run_id)
        if not response.generations or not response.generations[0]:
            return
        generation = response.generations[0][0]
        await output.complete(name, generation.text)
        answer = generation.message if isinstance(generation, ChatGeneration) else None
        if isinstance(answer, AIMessage) and (usage := answer.usage_metadata) is not None:
            await output.used(
                str(run_id),
                model=answer.response_metadata.get("model_name"),
                input=usage["input_tokens"],
                output=usage["output_tokens"],
                total=usage["total_tokens"],
            )

    async def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Publish that a tool is called."""
        name = more.get("name") or (serialized or {}).get("name") or "tool"
        id = more.get("tool_call_id") or str(run_id)
        self._tools[run_id] = (id, name)
        await (await self._publishing()).call(ToolCall(id, name, input_str if inputs is None else inputs))

    async def on_tool_end(self, output: Any, *, run_id: UUID, **more: Any) -> None:
        """Publish that a tool has returned, or that its message reports an error."""
        id, name = self._tools.pop(run_id, (str(run_id), "tool"))
        publishing = await self._publishing()
        if isinstance(output, ToolMessage) and output.status == "error":
            await publishing.settle(id, name, error=output.content)
        else:
            await publishing.settle(id, name, result=output.content if isinstance(output, ToolMessage) else output)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        """Publish that a tool has failed."""
        id, name = self._tools.pop(run_id, (str(run_id), "tool"))
        await (await self._publishing()).settle(id, name, error=_reason(error))

    async def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Publish that a node or chain has started; runs inside a node are not published."""
        name = more.get("name") or (serialized or {}).get("name") or "chain"
        node = (metadata or {}).get("langgraph_node")
        if _HIDDEN in (tags or ()) or (node is not None and node != name):
            return
        self._steps[run_id] = name
        await (await self._publishing()).step(str(run_id), name, "started")

    async def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **more: Any) -> None:
        """Publish that a node or chain has completed."""
        if (name := self._steps.pop(run_id, None)) is not None:
            await (await self._publishing()).step(str(run_id), name, "completed")

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        """Publish that a node or chain has failed."""
        if (name := self._steps.pop(run_id, None)) is not None:
            await (await self._publishing()).step(str(run_id), name, "failed", error=_reason(error))


def _text(token: str | list[str | dict[str, Any]]) -> str:
    """Return the text of a token; some models send a list of content blocks."""
    if isinstance(token, str):
        return token
    return "".join(block if isinstance(block, str) else said(block.get("text", "")) for block in token)


def _reason(error: BaseException) -> str:
    return said(error) or type(error).__name__
