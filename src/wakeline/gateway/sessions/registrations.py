"""The workflows that publishers name: each is told to the part that follows workflows once, and not with every append."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

import msgspec
import structlog

from wakeline.errors import RequestInvalidError
from wakeline.gateway.access import Grant

MAX_WORKFLOW_BYTES: Final = 1000
"""As long as Temporal lets an id be."""

_KEPT: Final = 10_000
_AGAIN_SECONDS: Final = 60.0
_log = structlog.get_logger(__name__)


class NamedWorkflow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A workflow, as a caller names it.

    Attributes:
        workflow_id: The Workflow Id.
        namespace: Its namespace; None for the gateway's own.
    """

    workflow_id: str
    namespace: str | None = None

    def checked(self) -> NamedWorkflow:
        """Itself, if there may be such a workflow.

        Raises:
            RequestInvalidError: There cannot.
        """
        _check("a Workflow Id", self.workflow_id)
        if self.namespace is not None:
            _check("a namespace", self.namespace)
        return self


def named_workflow(workflow: str | None, namespace: str | None) -> NamedWorkflow | None:
    """The workflow that a publisher names as its own; None where it names none.

    Raises:
        RequestInvalidError: There can be no such workflow, or there is a namespace alone.
    """
    if workflow is None:
        if namespace is not None:
            raise RequestInvalidError("expected a namespace only with a workflow, got a namespace alone")
        return None
    return NamedWorkflow(workflow, namespace).checked()


class Published(Protocol):
    """Is told that a publisher of a session names a workflow: see `Upstream.published`."""

    def __call__(
        self, session: str, workflow_id: str, namespace: str | None, *, run: str | None, manages: bool
    ) -> None:
        """See there."""


class Registrations:
    """Tells which workflow publishes into which session.

    The same is told again for another run, for a caller who may more, and after a minute: the workflow may have been started
    meanwhile, or Temporal may be back.

    Args:
        published: Is told; None where no workflows are followed.
        run_of: Names the run that a Temporal run belongs to in a session.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        published: Published | None,
        run_of: Callable[[str, str], str] = lambda session, run_id: run_id,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._published = published
        self._run_of = run_of
        self._clock = clock
        self._told: dict[tuple[object, ...], float] = {}  # oldest first

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._told)

    def run_of(self, session: str, run: str | None) -> str | None:
        """The run whose output a publisher's is, by the one that it names."""
        return None if run is None else self._run_of(session, run)

    def tell(self, session: str, workflow: NamedWorkflow | None, run: str | None, grant: Grant) -> None:
        """A publisher has opened or appended.

        Args:
            session: Where.
            workflow: The workflow that it names, if any.
            run: The run that it names, if any.
            grant: What it may.
        """
        if workflow is None or self._published is None:
            return
        manages = grant.may("manage", session) and grant.registers(workflow.workflow_id)
        key = (session, workflow.workflow_id, workflow.namespace, run, manages)
        now = self._clock()
        last = self._told.get(key)
        if last is not None and now < last + _AGAIN_SECONDS:
            return
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > _KEPT:
            del self._told[next(iter(self._told))]
        try:
            self._published(session, workflow.workflow_id, workflow.namespace, run=run, manages=manages)
        except Exception:  # noqa: BLE001 - what was appended is there, whatever becomes of its workflow
            _log.exception("a workflow could not be registered", session=session, workflow_id=workflow.workflow_id)


def _check(what: str, name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a lone surrogate: what came was not UTF-8
        raise RequestInvalidError(f"expected {what} in UTF-8, got {name[:64]!r}") from None
    if not 1 <= size <= MAX_WORKFLOW_BYTES:
        raise RequestInvalidError(f"expected {what} of 1 to {MAX_WORKFLOW_BYTES} bytes, got {size}")
