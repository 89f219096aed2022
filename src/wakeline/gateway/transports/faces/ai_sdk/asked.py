"""The body of a request of the AI SDK's `DefaultChatTransport`."""

from __future__ import annotations

import uuid
from hashlib import sha256
from typing import Any, Final

import msgspec

from wakeline.errors import BodyInvalidError
from wakeline.gateway.transports.faces.sending import Given, UserMessage

_OWN: Final = frozenset({"id", "messages", "trigger", "messageId"})


class _Message(msgspec.Struct):
    id: str
    role: str
    parts: list[dict[str, Any]] = []


class _Body(msgspec.Struct):
    id: str
    messages: list[msgspec.Raw]
    trigger: str = "submit-message"


class Asked(msgspec.Struct):
    """A request to answer a user's message, or to go on after answers.

    Attributes:
        session: The chat's id, which names the session.
        message: The user's message; None if the request continues an answer.
        given: The answers to requests for input in the last message.
        answered: The id of the last message, if that is the answer that the request continues.
        steps: The steps that the client has of it.
        texts: The texts that the client has of it.
    """

    session: str
    message: UserMessage | None = None
    given: list[Given] = []
    answered: str | None = None
    steps: int = 0
    texts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, body: bytes) -> Asked:
        """Return what a request asks.

        Raises:
            BodyInvalidError: It is not a request of the AI SDK.
        """
        try:
            asked = msgspec.json.decode(body, type=_Body)
            if not asked.messages:
                raise BodyInvalidError('expected messages with at least one message, got "messages": []')
            last = msgspec.json.decode(asked.messages[-1], type=_Message)
            others = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BodyInvalidError(
                f'expected {{"id": "…", "messages": [{{"id", "role", "parts"}}], "trigger"?, "messageId"?}}, got: {error}',
                hint="Use the AI SDK's DefaultChatTransport, version 6 or 7.",
            ) from None
        if last.role == "user":
            options = {name: msgspec.json.decode(value) for name, value in others.items() if name not in _OWN}
            return cls(asked.id, UserMessage(_key(asked, last), last.id, last.parts, options))
        texts = tuple(str(part.get("text")) for part in last.parts if part.get("type") in ("text", "reasoning"))
        steps = sum(part.get("type") == "step-start" for part in last.parts)
        return cls(asked.id, None, _given(last.parts), last.id, steps, texts)


def _key(asked: _Body, message: _Message) -> str:
    """Return the input's key: equal for equal messages, new if an answer is generated again."""
    again = uuid.uuid4().hex if asked.trigger == "regenerate-message" else None
    content = msgspec.json.encode([message.id, message.parts, again], order="sorted")
    return f"ai-{sha256(content).hexdigest()[:32]}"


def _given(parts: list[dict[str, Any]]) -> list[Given]:
    """Return the answers in the tool calls of the last message."""
    given: list[Given] = []
    for part in parts:
        call, approval = str(part.get("toolCallId")), part.get("approval")
        match part.get("state"):
            case "approval-responded" if isinstance(approval, dict):
                reason = approval.get("reason")
                approved = bool(approval.get("approved"))
                given.append(Given(str(approval.get("id")), approved, reason if isinstance(reason, str) else None))
            case "output-available" if not part.get("providerExecuted"):
                given.append(Given(call, payload=part.get("output"), is_call=True))
            case "output-error" if not part.get("providerExecuted"):
                given.append(Given(call, cancelled=True, is_call=True))
    return given
