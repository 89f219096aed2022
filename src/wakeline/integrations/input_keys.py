"""The keys of inputs, from the headers that only interceptors see."""

from __future__ import annotations

from collections.abc import Mapping
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

from wakeline.streams.inputs import HEADER, handling


class InputKeysInterceptor(Interceptor):
    """Lets `input_key` return the key of the input that a handler handles."""

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """See base class."""
        return _InputKeys


class _InputKeys(WorkflowInboundInterceptor):
    async def handle_signal(self, input: HandleSignalInput) -> None:
        with handling(_key_in(input.headers)):
            await super().handle_signal(input)

    def handle_update_validator(self, input: HandleUpdateInput) -> None:
        with handling(_key_in(input.headers)):
            super().handle_update_validator(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        with handling(_key_in(input.headers)):
            return await super().handle_update_handler(input)


def _key_in(headers: Mapping[str, Payload]) -> str | None:
    """Return the key in a message's headers; None if there is none that is a string."""
    payload = headers.get(HEADER)
    if payload is None:
        return None
    try:
        key: Any = workflow.payload_converter().from_payload(payload)
    except Exception:  # noqa: BLE001 - a header that somebody else wrote must not fail the workflow task
        return None
    return key if isinstance(key, str) else None
