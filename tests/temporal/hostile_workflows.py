"""A workflow that answers as badly as it is asked to."""

from __future__ import annotations

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError


@workflow.defn
class Answers:
    """Returns what it is told to, from an update and at its end."""

    def __init__(self) -> None:
        self.end: bytes | None = None
        self.heard: list[str] = []

    @workflow.signal
    def say(self, text: str) -> None:
        self.heard.append(text)

    @workflow.signal
    def end_with(self, text: str) -> None:
        self.end = text.encode("latin-1")

    @workflow.update
    def bytes_of(self, text: str) -> RawValue:
        """Return these bytes, and call them JSON."""
        return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text.encode("latin-1")))

    @workflow.update
    def fails_with(self, text: str) -> None:
        raise ApplicationError(text, type=text)

    @workflow.query
    def all_heard(self) -> list[str]:
        return self.heard

    @workflow.run
    async def run(self) -> RawValue:
        await workflow.wait_condition(lambda: self.end is not None)
        return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=self.end or b""))


WORKFLOWS = [Answers]
