"""`WakelinePlugin`: every activity of a worker has a session at hand, and tells by itself how it goes.

client = await Client.connect("localhost:7233", plugins=[WakelinePlugin("http://localhost:7777")])

@activity.defn
async def answer(prompt: str) -> str:
    session = await current_session()
    ...
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Unpack

from temporalio import activity
from temporalio.plugin import SimplePlugin
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    Worker,
    WorkerConfig,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from wakeline.integrations.activity_reports import ActivityReports, Report, failure_of, state_after, time_out_of
from wakeline.integrations.activity_session import ActivitySession, current_session, current_sync_session, has_session
from wakeline.integrations.children import JoiningInterceptor
from wakeline.integrations.leaving import Leaving
from wakeline.integrations.workflow_tasks import telling
from wakeline.logs import get_logger
from wakeline.publisher import Nudger, SessionPublisher
from wakeline.publisher.activity import namespace_of, publisher_name
from wakeline.publisher.options import PublisherOptions
from wakeline.publisher.sync import SyncSessionPublisher
from wakeline.streams.flushed import surrounding_on_flushed

if TYPE_CHECKING:
    from temporalio.client import Client

    from wakeline.client.http import Token

__all__ = ["SessionInterceptor", "WakelinePlugin", "current_session", "current_sync_session", "has_session"]

_logger = get_logger(__name__)
_REPORT_RETRY: Final = timedelta(minutes=1)


class SessionInterceptor(Interceptor):
    """What `WakelinePlugin` puts into a worker; for who composes interceptors by hand.

    Args:
        url: Where the gateway is; `WAKELINE_URL` unless given.
        token: Who publishes; `WAKELINE_TOKEN` unless given.
        session: Names the session of an activity; the Workflow Id unless given, or where it gives None. Activities that no
            workflow scheduled have one only if this names it.
        report: The topic under which activities tell how they go; None for not at all.
        report_patience: How long an activity waits, at most, until the gateway has its report.
        nudger: Is told of every flush of a `WorkflowStreamClient` in an activity; whoever gives it opens and closes it.
        join_children: Start children with the memo that has them speak in their parent's session.
        options: Options of the activities' publishers, see `SessionPublisher`; the reports are converted by the same
            `data_converter`.

    Attributes:
        nudger: That one.
    """

    def __init__(
        self,
        url: str | None = None,
        token: Token | None = None,
        *,
        session: Callable[[activity.Info], str | None] | None = None,
        report: str | None = "activity",
        report_patience: timedelta = timedelta(seconds=1),
        nudger: Nudger | None = None,
        join_children: bool = False,
        **options: Unpack[PublisherOptions],
    ) -> None:
        self.nudger = nudger
        self.leaving = None if nudger is None else Leaving(nudger)
        self._join_children = join_children
        self._url = url
        self._token = token
        self._session = session
        self._options = options
        self._reports = None if report is None else ActivityReports(self._make_reporter, report, report_patience)

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor] | None:
        """See base class."""
        return JoiningInterceptor if self._join_children else None

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See base class."""
        return _ActivityInterceptor(next, self)

    async def drain(self) -> None:
        """Wait for reports that are under way, for a moment; when the worker has stopped."""
        if self._reports is not None:
            await self._reports.drain()

    def begin_report(self, info: activity.Info) -> Report | None:
        """Tell that an attempt has started; None where nothing is to be told."""
        if self._reports is None or self._name(info) is None:
            return None
        return self._reports.begin(info)

    def make_publisher(self) -> SessionPublisher:
        """A publisher for the running activity."""
        return SessionPublisher.from_within_activity(
            self._url, self._token, session=self._name(activity.info()), **self._options
        )

    def make_sync_publisher(self) -> SyncSessionPublisher:
        """A publisher for the running activity, where it is a `def`."""
        return SyncSessionPublisher.from_within_activity(
            self._url, self._token, session=self._name(activity.info()), **self._options
        )

    def _name(self, info: activity.Info) -> str | None:
        named = None if self._session is None else self._session(info)
        return named or info.workflow_id

    def _make_reporter(self, info: activity.Info) -> SessionPublisher:
        # A name of its own, so that a later attempt's output does not take back what was told of the earlier one; the
        # attempt, so that one that is over cannot tell anything any more.
        name = self._name(info)
        assert name is not None
        return SessionPublisher(
            self._url,
            self._token,
            session=name,
            publisher=f"{publisher_name(info)}:report",
            attempt=info.attempt,
            run=info.workflow_run_id,
            activity=info.activity_id,
            workflow=info.workflow_id,
            namespace=namespace_of(info),
            supersede=False,
            max_retry_duration=_REPORT_RETRY,
            data_converter=self._options.get("data_converter"),
        )


class _ActivityInterceptor(ActivityInboundInterceptor):
    """Around each attempt of each activity."""

    def __init__(self, next: ActivityInboundInterceptor, around: SessionInterceptor) -> None:
        super().__init__(next)
        self._around = around

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info, nudger = activity.info(), self._around.nudger
        flushed = None if nudger is None else surrounding_on_flushed.set(nudger.nudge)
        report = _harmless(lambda: self._around.begin_report(info))
        try:
            before = _nothing if report is None else report.begun
            async with ActivitySession(self._around.make_publisher, self._around.make_sync_publisher, before):
                result = await super().execute_activity(input)
            if report is not None:
                _tell_end(report, info)
                await report.end()
            return result
        except (Exception, asyncio.CancelledError) as error:
            if report is not None:
                _tell_end(report, info, error)
                await report.end()
            raise
        finally:
            # Whatever else ends it, such as that it completes later, from elsewhere: that is not told.
            if report is not None:
                report.close()
            if flushed is not None:
                surrounding_on_flushed.reset(flushed)


def _tell_end(report: Report, info: activity.Info, error: BaseException | None = None) -> None:
    # After a time-out Temporal takes neither a result nor an error of this attempt.
    ended_by = _harmless(lambda: time_out_of(info, report.seconds)) or error
    if ended_by is None:
        report.tell("completed")
        return
    state = _harmless(lambda: state_after(info, ended_by))
    failure = None if state == "canceled" else _harmless(lambda: failure_of(ended_by))
    if state is not None:
        report.tell(state, failure)


class WakelinePlugin(SimplePlugin):
    """Gives every activity of a worker `current_session()`, and tells of each in its session how it goes, with no code at all.

    Of each attempt there are events under the topic `activity`:
    `{"activity_type", "activity_id", "attempt", "state", "failure"?}` with a `state` of `started`, and then of `retrying`,
    `completed`, `failed` or `canceled`. They have the activity as their key, so that a compact view has the latest of each, and a
    publisher of their own, so that a retry takes back what an attempt said, but not that there was one. A gateway that is away
    costs activities no more than `report_patience`, and nothing once it is known to be away.

    It also nudges the gateway after each workflow task, and after each flush of a `WorkflowStreamClient` in an activity, so that
    what workflows publish is shown at once. That costs a workflow task some microseconds, and cannot fail it.

    It may be given to the client, whose workers all have it then, or to one worker.

    Args:
        url: Where the gateway is; `WAKELINE_URL` unless given.
        token: Who publishes; `WAKELINE_TOKEN` unless given.
        session: Names the session of an activity; the Workflow Id unless given, or where it gives None. Activities that no
            workflow scheduled have one only if this names it.
        report: The topic under which activities tell how they go; None for not at all.
        report_patience: How long an activity waits, at most, until the gateway has its report.
        nudge: Whether to nudge.
        join_children: Have child workflows speak in their parent's session: they are started with the memo `wakeline.session`.
        options: Options of the activities' publishers, see `SessionPublisher`.
    """

    def __init__(
        self,
        url: str | None = None,
        token: Token | None = None,
        *,
        session: Callable[[activity.Info], str | None] | None = None,
        report: str | None = "activity",
        report_patience: timedelta = timedelta(seconds=1),
        nudge: bool = True,
        join_children: bool = False,
        **options: Unpack[PublisherOptions],
    ) -> None:
        def interceptor(client: Client) -> SessionInterceptor:
            nudger = Nudger(url, token, namespace=client.namespace) if nudge else None
            # As the worker's own client converts, and encrypts: what it hides from Temporal it hides here.
            merged: PublisherOptions = {"data_converter": client.data_converter, "temporal_client": client}
            merged.update(options)
            return SessionInterceptor(
                url,
                token,
                session=session,
                report=report,
                report_patience=report_patience,
                nudger=nudger,
                join_children=join_children,
                **merged,
            )

        self._make_interceptor = interceptor
        super().__init__("wakeline.WakelinePlugin", workflow_runner=_let_through)

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """See base class."""
        config = super().configure_worker(config)
        client = config.get("client")
        assert client is not None, "a worker has a client"
        interceptor = self._make_interceptor(client)
        config["interceptors"] = [*config.get("interceptors", ()), interceptor]
        if interceptor.nudger is not None and interceptor.leaving is not None:
            nudge, note_end = interceptor.nudger.nudge, interceptor.leaving.note
            if (runner := config.get("workflow_runner")) is not None:
                config["workflow_runner"] = telling(runner, nudge, note_end)
            if (unsandboxed := config.get("unsandboxed_workflow_runner")) is not None:
                config["unsandboxed_workflow_runner"] = telling(unsandboxed, nudge, note_end)
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """See base class."""
        all_interceptors = worker.config(active_config=True).get("interceptors", ())
        interceptors = [one for one in all_interceptors if isinstance(one, SessionInterceptor)]
        async with AsyncExitStack() as stack:
            for interceptor in interceptors:
                if interceptor.nudger is not None:
                    await stack.enter_async_context(interceptor.nudger)
                if interceptor.leaving is not None:
                    interceptor.leaving.delay(worker)
                stack.push_async_callback(interceptor.drain)
            await super().run_worker(worker, next)


def _let_through(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Let files that hold workflows and activities import what the activities need: the sandbox would not take it."""
    assert runner is not None, "a worker has a workflow runner"
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    restrictions = runner.restrictions.with_passthrough_modules("wakeline.integrations", "wakeline.publisher")
    return dataclasses.replace(runner, restrictions=restrictions)


async def _nothing() -> None:
    pass


def _harmless(tell: Callable[[], Any]) -> Any:
    """What telling gives, or None: a report must not break its activity."""
    try:
        return tell()
    except Exception:
        _logger.exception("how an activity goes could not be told")
        return None
