"""The gateway's connection to one namespace of Temporal, which is remade, and its health."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

import msgspec
import structlog
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client
from temporalio.converter import ActivitySerializationContext, DataConverter, WorkflowSerializationContext
from temporalio.service import ConnectConfig, RPCError, RPCStatusCode, ServiceClient, TLSConfig

from wakeline.background import wait_at_most
from wakeline.exit import end_in_order
from wakeline.gateway.reaching.calls import CountedService
from wakeline.gateway.runtime import supervised
from wakeline.retry import Backoff
from wakeline.temporal.failures import is_no_namespace, is_throttled, is_unavailable

_CHECK_SECONDS: Final = 2.0
_NAMESPACE_SECONDS: Final = 60.0
_FIRST_REST: Final = 0.5
_LONGEST_REST: Final = 30.0
# The failure of a call is reported as health for so long: it may be the only call of its kind for a while.
_REMEMBERED_SECONDS: Final = 30.0
# From bad to worse.
_KINDS: Final = ("ok", "encoded", "invalid rule", "busy", "refused", "no such namespace", "unreachable")
_AWAY: Final = "Temporal is unavailable; the gateway serves its log and retries"
_LOGGED: Final = {
    "encoded": "a workflow's stream cannot be decoded",
    "invalid rule": "Temporal refuses the query of a rule that finds workflows",
    "busy": "Temporal has too many calls; the gateway makes fewer",
    "refused": "Temporal refuses calls of the gateway; check its credentials and permissions",
    "no such namespace": _AWAY,
    "unreachable": _AWAY,
}
_OUTAGES: Final = ("no such namespace", "unreachable")
# Troubles other than an outage come and go: each kind is logged again only after so long.
_LOGGED_AGAIN_SECONDS: Final = 600.0
_OUTAGE_SECONDS: Final = 30.0
"""The most seconds between two attempts during an outage."""

_AFTER_OUTAGE: Final = 1.0
"""The most seconds until the first attempt after an outage: the followed runs do not all begin at once."""

_REFUSALS: Final = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)
# The gateway does without the answers of these calls; a refusal of them is no trouble.
_DISPENSABLE: Final = ("DescribeTaskQueue", "DescribeWorkerDeploymentVersion")
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one namespace; `options.py` makes them of the settings.

    Attributes:
        address: `HOST:PORT`.
        namespace: The namespace's name.
        api_key: Sent with every call; it turns TLS on where `tls` says nothing.
        tls: Whether to use TLS, or with which certificates.
        rpc_metadata: Headers of every call.
        data_converter: What payloads are decoded with; None: the gateway holds no key, and payloads stay as they come.
    """

    address: str
    namespace: str = "default"
    api_key: str | None = None
    tls: TLSConfig | bool | None = None
    rpc_metadata: Mapping[str, str] = {}
    data_converter: DataConverter | None = None

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"Options(address={self.address!r}, namespace={self.namespace!r}, …)"


class Connection:
    """A Temporal client that need not be up.

    Args:
        options: The address and the credentials.
        count: Called with the name and the outcome of every call that is made.
    """

    def __init__(self, options: Options, count: Callable[[str, str], None] = lambda call, outcome: None) -> None:
        self.address = options.address
        self.namespace = options.namespace
        self.converter = options.data_converter
        self._options = options
        self._count = count
        self._state = "unreachable: not tried yet"
        self._logged: str | None = None  # the kind that was logged last
        self._logged_at: dict[str, float] = {}
        self._remembered: dict[str, tuple[float, str]] = {}
        self._client: Client | None = None
        self._checking: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._described_at = 0.0
        self._up = asyncio.Event()
        self._rest = 0.0
        self._rested_at = 0.0

    @property
    def client(self) -> Client:
        """The client; its calls raise `RPCError` while Temporal is unavailable."""
        assert self._client is not None, "expected a started connection"
        return self._client

    @property
    def health(self) -> str:
        """`ok`; or what is wrong and, after a colon, what was said: `badness` tells the kinds."""
        now = time.monotonic()
        remembered = [health for until, health in self._remembered.values() if now < until]
        return max([self._state, *remembered], key=badness)

    def up(self) -> bool:
        """Whether Temporal answers, and has the namespace."""
        return self._up.is_set()

    def converter_of(self, workflow_id: str) -> DataConverter | None:
        """Return the converter that decodes the payloads of a workflow, if any."""
        if self.converter is None:
            return None
        return self.converter.with_context(WorkflowSerializationContext(self.namespace, workflow_id))

    def converter_of_activity(self, activity_id: str) -> DataConverter | None:
        """Return the converter that decodes the payloads of a standalone activity, if any."""
        if self.converter is None:
            return None
        # The same members as the SDK's ActivityHandle sets: a handle may know no more than the id.
        context = ActivitySerializationContext(
            namespace=self.namespace,
            activity_id=activity_id,
            activity_type=None,
            activity_task_queue=None,
            workflow_id=None,
            workflow_type=None,
            is_local=False,
        )
        return self.converter.with_context(context)

    async def start(self) -> None:
        """Try to reach Temporal once, then continue in the background; may be called twice."""
        if self._checking is not None:
            return
        options = self._options
        end_in_order()
        service = await ServiceClient.connect(
            ConnectConfig(
                target_host=options.address,
                api_key=options.api_key,
                tls=options.tls,
                rpc_metadata=options.rpc_metadata,
                lazy=True,
            )
        )
        self._client = Client(
            CountedService(service, self._called),
            namespace=options.namespace,
            data_converter=options.data_converter or DataConverter.default,
        )
        await self._check()
        self._checking = supervised(f"connection to {self.namespace}", self._keep_checking)

    async def stop(self) -> None:
        """Stop polling, and end the calls whose callers are gone."""
        for call in self._calls:
            call.cancel()
        if self._checking is not None:
            self._checking.cancel()

    async def to_its_end(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call that runs to its end or time-out even if the caller is cancelled."""
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._call_is_over)
        return await asyncio.shield(task)

    def _call_is_over(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        _ = task.cancelled() or task.exception()  # the caller may be gone

    async def until_up(self) -> None:
        """Return when Temporal answers, and has the namespace."""
        await self._up.wait()

    def calm(self) -> bool:
        """Whether a call may be made, as far as Temporal has said."""
        return time.monotonic() >= self._rested_at

    async def until_calm(self) -> None:
        """Return when a call may be made: at once, unless Temporal has had too many lately.

        Callers that wait together do not return together.
        """
        if (left := self._rested_at - time.monotonic()) > 0:
            await asyncio.sleep(left * (1 + random.random()))

    async def after_failure(self, backoff: Backoff) -> None:
        """Wait before the next attempt; during an outage, until the connection works again."""
        pause = backoff.pause()
        if self.up():
            await asyncio.sleep(pause)
        else:
            await wait_at_most(_OUTAGE_SECONDS, self.until_up())
            await asyncio.sleep(_AFTER_OUTAGE * random.random())

    def failed(self, error: RPCError) -> None:
        """Change the health after a failed call, rather than at the next check."""
        if is_no_namespace(error):
            self._note(f"no such namespace: {error.message}")
        elif is_unavailable(error):
            self._note(f"unreachable: {error.message}")
        elif error.status in _REFUSALS:
            self.remember(f"refused: {error.message}")
        elif is_throttled(error):
            self.remember(f"busy: {error.message}")
            self._throttled()

    def remember(self, health: str, seconds: float = 0.0) -> None:
        """Report this as the health for a while, unless there is something worse.

        Args:
            health: Its kind, as `badness` knows them, and after a colon what was said.
            seconds: For so long, if that is longer than the default.
        """
        until = time.monotonic() + max(seconds, _REMEMBERED_SECONDS)
        self._remembered[_kind(health)] = (until, health)
        self._log_change()

    def _called(self, call: str, outcome: str, error: RPCError | None) -> None:
        self._count(call, outcome)
        if error is not None and not (call in _DISPENSABLE and error.status in _REFUSALS):
            self.failed(error)

    def _throttled(self) -> None:
        now = time.monotonic()
        if now < self._rested_at:
            return  # those who were on their way together count once
        soon = now - self._rested_at < _REMEMBERED_SECONDS
        self._rest = min(self._rest * 2, _LONGEST_REST) if soon and self._rest else _FIRST_REST
        self._rested_at = now + self._rest

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self._check()

    async def _check(self) -> None:
        """Ask the server, and now and then, or when something is wrong, for the namespace."""
        timeout = timedelta(seconds=_CHECK_SECONDS)
        service = self.client.workflow_service
        try:
            await service.get_system_info(GetSystemInfoRequest(), timeout=timeout)
            if self._state != "ok" or time.monotonic() - self._described_at > _NAMESPACE_SECONDS:
                await service.describe_namespace(DescribeNamespaceRequest(namespace=self.namespace), timeout=timeout)
                self._described_at = time.monotonic()
        except RPCError as error:
            if is_throttled(error):
                self._note("ok")  # it answers, if only to say that it is busy; that has been noted
            elif is_no_namespace(error):
                self._note(f"no such namespace: {error.message}")
            else:
                self._note(f"{'refused' if error.status in _REFUSALS else 'unreachable'}: {error.message}")
        else:
            self._note("ok")

    def _note(self, health: str) -> None:
        self._state = health
        if health == "ok":
            self._up.set()
        else:
            self._up.clear()
        self._log_change()

    def _log_change(self) -> None:
        """Log the health unless its kind was logged last; the first check is logged, too."""
        health, now = self.health, time.monotonic()
        if (kind := _kind(health)) == self._logged:
            return
        was_away = self._logged is None or self._logged in _OUTAGES
        rare = kind not in ("ok", *_OUTAGES) and not was_away  # after an outage every kind shows that Temporal answers
        if rare and now < self._logged_at.get(kind, -_LOGGED_AGAIN_SECONDS) + _LOGGED_AGAIN_SECONDS:
            return
        where = {"address": self.address, "namespace": self.namespace}
        if kind == "ok":
            _log.info("Temporal answers" if was_away else "calls of Temporal succeed again", **where)
        else:
            _log.warning(_LOGGED[kind], **where, health=health)
        self._logged, self._logged_at[kind] = kind, now


def badness(health: str) -> int:
    """How bad it is, to compare."""
    return _KINDS.index(_kind(health))


def _kind(health: str) -> str:
    return health.split(":")[0]
