"""A workflow that pays once for each input, through continue-as-new."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from wakeline.streams.inputs import HandledInputs, input_key


@workflow.defn
class Pays:
    """Adds up what it is told to pay."""

    @workflow.init
    def __init__(self, paid: int = 0, handled: list[str] | None = None) -> None:
        self.paid = paid
        self.inputs = HandledInputs(handled or [])
        self.keys: list[str | None] = []
        self.continues = False

    @workflow.signal
    async def pay(self, amount: int) -> None:
        key = input_key()
        self.keys.append(key)
        if self.inputs.once():
            self.paid += amount
        await asyncio.sleep(0)
        assert input_key() == key  # whichever handler ran meanwhile

    @workflow.update
    def pay_now(self, amount: int) -> int:
        if self.inputs.once():
            self.paid += amount
        return self.paid

    @workflow.signal
    def go_on(self) -> None:
        self.continues = True

    @workflow.query
    def all_paid(self) -> int:
        return self.paid

    @workflow.query
    def all_keys(self) -> list[str | None]:
        return self.keys

    @workflow.run
    async def run(self, paid: int = 0, handled: list[str] | None = None) -> None:
        await workflow.wait_condition(lambda: self.continues)
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(args=[self.paid, self.inputs.carry()])
