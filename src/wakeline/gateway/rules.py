"""Rules in the settings: workflows that are followed, notifications, inputs and faces."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

RunStatus = Literal["completed", "failed", "canceled", "terminated", "timed_out", "unknown"]

PartKind: TypeAlias = Literal["text", "reasoning", "tool", "step", "usage", "data", "finish", "hidden"]


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
        remembered: Seconds for which an outcome is remembered, of an input or of a request for input.
        session_pending: Most inputs of one session without an outcome, at one gateway.
        session_pending_bytes: Most bytes of their arguments, and of what they show.
        user_pending: Most inputs of one user without an outcome, at one gateway.
        user_pending_bytes: Most bytes of their arguments, and of what they show.
    """

    start: dict[str, Start] = {}
    schemas: dict[str, Any] = {}
    after_reset: Literal["report", "send"] = "report"
    remembered: Annotated[float, Meta(ge=86_400)] = 604_800.0
    session_pending: Annotated[int, Meta(ge=1)] = 1_000
    session_pending_bytes: Annotated[int, Meta(ge=192 * 1024)] = 8 * 1024 * 1024
    user_pending: Annotated[int, Meta(ge=1)] = 1_000
    user_pending_bytes: Annotated[int, Meta(ge=192 * 1024)] = 8 * 1024 * 1024


class Face(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule for the sessions that chat frontends use.

    Attributes:
        sessions: The sessions, or prefixes that end in `*`.
        kind: The kind of input that carries a user's message, and how a turn ends: an update when it completes, a start
            when its run closes, a signal at an event whose topic has the kind `finish`.
        name: The name of the update or signal; of a start, the name of its rule in `inputs.start`.
        start: The rule in `inputs.start` by which an update starts its workflow.
        stop: The input that stops a turn: `$cancel`, `$terminate`, or the name of a signal.
        topics: What the events of topics are shown as, by topic or a prefix that ends in `*`.
    """

    sessions: Annotated[tuple[str, ...], Meta(min_length=1)] = ("*",)
    kind: Literal["update", "signal", "start"] = "start"
    name: str = ""
    start: str | None = None
    stop: Annotated[str, Meta(min_length=1)] = "$cancel"
    topics: dict[str, PartKind] = {}

    def __post_init__(self) -> None:
        """Refuse a rule whose messages would each be refused.

        Raises:
            ValueError: It has `start` with another kind than `update`.
        """
        if self.start is not None and self.kind != "update":
            raise ValueError(f"expected no start with kind = {self.kind!r}: only an update can start its workflow")

    def kind_of(self, topic: str) -> PartKind | None:
        """Return the kind of a topic, by the longest prefix; None if no entry names it."""
        if topic in self.topics:
            return self.topics[topic]
        prefixes = [name for name in self.topics if name.endswith("*") and topic.startswith(name[:-1])]
        return self.topics[max(prefixes, key=len)] if prefixes else None


class Namespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The connection to one more namespace of Temporal.

    A member that is missing is as for the main namespace; an empty one means none.

    Attributes:
        address: `HOST:PORT`.
        api_key: As `temporal_api_key`. With this or a certificate, none of the main one's credentials apply.
        tls: As `temporal_tls`; with `false`, none of the main one's credentials apply.
        tls_client_cert: As `temporal_tls_client_cert`.
        tls_client_key: As `temporal_tls_client_key`.
        tls_server_ca: As `temporal_tls_server_ca`.
        tls_server_name: As `temporal_tls_server_name`.
        profile: As `temporal_profile`; with it, none of the main one's members apply.
        config_file: As `temporal_config_file`.
        data_converter: As `data_converter`.
    """

    address: str | None = None
    api_key: str | None = None
    tls: bool | None = None
    tls_client_cert: str | None = None
    tls_client_key: str | None = None
    tls_server_ca: str | None = None
    tls_server_name: str | None = None
    profile: str | None = None
    config_file: str | None = None
    data_converter: str | None = None

    def __repr__(self) -> str:
        """Return the class's name only, because the API key is a secret."""
        return "Namespace(…)"
