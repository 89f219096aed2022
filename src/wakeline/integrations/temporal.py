"""`WakelinePlugin`: gives every activity of a worker a session, and reports its state.

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

from wakeline.exit import end_in_order
from wakeline.integrations.activity_reports import ActivityReports, Report, failure_of, state_after, time_out_of
from wakeline.integrations.activity_session import ActivitySession, current_session, current_sync_session, has_session
from wakeline.integrations.children import JoiningInterceptor
from wakeline.integrations.input_keys import InputKeysInterceptor
from wakeline.integrations.leaving import Leaving
from wakeline.integrations.workflow_tasks import reporting
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
    """The interceptor that `WakelinePlugin` installs.

    Programs that compose interceptors themselves use it directly.

    Args:
        url: The gateway's URL; default `WAKELINE_URL`.
        token: The publisher's token; default `WAKELINE_TOKEN`.
        session: Names the session of an activity; None, also as its result, stands for the Workflow Id. Activities that
            no workflow scheduled have a session only if this names it.
        report: The topic of the reports of activities' states; None for no reports.
        report_patience: The longest time that an activity waits for its report to be durable.
        nudger: Receives every flush of a `WorkflowStreamClient` in an activity; the caller opens and closes it.
        join_children: Start children with the memo that makes them publish into their parent's session.
        options: Options of the activities' publishers, see `SessionPublisher`; reports use the same `data_converter`.

    Attributes:
        nudger: The argument `nudger`.
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
        """Wait a moment for the reports under way; to be called when the worker has stopped."""
        if self._reports is not None:
            await self._reports.drain()

    def begin_report(self, info: activity.Info) -> Report | None:
        """Report that an attempt has started; None if it is not reported."""
        if self._reports is None or self._name(info) is None:
            return None
        return self._reports.begin(info)

    def make_publisher(self) -> SessionPublisher:
        """Return a publisher for the running activity."""
        return SessionPublisher.from_within_activity(
            self._url, self._token, session=self._name(activity.info()), **self._options
        )

    def make_sync_publisher(self) -> SyncSessionPublisher:
        """Return a publisher for the running `def` activity."""
        return SyncSessionPublisher.from_within_activity(
            self._url, self._token, session=self._name(activity.info()), **self._options
        )

    def _name(self, info: activity.Info) -> str | None:
        named = None if self._session is None else self._session(info)
        return named or info.workflow_id

    def _make_reporter(self, info: activity.Info) -> SessionPublisher:
        # The publisher has a name of its own, so that a later attempt's output does not supersede the earlier reports.
        # It has the attempt, so that reports of an earlier attempt are refused.
        name = self._name(info)
        assert name is not None
        return SessionPublisher(
            self._url,
            self._token,
            session=name,
            publisher=f"{publisher_name(info)}:report",
            attempt=info.attempt,
            run=info.workflow_run_id or info.activity_run_id,
            activity=info.activity_id,
            workflow=info.workflow_id,
            namespace=namespace_of(info),
            supersede=False,
            max_retry_duration=_REPORT_RETRY,
            data_converter=self._options.get("data_converter"),
        )


class _ActivityInterceptor(ActivityInboundInterceptor):
    """Wraps each attempt of each activity."""

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
                _report_end(report, info)
                await report.end()
            return result
        except (Exception, asyncio.CancelledError) as error:
            if report is not None:
                _report_end(report, info, error)
                await report.end()
            raise
        finally:
            # Any other end is not reported, such as an activity that is completed asynchronously.
            if report is not None:
                report.close()
            if flushed is not None:
                surrounding_on_flushed.reset(flushed)


def _report_end(report: Report, info: activity.Info, error: BaseException | None = None) -> None:
    # After a time-out Temporal accepts neither a result nor an error of this attempt.
    ended_by = _harmless(lambda: time_out_of(info, report.seconds)) or error
    if ended_by is None:
        report.add("completed")
        return
    state = _harmless(lambda: state_after(info, ended_by))
    failure = None if state == "canceled" else _harmless(lambda: failure_of(ended_by))
    if state is not None:
        report.add(state, failure)


class WakelinePlugin(SimplePlugin):
    """Gives every activity of a worker `current_session()`, and reports its state.

    Activities need no code for the reports. Each attempt publishes events under the topic `activity`:
    `{"activity_type", "activity_id", "attempt", "state", "failure"?}`, first with the `state` `started` and then with
    `retrying`, `completed`, `failed` or `canceled`. Their key is the activity, so that a compact view has the latest of
    each. They have a publisher of their own, so that a retry supersedes an attempt's output but not its reports. If the
    gateway is away, an activity waits for at most `report_patience`, and not at all once the absence is known.

    The plugin also nudges the gateway after each workflow task, and after each flush of a `WorkflowStreamClient` in an
    activity, so that devices receive the events of workflows at once. That costs a workflow task some microseconds, and
    cannot fail it.

    Pass it to the client, so that all its workers have it, or to one worker.

    Args:
        url: The gateway's URL; default `WAKELINE_URL`.
        token: The publisher's token; default `WAKELINE_TOKEN`.
        session: Names the session of an activity; None, also as its result, stands for the Workflow Id. Activities that
            no workflow scheduled have a session only if this names it.
        report: The topic of the reports of activities' states; None for no reports.
        report_patience: The longest time that an activity waits for its report to be durable.
        nudge: Whether to nudge.
        join_children: Start child workflows with the memo `wakeline.session`, so that they publish into their parent's
            session.
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
            # Publish with the converter and codec of the worker's client, so that encrypted values stay encrypted.
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
        # A client that has connected has had an answer from a thread of the SDK, even if the program does no more.
        end_in_order()

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """See base class."""
        config = super().configure_worker(config)
        client = config.get("client")
        assert client is not None, "a worker has a client"
        interceptor = self._make_interceptor(client)
        config["interceptors"] = [*config.get("interceptors", ()), interceptor, InputKeysInterceptor()]
        if interceptor.nudger is not None and interceptor.leaving is not None:
            nudge, note_end = interceptor.nudger.nudge, interceptor.leaving.note
            if (runner := config.get("workflow_runner")) is not None:
                config["workflow_runner"] = reporting(runner, nudge, note_end)
            if (unsandboxed := config.get("unsandboxed_workflow_runner")) is not None:
                config["unsandboxed_workflow_runner"] = reporting(unsandboxed, nudge, note_end)
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
    """Let the workflow sandbox import the modules that activities need.

    Otherwise a file that defines both workflows and activities could not be loaded.
    """
    assert runner is not None, "a worker has a workflow runner"
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    restrictions = runner.restrictions.with_passthrough_modules("wakeline.integrations", "wakeline.publisher")
    return dataclasses.replace(runner, restrictions=restrictions)


async def _nothing() -> None:
    pass


def _harmless(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or None if it fails: a report must not fail its activity."""
    try:
        return call()
    except Exception:
        _logger.exception("the state of an activity could not be reported")
        return None
