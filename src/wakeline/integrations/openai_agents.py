"""The OpenAI Agents SDK in Temporal workflows: what the model says streams to the session while its activity runs.

    OpenAIAgentsPlugin(model_params=…, model_provider=SessionModelProvider())

Workflows stay as they are: they await whole responses, and replay them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from temporalio import activity

from wakeline.integrations.activity_session import current_session, has_session
from wakeline.integrations.extras import needs
from wakeline.integrations.openai import ResponsePublisher, Topics

with needs("openai-agents"):
    from agents import Model, ModelProvider, ModelResponse, OpenAIProvider, Usage
    from agents.items import TResponseStreamEvent
    from agents.models.fake_id import FAKE_RESPONSES_ID
    from openai import AsyncOpenAI

from wakeline.publisher import SessionPublisher

if TYPE_CHECKING:
    from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
    from openai.types.responses import Response

__all__ = ["SessionModel", "SessionModelProvider", "Topics"]


class SessionModelProvider(ModelProvider):
    """Gives models that stream to the session of the activity that calls them.

    Args:
        provider: Where the models come from; OpenAI's, without retries of its own, unless given: the activity is retried.
        topics: What is published, and where.
    """

    def __init__(self, provider: ModelProvider | None = None, *, topics: Topics | None = None) -> None:
        self._provider = provider
        self._topics = topics or Topics()

    def get_model(self, model_name: str | None) -> Model:
        """The model of a name, streaming."""
        if self._provider is None:
            self._provider = OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0))
        return SessionModel(self._provider.get_model(model_name), topics=self._topics)

    async def aclose(self) -> None:
        """Release what the provider of the models holds."""
        if self._provider is not None:
            await self._provider.aclose()


class SessionModel(Model):
    """A model that publishes what it says, as it says it, and gives back the whole response.

    Args:
        model: The model that is asked. It must be able to stream.
        topics: What is published, and where.
    """

    def __init__(self, model: Model, *, topics: Topics | None = None) -> None:
        self._model = model
        self._topics = topics or Topics()

    async def get_response(self, *args: Any, **more: Any) -> ModelResponse:
        """Ask the model for a stream, publish it, and give back what it came to."""
        async with _publisher() as session:
            publishing = ResponsePublisher(session, message=_message(), topics=self._topics)
            async for event in self._model.stream_response(*args, **more):
                await publishing.take(event)
        return _whole(publishing.response())

    async def stream_response(self, *args: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Publish the stream, and pass it on."""
        async with _publisher() as session:
            publishing = ResponsePublisher(session, message=_message(), topics=self._topics)
            async for event in self._model.stream_response(*args, **more):
                await publishing.take(event)
                yield event

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """What the model says of a request that failed."""
        return self._model.get_retry_advice(request)

    async def close(self) -> None:
        """Release what the model holds."""
        await self._model.close()


def _message() -> str:
    """An activity asks once; the name is the same in each attempt, and no other activity's."""
    info = activity.info()
    return f"{info.workflow_run_id}:{info.activity_id}"


@asynccontextmanager
async def _publisher() -> AsyncIterator[SessionPublisher]:
    """The activity's session, or one for this call where no `WakelinePlugin` gives it one."""
    if has_session():
        yield await current_session()
    else:
        async with SessionPublisher.from_within_activity() as session:
            yield session


def _whole(response: Response) -> ModelResponse:
    """The response as a model that does not stream would give it."""
    used = response.usage
    usage = Usage()
    if used is not None:
        usage = Usage(
            requests=1,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            total_tokens=used.total_tokens,
            input_tokens_details=used.input_tokens_details,
            output_tokens_details=used.output_tokens_details,
        )
    # Models that speak chat completions have no id to give.
    id = None if response.id == FAKE_RESPONSES_ID else response.id
    return ModelResponse(
        output=response.output, usage=usage, response_id=id, request_id=getattr(response, "_request_id", None)
    )
