"""The OpenAI Agents SDK in Temporal workflows, streaming to the session.

    OpenAIAgentsPlugin(model_params=…, model_provider=SessionModelProvider())

Models publish while their activity runs. Workflows are unchanged: they await whole responses, and replay them.
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
    """Provides models that stream to the session of the activity that calls them.

    Args:
        provider: The provider of the models; default OpenAI's without retries, because the activity is retried.
        topics: What is published, and where.
    """

    def __init__(self, provider: ModelProvider | None = None, *, topics: Topics | None = None) -> None:
        self._provider = provider
        self._topics = topics or Topics()

    def get_model(self, model_name: str | None) -> Model:
        """Return the model with a name, streaming to the session."""
        if self._provider is None:
            self._provider = OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0))
        return SessionModel(self._provider.get_model(model_name), topics=self._topics)

    async def aclose(self) -> None:
        """Release the resources of the models' provider."""
        if self._provider is not None:
            await self._provider.aclose()


class SessionModel(Model):
    """A model that publishes its output as it arrives, and returns the whole response.

    Args:
        model: The model that is called. It must be able to stream.
        topics: What is published, and where.
    """

    def __init__(self, model: Model, *, topics: Topics | None = None) -> None:
        self._model = model
        self._topics = topics or Topics()

    async def get_response(self, *args: Any, **more: Any) -> ModelResponse:
        """Call the model, publish its stream and return the whole response."""
        async with _publisher() as session:
            publishing = ResponsePublisher(session, message=_message(), topics=self._topics)
            async for event in self._model.stream_response(*args, **more):
                await publishing.take(event)
        return _whole(publishing.response())

    async def stream_response(self, *args: Any, **more: Any) -> AsyncIterator[TResponseStreamEvent]:
        """Publish the stream and yield its events."""
        async with _publisher() as session:
            publishing = ResponsePublisher(session, message=_message(), topics=self._topics)
            async for event in self._model.stream_response(*args, **more):
                await publishing.take(event)
                yield event

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the model's advice about a request that failed."""
        return self._model.get_retry_advice(request)

    async def close(self) -> None:
        """Release the model's resources."""
        await self._model.close()


def _message() -> str:
    """Return the message's id, which is equal in each attempt of the activity.

    It is unique, because an activity calls the model once.
    """
    info = activity.info()
    return f"{info.workflow_run_id}:{info.activity_id}"


@asynccontextmanager
async def _publisher() -> AsyncIterator[SessionPublisher]:
    """Yield the activity's session, or one for this call if the worker has no `WakelinePlugin`."""
    if has_session():
        yield await current_session()
    else:
        async with SessionPublisher.from_within_activity() as session:
            yield session


def _whole(response: Response) -> ModelResponse:
    """Return the response in the form of a model that does not stream."""
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
    # Models that use chat completions have no response id.
    id = None if response.id == FAKE_RESPONSES_ID else response.id
    return ModelResponse(
        output=response.output, usage=usage, response_id=id, request_id=getattr(response, "_request_id", None)
    )
