"""A workflow whose every word is a secret, told it by its input: nothing of it is in the code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from temporalio.contrib.workflow_streams import WorkflowStream as OfficialStream

    from wakeline.publisher import SessionPublisher
    from wakeline.streams import WorkflowStream, WorkflowStreamClient, WorkflowStreamState


@dataclass
class Secrets:
    """What to say.

    Attributes:
        text: The secret.
        url: The gateway, for the activity that publishes to it.
        rolls: How often to continue as new.
        state: The stream so far.
    """

    text: str
    url: str
    rolls: int = 0
    state: WorkflowStreamState | None = None


@activity.defn
async def say(secrets: Secrets) -> None:
    """Say it through the workflow's stream, then straight to the gateway."""
    async with WorkflowStreamClient.from_within_activity(batch_interval=timedelta(milliseconds=20)) as stream:
        stream.topic("signalled", type=str).publish(secrets.text)
    async with SessionPublisher.from_within_activity(secrets.url) as session:
        await session.topic("published").publish({"text": secrets.text})


@workflow.defn
class Whispers:
    """Says its secret in every way, then fails of it."""

    @workflow.init
    def __init__(self, secrets: Secrets) -> None:
        self.stream = WorkflowStream(prior_state=secrets.state)

    @workflow.run
    async def run(self, secrets: Secrets) -> None:
        self.stream.topic("said", type=str).publish(f"{secrets.text} {secrets.rolls}")
        if secrets.rolls:
            await self.stream.continue_as_new(
                lambda state: [Secrets(secrets.text, secrets.url, secrets.rolls - 1, state)]
            )
        await workflow.execute_activity(
            say,
            secrets,
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )
        raise ApplicationError(secrets.text, secrets.text, type="Whispered")


@workflow.defn
class OfficialWhispers:
    """Hosts the official stream, and completes with the secret."""

    @workflow.init
    def __init__(self, secrets: Secrets) -> None:
        self.stream = OfficialStream()
        self.open = True

    @workflow.run
    async def run(self, secrets: Secrets) -> str:
        self.stream.topic("said", type=str).publish(secrets.text)
        await workflow.wait_condition(lambda: not self.open)
        return secrets.text

    @workflow.signal
    def close(self) -> None:
        self.open = False
