"""Workflows that go on in another run. Apart from the tests, because the sandbox imports it anew each time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow
from temporalio.contrib import workflow_streams as official
from temporalio.exceptions import ApplicationError

from wakeline import streams


@workflow.defn
class FailsOnce:
    """Fails its first attempt half way."""

    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        attempt = workflow.info().attempt
        for step in range(3):
            self.stream.topic("step").publish([attempt, step])
            if attempt == 1 and step == 1:
                raise ApplicationError("half way")


@workflow.defn
class TimesOutOnce:
    @workflow.init
    def __init__(self) -> None:
        self.stream = streams.WorkflowStream()

    @workflow.run
    async def run(self) -> None:
        attempt = workflow.info().attempt
        self.stream.topic("step").publish([attempt, 0])
        if attempt == 1:
            await workflow.sleep(timedelta(hours=1))


@dataclass
class FailsLaterInput:
    runs: int = 1
    stream_state: streams.WorkflowStreamState | None = None


@workflow.defn
class FailsAfterRolling:
    """Continues as new once; the run that follows fails its first attempt."""

    @workflow.init
    def __init__(self, input: FailsLaterInput) -> None:
        self.stream = streams.WorkflowStream(prior_state=input.stream_state)

    @workflow.run
    async def run(self, input: FailsLaterInput) -> None:
        attempt = workflow.info().attempt
        for step in range(2):
            self.stream.topic("step").publish([input.runs, attempt, step])
        # Long enough for a reader to see this run while it is open.
        await workflow.sleep(0.5)
        if input.runs == 1:
            await self.stream.continue_as_new(lambda state: [FailsLaterInput(2, state)])
        if attempt == 1:
            raise ApplicationError("at the end")


@dataclass
class OfficialRollerInput:
    runs_left: int
    stream_state: official.WorkflowStreamState | None = None


@workflow.defn
class OfficialRoller:
    """The official host, continuing as new after every three events."""

    @workflow.init
    def __init__(self, input: OfficialRollerInput) -> None:
        self.stream = official.WorkflowStream(prior_state=input.stream_state)

    @workflow.run
    async def run(self, input: OfficialRollerInput) -> None:
        for index in range(3):
            self.stream.topic("tick").publish([input.runs_left, index])
        await workflow.sleep(0.01)
        if input.runs_left > 1:
            await self.stream.continue_as_new(lambda state: [OfficialRollerInput(input.runs_left - 1, state)])


ALL = [OfficialRoller, FailsOnce, TimesOutOnce, FailsAfterRolling]
