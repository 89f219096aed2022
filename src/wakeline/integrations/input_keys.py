"""The keys of inputs, from the headers that only interceptors see."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.worker import (
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from wakeline.streams.inputs import HEADER, LIFE_HEADER, handling


class InputKeysInterceptor(Interceptor):
    """Lets `input_key` return the key of the input that a handler handles."""

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """See base class."""
        return _InputKeys


class _InputKeys(WorkflowInboundInterceptor):
    async def handle_signal(self, input: HandleSignalInput) -> None:
        with _handling(input.headers):
            await super().handle_signal(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        with _handling(input.headers):
            super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        with _handling(input.headers):
            return await super().handle_update_handler(input)


def _handling(headers: Mapping[str, Payload]) -> AbstractContextManager[None]:
    return handling(_text_in(headers, HEADER), _text_in(headers, LIFE_HEADER) or "")


def _text_in(headers: Mapping[str, Payload], name: str) -> str | None:
    """Return the string in one of a message's headers; None if it has no such string."""
    payload = headers.get(name)
    if payload is None:
        return None
    try:
        text: Any = workflow.payload_converter().from_payload(payload)
    except Exception:  # noqa: BLE001 - a header that somebody else wrote must not fail the workflow task
        return None
    return text if isinstance(text, str) else None
