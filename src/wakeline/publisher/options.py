"""The options of a publisher: their types and their checks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from wakeline.buffer import WhenFull
from wakeline.errors import RequestInvalidError
from wakeline.events import check_session_name
from wakeline.publisher.errors import PublishDroppedError
from wakeline.publisher.frames import Identity
from wakeline.publisher.values import Converter
from wakeline.text import whole

if TYPE_CHECKING:
    from temporalio.client import Client

    from wakeline.publisher.route import Route

OnUnavailable: TypeAlias = Literal["block", "error", "spool", "workflow"]


class PublisherOptions(TypedDict, total=False):
    """Options of a publisher; `SessionPublisher` documents each."""

    publisher: str | None
    attempt: int
    run: str | None
    activity: str | None
    workflow: str | None
    namespace: str | None
    supersede: bool | None
    resume: bool
    linger: timedelta
    max_batch: int
    max_buffer: int
    when_full: WhenFull
    max_retry_duration: timedelta
    on_unavailable: OnUnavailable
    spool: str | PathLike[str] | None
    data_converter: Converter | None
    on_dropped: Callable[[PublishDroppedError], Any] | None
    temporal_client: Client | None


def check_identity(identity: Identity) -> None:
    """Check the names and numbers under which a publisher publishes.

    Raises:
        RequestInvalidError: A name or the attempt is invalid, or there is a namespace without a workflow.
        SessionNameInvalidError: The session's name is invalid.
    """
    workflow, namespace = identity.workflow, identity.namespace
    if not 1 <= identity.attempt <= 2**31 - 1:
        raise RequestInvalidError(f"expected an attempt of 1 or more, got {identity.attempt}")
    if workflow == "" or namespace == "" or (namespace is not None and workflow is None):
        raise RequestInvalidError(
            f"expected a workflow, and a namespace only with it, got workflow={workflow!r} and namespace={namespace!r}"
        )
    check_names(
        publisher=identity.publisher,
        run=identity.run,
        activity=identity.activity,
        workflow=workflow,
        namespace=namespace,
    )
    check_session_name(identity.session)


def check_route(route: Route, max_buffer: int, when_full: str) -> None:
    """Check the options of a publisher's buffer and of its route.

    Raises:
        RequestInvalidError: An option is invalid, or does not go with another one.
    """
    linger, max_batch, max_retry_duration = route.linger, route.max_batch, route.max_retry_duration
    on_unavailable, spool = route.on_unavailable, route.spool
    if max_batch < 1 or max_buffer < 1:
        raise RequestInvalidError(f"expected max_batch and max_buffer of 1 or more, got {max_batch} and {max_buffer}")
    if linger < timedelta(0) or max_retry_duration <= timedelta(0):
        raise RequestInvalidError(
            f"expected linger of 0 or more and max_retry_duration over 0, got {linger} and {max_retry_duration}"
        )
    if when_full not in ("block", "error", "drop_oldest", "coalesce"):
        raise RequestInvalidError(f"expected when_full of block, error, drop_oldest or coalesce, got {when_full!r}")
    if on_unavailable not in ("block", "error", "spool", "workflow"):
        raise RequestInvalidError(f"expected on_unavailable of block, error, spool or workflow, got {on_unavailable!r}")
    if (on_unavailable == "spool") != (spool is not None):
        raise RequestInvalidError(
            f"expected spool='FILE' and on_unavailable='spool' together, got {spool!r} and {on_unavailable!r}"
        )
    if on_unavailable == "workflow" and route.temporal_client is None:
        raise RequestInvalidError(
            "expected temporal_client=… with on_unavailable='workflow', got none: it signals the session's workflow"
        )


def check_names(*, publisher: str | None, **names: str | None) -> None:
    """Check that names can be sent; an invalid one could break the shared connection.

    Raises:
        RequestInvalidError: A name is not UTF-8, or `publisher` is not 1 to 256 visible ASCII characters.
    """
    if publisher is not None and not (1 <= len(publisher) <= 256 and publisher.isascii() and publisher.isprintable()):
        raise RequestInvalidError(f"expected a publisher of 1 to 256 visible ASCII characters, got {publisher[:64]!r}")
    for what, name in names.items():
        if name is not None and whole(name) != name:
            raise RequestInvalidError(f"expected {what} to be UTF-8, got {name[:64]!r}")
