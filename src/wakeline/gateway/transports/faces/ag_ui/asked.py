"""The body of a request of AG-UI's `HttpAgent`: RunAgentInput."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Final

import msgspec

from wakeline.errors import BodyInvalidError
from wakeline.gateway.transports.faces.sending import Given, UserMessage

_KEY: Final = re.compile("[!-~]{1,128}")
_OPTIONS: Final = ("tools", "context", "state", "forwardedProps")


class _Message(msgspec.Struct, rename="camel"):
    id: str
    role: str
    content: Any = None
    tool_call_id: str | None = None


class _Resume(msgspec.Struct, rename="camel"):
    interrupt_id: str
    status: str
    payload: Any = None


class _Input(msgspec.Struct, rename="camel"):
    thread_id: str
    run_id: str
    messages: list[msgspec.Raw] = []
    resume: list[_Resume] | None = None


class Asked(msgspec.Struct):
    """A request to run: a user's message, answers, or neither.

    Attributes:
        thread: The thread, as the client names it.
        run: The run, as the client names it.
        message: The user's message; None if there is no new one.
        given: The answers to requests for input.
    """

    thread: str
    run: str
    message: UserMessage | None
    given: list[Given]

    @classmethod
    def parse(cls, body: bytes) -> Asked:
        """Return what a request asks.

        Raises:
            BodyInvalidError: It is no RunAgentInput.
        """
        try:
            asked = msgspec.json.decode(body, type=_Input)
            last = msgspec.json.decode(asked.messages[-1], type=_Message) if asked.messages else None
            others = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BodyInvalidError(
                f'expected RunAgentInput, {{"threadId", "runId", "messages", "resume"?, …}}, got: {error}',
                hint="Use HttpAgent of @ag-ui/client 1.0.",
            ) from None
        given = [
            Given(each.interrupt_id, payload=each.payload, cancelled=each.status == "cancelled")
            for each in asked.resume or []
        ]
        message = None
        if last is not None and last.role == "user" and not given:
            options: dict[str, Any] = {name: msgspec.json.decode(others[name]) for name in _OPTIONS if name in others}
            used = {name: value for name, value in options.items() if value}
            message = UserMessage(_key(asked.run_id), last.id, _parts(last.content), used)
        elif last is not None and last.role == "tool" and last.tool_call_id is not None and not given:
            given = [Given(last.tool_call_id, payload=_value(last.content), is_call=True)]
        return cls(asked.thread_id, asked.run_id, message, given)


def _key(run: str) -> str:
    """Return the input's key of a run: a client that repeats a request repeats its run's id."""
    return run if _KEY.fullmatch(run) and run not in (".", "..") else f"run-{sha256(run.encode()).hexdigest()[:32]}"


def _parts(content: Any) -> list[Any]:
    """Return the content of a user's message in the form that faces share."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts: list[Any] = []
    for part in content if isinstance(content, list) else []:
        source = part.get("source") if isinstance(part, dict) else None
        if not isinstance(source, dict):
            parts.append(part)
            continue
        mime = source.get("mimeType", "application/octet-stream")
        value = source.get("value", "")
        url = f"data:{mime};base64,{value}" if source.get("type") == "data" else value
        parts.append({"type": "file", "mediaType": mime, "url": url})
    return parts


def _value(content: Any) -> Any:
    """Return a tool's result, which AG-UI sends as text."""
    if not isinstance(content, str):
        return content
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        return content
