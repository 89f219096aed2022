"""The neutral model: a conversation's turns and their parts, whatever protocol shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

from wakeline.compact.entries import Message
from wakeline.gateway.rules import PartKind

TurnStatus: TypeAlias = Literal["running", "completed", "failed", "canceled", "terminated", "timed_out", "unknown"]

_TOOL_ENDS: Final = ("returned", "failed")
_text = msgspec.json.Decoder(str)


class Request(msgspec.Struct):
    """A request for input, with its outcome once it has one.

    Attributes:
        id: Its id.
        reason: Why it was asked.
        kind: `tool` if a device runs it.
        message: The question.
        choices: The possible answers.
        response_schema: The JSON Schema of an answer.
        expires_at: When it expires.
        tool_call_id: The tool call that it belongs to.
        metadata: Further data.
        status: `open`, or how it was closed.
        payload: The answer.
    """

    id: str
    reason: str
    kind: str = "question"
    message: str | None = None
    choices: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    expires_at: str | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Any] | None = None
    status: str = "open"
    payload: Any = None

    @property
    def is_approval(self) -> bool:
        """Whether yes or no answers it."""
        if self.kind == "tool":
            return False
        if self.choices is not None:
            return len(self.choices) == 2
        schema = self.response_schema
        return schema is None or schema.get("type") == "boolean" or "approved" in schema.get("properties", ())

    @property
    def approved(self) -> bool:
        """Whether the answer is yes."""
        if self.status != "resolved":
            return False
        if self.choices is not None:
            return bool(self.payload == self.choices[0])
        return bool(self.payload.get("approved") if isinstance(self.payload, dict) else self.payload)

    @property
    def why(self) -> str | None:
        """The reason that the answer gives, or how the request ended without one."""
        if self.status != "resolved":
            return self.status
        reason = self.payload.get("reason") if isinstance(self.payload, dict) else None
        return reason if isinstance(reason, str) else None

    def verdict(self, approved: bool, reason: str | None) -> Any:
        """Return the payload that says yes or no, in the form that the request wants."""
        if self.choices is not None:
            return self.choices[0 if approved else 1]
        if self.response_schema is not None and self.response_schema.get("type") == "boolean":
            return approved
        return {"approved": approved} | ({} if reason is None else {"reason": reason})


@dataclass(eq=False, slots=True)
class Part:
    """One part of what a turn shows.

    Attributes:
        id: Its id, unique among the parts of its kind.
        kind: What it is.
        name: The tool's name; of other parts their topic.
        first: The offset of its first event.
        step: The step of its turn that it began in.
        run: The run that published it.
        value: The latest value of a part that is no text; of a tool its published event.
        message: The growing message that a text or reasoning comes from.
        request: The request for input that belongs to this tool call.
        complete: Whether the text is complete.
        fresh: Text that was appended since the part was shown last.
    """

    id: str
    kind: PartKind
    name: str
    first: int
    step: int
    run: str | None = None
    value: Any = None
    message: Message | None = None
    request: Request | None = None
    complete: bool = False
    fresh: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Its id among parts of all kinds, since ids of messages are unique within a topic."""
        return f"{self.name}:{self.id}"

    @property
    def is_text(self) -> bool:
        """Whether it is text that grows."""
        return self.kind in ("text", "reasoning")

    @property
    def text(self) -> str:
        """The whole text."""
        if self.message is None or not self.message.segments:
            return ""
        try:
            return _text.decode(self.message.value())
        except msgspec.DecodeError:  # a later event has set a value that is no text
            return self.message.value().decode()

    @property
    def is_pending(self) -> bool:
        """Whether it is a tool call without an outcome."""
        return self.kind == "tool" and self.outcome is None

    @property
    def outcome(self) -> Literal["returned", "failed", "denied"] | None:
        """How the tool call ended; None while it has not."""
        state = self.value.get("state") if isinstance(self.value, dict) else None
        if state in _TOOL_ENDS:
            return "returned" if state == "returned" else "failed"
        request = self.request
        if request is None or request.status == "open":
            return None
        if request.is_approval and not request.approved:
            return "denied"
        if self.value is None or not request.is_approval:  # without a value there is no tool beside the request
            return "returned" if request.status == "resolved" else "failed"
        return None

    @property
    def input(self) -> Any:
        """The arguments of a tool call; of a request without a tool, what it asks."""
        if isinstance(self.value, dict):
            return self.value.get("arguments")
        request = self.request
        if request is None:
            return None
        asked = {"message": request.message, "choices": request.choices, "metadata": request.metadata}
        asked |= {"responseSchema": request.response_schema, "expiresAt": request.expires_at}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def output(self) -> Any:
        """The result of a tool call that has returned."""
        if isinstance(self.value, dict) and "state" in self.value and self.value["state"] in _TOOL_ENDS:
            return self.value.get("result")
        return None if self.request is None else self.request.payload

    @property
    def error(self) -> str:
        """The reason why a tool call has failed."""
        failed = self.value.get("error") if isinstance(self.value, dict) else None
        if failed is None and self.request is not None:
            return self.request.why or ""
        return failed if isinstance(failed, str) else msgspec.json.encode(failed).decode()


@dataclass(eq=False, slots=True)
class Sub:
    """A run beside the turn's own one: a sub-agent.

    Attributes:
        run: Its name.
        name: The workflow's type.
        status: `running`, or how it ended.
        failure: Why it failed.
    """

    run: str
    name: str
    status: TurnStatus = "running"
    failure: str | None = None


@dataclass(eq=False, slots=True)
class Turn:
    """A user's message and everything that answers it.

    Attributes:
        id: The input's key, or the name of the run.
        first: The offset where it begins.
        user: The user's message as its frontend has sent it; None for a run that no message has started.
        kind: The kind of the input that began it; None for a run.
        run: The run that answers.
        parts: Its parts, in the order of their first events.
        subs: The other runs of the session that began during the turn.
        usage: The used tokens, by the id of their user.
        step: The current step; each answered request begins another one.
        status: `running`, or how it ended.
        failure: Why it failed.
        ends_with_run: Whether its update was cut off by the end of its run, which tells how it ended.
        certain: Whether no part can follow its end; an update may complete before the last output of its run is read.
        reset: The first step with a part that was replaced or removed since the turn was shown last; None for none.
    """

    id: str
    first: int
    user: dict[str, Any] | None = None
    kind: str | None = None
    run: str | None = None
    parts: list[Part] = field(default_factory=list)
    subs: dict[str, Sub] = field(default_factory=dict)
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    step: int = 0
    status: TurnStatus = "running"
    failure: str | None = None
    ends_with_run: bool = False
    certain: bool = True
    reset: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.status == "running"

    @property
    def open_requests(self) -> list[Part]:
        """The parts whose requests can be answered."""
        return [part for part in self.parts if part.request is not None and part.request.status == "open"]

    @property
    def is_waiting(self) -> bool:
        """Whether it goes on only after people have answered."""
        if not self.is_running or not self.open_requests:
            return False
        return all(part.request is not None for part in self.parts if part.is_pending)

    def changed(self, part: Part) -> None:
        """Note that a part was replaced or removed, so that its step must be shown again."""
        self.reset = part.step if self.reset is None else min(self.reset, part.step)

    def tokens(self) -> dict[str, int]:
        """Return the sums of the used tokens."""
        names = ("input_tokens", "output_tokens", "total_tokens")
        return {name: sum(int(used.get(name) or 0) for used in self.usage.values()) for name in names}
