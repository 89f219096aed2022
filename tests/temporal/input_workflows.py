"""Workflows that devices talk to, and that write down what they heard."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ApplicationError


@workflow.defn
class Listens:
    """Hears signals and updates until it is told to end; what it heard goes with it when it continues as new."""

    @workflow.init
    def __init__(self, heard: list[str]) -> None:
        self.heard = heard
        self.ends = False
        self.continues = False
        self.released = False
        self.stays = False

    @workflow.signal
    def say(self, text: str) -> None:
        self.heard.append(text)

    @workflow.signal
    def go_on(self) -> None:
        self.continues = True

    @workflow.signal
    def end(self) -> None:
        self.ends = True

    @workflow.signal
    def stay(self) -> None:
        self.stays = True

    @workflow.signal
    def release(self) -> None:
        self.released = True

    @workflow.update
    def approve(self, text: str) -> dict[str, str]:
        self.heard.append(text)
        return {"approved": text}

    @approve.validator
    def may_approve(self, text: str) -> None:
        if text == "nothing":
            raise ApplicationError("there is nothing to approve", type="Nothing")

    @workflow.update
    async def waits(self, text: str) -> str:
        self.heard.append(text)
        await workflow.wait_condition(lambda: self.released)
        return "released"

    @workflow.update
    def fails(self) -> None:
        raise ApplicationError("out of stock", type="OutOfStock")

    @workflow.update
    def breaks(self, text: str) -> None:
        raise ValueError(text)

    @workflow.query
    def all_heard(self) -> list[str]:
        return self.heard

    @workflow.run
    async def run(self, heard: list[str]) -> list[str]:
        while not (self.ends or self.continues):
            try:
                await workflow.wait_condition(lambda: self.ends or self.continues)
            except asyncio.CancelledError:
                if not self.stays:
                    raise
        if self.continues:
            await asyncio.sleep(0)
            workflow.continue_as_new(self.heard)
        return self.heard


WORKFLOWS = [Listens]
