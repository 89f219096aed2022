"""Rules in the settings: tables for workflows that are followed, notifications and inputs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

RunStatus = Literal["completed", "failed", "canceled", "terminated", "timed_out", "unknown"]


class Follow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule for workflows that are followed by themselves; all of its conditions must hold.

    Attributes:
        workflow_type: Their type, or a prefix of it that ends in `*`.
        workflow_id: Their Workflow Id, or a prefix of it that ends in `*`.
        task_queue: Their task queue.
        query: A further condition in the query language of visibility.
        namespace: Their namespace; the main one by default.
        session: The name of each one's session, composed of text and `{workflow_id}`, `{workflow_type}`, `{parent_workflow_id}`,
            `{root_workflow_id}` and `{task_queue}`.
        result: Publish the results with which they complete.
    """

    workflow_type: str | None = None
    workflow_id: str | None = None
    task_queue: str | None = None
    query: str | None = None
    namespace: str | None = None
    session: str = "{workflow_id}"
    result: bool = False


class Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule for the events of which users are notified, if none of their devices has seen them.

    Attributes:
        topics: Their topics, or prefixes that end in `*`.
        statuses: Of `$run.closed`, only ends with these statuses; none: all.
        sessions: Their sessions, or prefixes that end in `*`.
        users: The users to notify; none: all who have a device in the session.
        channels: The channels to notify through; none: all.
        grace: Seconds from the event to the decision.
        unless: The position of a user's device that makes a notification unnecessary.
        digest: Events of rules with the same name here become one notification; none: the rule's own name.
        critical: Notify at once, and of each event alone.
        by_publisher: Only events whose publisher asks for it (`notify`), with its `for`, `digest` and `critical`.
        links: Notifications of requests for input have links with which the users in its audience answer it.
    """

    topics: Annotated[tuple[str, ...], Meta(min_length=1)]
    statuses: tuple[RunStatus, ...] = ()
    sessions: tuple[str, ...] = ("*",)
    users: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    grace: Annotated[float, Meta(ge=0)] = 30.0
    unless: Literal["seen", "delivered"] = "seen"
    digest: str = ""
    critical: bool = False
    by_publisher: bool = False
    links: bool = False


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule for a workflow that inputs start.

    Attributes:
        sessions: The sessions whose workflow it is, or prefixes that end in `*`.
        workflow_type: The workflow's type.
        task_queue: Its task queue.
        workflow_id: Its Workflow Id, composed of text and `{session}`.
        namespace: Its namespace; the main one by default.
        args: Its arguments, unless the input has some.
        update: Whether an update that finds no open run in the session starts it.
        id_reuse: Whether it is started again after its last run has ended.
        id_conflict: The outcome of a start while a run is open: that run, or a failure.
    """

    sessions: Annotated[tuple[str, ...], Meta(min_length=1)]
    workflow_type: Annotated[str, Meta(min_length=1)]
    task_queue: Annotated[str, Meta(min_length=1)]
    workflow_id: Annotated[str, Meta(min_length=1)] = "{session}"
    namespace: str | None = None
    args: list[Any] = []
    update: bool = False
    id_reuse: Literal["allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate"] = "allow_duplicate"
    id_conflict: Literal["use_existing", "fail"] = "use_existing"


class InputRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules for inputs.

    Attributes:
        start: The workflows that inputs start, by name.
        schemas: JSON Schemas of arguments, by the names of the signals and updates, or of rules as `$start.NAME`.
        after_reset: What becomes of a signal that a reset has undone: it is reported, or sent to the new run again.
    """

    start: dict[str, Start] = {}
    schemas: dict[str, Any] = {}
    after_reset: Literal["report", "send"] = "report"
