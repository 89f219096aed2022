"""Reports the workflows that publishers name to `following`, and not with every append."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Protocol

import msgspec
import structlog

from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import Grant

MAX_WORKFLOW_BYTES: Final = 1000
"""The longest id that Temporal accepts."""

_KEPT: Final = 10_000
_AGAIN_SECONDS: Final = 60.0
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


class Published(Protocol):
    """Receives the workflow that a publisher of a session has named: see `Registrar.published`."""

    def __call__(
        self, session: str, workflow_id: str, namespace: str | None, *, run: str | None, manages: bool, life: str
    ) -> None:
        """Follow the workflow into the session; see `Registrar.published`."""


class Registrations:
    """Reports the workflows that publish into sessions.

    A workflow is reported again for another run, for another life of the session, for a caller with more permissions, and after
    a minute: by then the workflow may have been started, or Temporal may be reachable again.

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
        self._reported: dict[tuple[object, ...], float] = {}  # the times of the last reports, oldest first

    def __len__(self) -> int:
        """Return the number of remembered reports."""
        return len(self._reported)

    async def run_of(self, session: str, run: str | None) -> str | None:
        """Return the name of the run that a publisher's events belong to, by the run that it names.

        Raises:
            UnavailableError: The runs of the session cannot be read now.
        """
        return run if run is None or self._run_of is None else await self._run_of(session, run)

    def tell(self, session: str, workflow: NamedWorkflow | None, run: str | None, grant: Grant, life: str) -> None:
        """Report the workflow of a publisher that opened or appended, unless reported recently.

        Args:
            session: The session's name.
            workflow: The workflow that the publisher names, or None.
            run: The run that it names, or None.
            grant: Its permissions.
            life: The epoch of the session that it opened or appended in.
        """
        if workflow is None or self._published is None:
            return
        manages = grant.may("manage", session) and grant.registers(workflow.workflow_id)
        key = (session, life, workflow.workflow_id, workflow.namespace, run, manages)
        now = self._clock()
        last = self._reported.get(key)
        if last is not None and now < last + _AGAIN_SECONDS:
            return
        self._reported.pop(key, None)
        self._reported[key] = now
        if len(self._reported) > _KEPT:
            del self._reported[next(iter(self._reported))]
        try:
            self._published(session, workflow.workflow_id, workflow.namespace, run=run, manages=manages, life=life)
        except Exception:  # noqa: BLE001 - the append has succeeded, and must not fail with its workflow
            _log.exception("a workflow could not be registered", session=session, workflow_id=workflow.workflow_id)


def _check(what: str, name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate: the request was not UTF-8
        raise RequestInvalidError(f"expected {what} in UTF-8, got {name[:64]!r}") from None
    if not 1 <= size <= MAX_WORKFLOW_BYTES:
        raise RequestInvalidError(f"expected {what} of 1 to {MAX_WORKFLOW_BYTES} bytes, got {size}")
