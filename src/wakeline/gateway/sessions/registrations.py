"""Reports the workflows that publishers name to `following`, and not with every append."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, NamedTuple, Protocol

import msgspec
import structlog

from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import Grant

MAX_WORKFLOW_BYTES: Final = 1000
"""The longest id that Temporal accepts."""

_KEPT: Final = 10_000
_AGAIN_SECONDS: Final = 60.0
_MAX_LOGGED: Final = 100
"""The most users whose refusals are logged, because a service may sign tokens for any number of them."""
_log = structlog.get_logger(__name__)


class NamedWorkflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A workflow that a caller has named.

    Attributes:
        workflow_id: The Workflow Id.
        namespace: Its namespace; None for the gateway's main one.
    """

    workflow_id: str
    namespace: str | None = None

    def checked(self) -> NamedWorkflow:
        """Return this value if its names are possible names.

        Raises:
            RequestInvalidError: A name is empty, too long, or not UTF-8.
        """
        _check("a Workflow Id", self.workflow_id)
        if self.namespace is not None:
            _check("a namespace", self.namespace)
        return self


def named_workflow(workflow: str | None, namespace: str | None) -> NamedWorkflow | None:
    """Return the workflow that a publisher names as its own; None if it names none.

    Raises:
        RequestInvalidError: A name is impossible, or there is a namespace without a workflow.
    """
    if workflow is None:
        if namespace is not None:
            raise RequestInvalidError("expected a namespace only with a workflow, got a namespace alone")
        return None
    return NamedWorkflow(workflow, namespace).checked()


class Unfollowed(NamedTuple):
    """Why a publisher's workflow is not followed into its session.

    Attributes:
        reason: The reason, as the end of a sentence.
        hint: What to do.
    """

    reason: str
    hint: str


NOT_ALLOWED: Final = Unfollowed(
    # One text for both: a publisher must not learn whether a workflow exists that its token does not reach.
    "either Temporal has no such workflow yet, or the workflow does not name the session and the token may not name it",
    "Start the workflow with the session's name in its memo wakeline.session, or allow the publisher's token to manage the "
    "session, with the Workflow Id among its sessions or with follow.",
)
NOT_FOUND: Final = Unfollowed(
    "Temporal has no such workflow",
    "Check the Workflow Id and the namespace that the publisher names.",
)


class UnfollowedWorkflow(NamedTuple):
    """A warning for a publisher: its workflow is not followed."""

    message: str
    hint: str


Warn = Callable[[UnfollowedWorkflow], None]
"""Passes a warning on to a publisher."""


class Published(Protocol):
    """Receives the workflow that a publisher of a session has named: see `Registrar.published`."""

    def __call__(
        self,
        session: str,
        workflow_id: str,
        namespace: str | None,
        *,
        run: str | None,
        manages: bool,
        life: str,
        refused: Callable[[Unfollowed], None],
    ) -> None:
        """Follow the workflow into the session; see `Registrar.published`."""


@dataclass(slots=True)
class _Report:
    at: float
    warning: UnfollowedWorkflow | None = None


class Registrations:
    """Reports the workflows that publish into sessions.

    A workflow is reported again for another run, for another life of the session, for a caller with more permissions, and after
    a minute: by then the workflow may have been started, or Temporal may be reachable again. A workflow that is not followed is
    logged once for each user and reason, and reported to its publishers.

    Args:
        published: Receives the reports; None for a gateway that follows no workflows.
        run_of: Returns the name of the run that a Temporal run belongs to in a session. Default: the Temporal run's id.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        published: Published | None,
        run_of: Callable[[str, str], Awaitable[str]] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._published = published
        self._run_of = run_of
        self._clock = clock
        self._reported: dict[tuple[object, ...], _Report] = {}  # the last reports, oldest first
        self._logged: set[tuple[str, Unfollowed]] = set()

    def __len__(self) -> int:
        """Return the number of remembered reports."""
        return len(self._reported)

    async def run_of(self, session: str, run: str | None) -> str | None:
        """Return the name of the run that a publisher's events belong to, by the run that it names.

        Raises:
            UnavailableError: The runs of the session cannot be read now.
        """
        return run if run is None or self._run_of is None else await self._run_of(session, run)

    def tell(
        self,
        session: str,
        workflow: NamedWorkflow | None,
        run: str | None,
        grant: Grant,
        life: str,
        warn: Warn | None = None,
    ) -> None:
        """Report the workflow of a publisher that opened or appended, unless reported recently.

        Args:
            session: The session's name.
            workflow: The workflow that the publisher names, or None.
            run: The run that it names, or None.
            grant: Its permissions.
            life: The epoch of the session that it opened or appended in.
            warn: Called if the workflow is not followed, perhaps later; None if the publisher cannot be warned.
        """
        if workflow is None or self._published is None:
            return
        manages = grant.may("manage", session) and grant.registers(workflow.workflow_id)
        key = (session, life, workflow.workflow_id, workflow.namespace, run, manages)
        now = self._clock()
        last = self._reported.get(key)
        if last is not None and now < last.at + _AGAIN_SECONDS:
            if warn is not None and last.warning is not None:
                warn(last.warning)
            return
        self._reported.pop(key, None)
        report = self._reported[key] = _Report(now)
        if len(self._reported) > _KEPT:
            del self._reported[next(iter(self._reported))]
        refused = partial(self._refused, report, session, workflow, grant.user, warn)
        names = session, workflow.workflow_id, workflow.namespace
        try:
            self._published(*names, run=run, manages=manages, life=life, refused=refused)
        except Exception:  # noqa: BLE001 - the append has succeeded, and must not fail with its workflow
            _log.exception("a workflow could not be registered", session=session, workflow_id=workflow.workflow_id)

    def _refused(
        self, report: _Report, session: str, workflow: NamedWorkflow, user: str, warn: Warn | None, why: Unfollowed
    ) -> None:
        """Log an unfollowed workflow, once for each user and reason, and warn its publisher."""
        if (user, why) not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add((user, why))
            _log.warning(
                "a publisher's workflow is not followed into its session (logged once for each user)",
                session=session,
                workflow_id=workflow.workflow_id,
                user=user,
                reason=why.reason,
                hint=why.hint,
            )
        what = f"workflow {workflow.workflow_id!r} is not followed into session {session!r}"
        report.warning = UnfollowedWorkflow(f"{what}, so that its end is not reported there: {why.reason}", why.hint)
        if warn is not None:
            warn(report.warning)


def _check(what: str, name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate: the request was not UTF-8
        raise RequestInvalidError(f"expected {what} in UTF-8, got {name[:64]!r}") from None
    if not 1 <= size <= MAX_WORKFLOW_BYTES:
        raise RequestInvalidError(f"expected {what} of 1 to {MAX_WORKFLOW_BYTES} bytes, got {size}")
