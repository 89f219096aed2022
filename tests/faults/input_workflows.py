"""A workflow that counts what it hears, and what it would have done of it once."""

from __future__ import annotations

from dataclasses import dataclass, field

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from wakeline.streams.inputs import HandledInputs


@dataclass
class Counted:
    """What goes on with the workflow.

    Attributes:
        heard: The text of each call of a handler.
        done: The text of each that `HandledInputs.once` let pass.
        handled: What `HandledInputs` carries.
    """

    heard: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    handled: list[str] = field(default_factory=list)


@workflow.defn
class Counts:
    """Hears signals and updates, and continues as new when it is told to."""

    @workflow.init
    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self.inputs = HandledInputs(counted.handled, most=2_000)
        self.continues = False

    def _hear(self, text: str) -> None:
        self.counted.heard.append(text)
        if self.inputs.once():
            self.counted.done.append(text)

    @workflow.signal
    def say(self, text: str) -> None:
        self._hear(text)

    @workflow.update
    def approve(self, text: str) -> str:
        self._hear(text)
        return text

    @approve.validator
    def may_approve(self, text: str) -> None:
        if not text:
            raise ApplicationError("there is nothing to approve")

    @workflow.signal
    def go_on(self) -> None:
        self.continues = True

    @workflow.query
    def all_counted(self) -> Counted:
        return self.counted

    @workflow.run
    async def run(self, counted: Counted) -> None:
        await workflow.wait_condition(lambda: self.continues)
        await workflow.wait_condition(workflow.all_handlers_finished)
        self.counted.handled = self.inputs.carry()
        workflow.continue_as_new(self.counted)
