"""Turns as the messages of a thread, and requests for input as interrupts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from wakeline.gateway.transports.faces.parts import Part, Turn

MOST_BYTES: Final = 4 * 1024 * 1024
"""About the most bytes of a snapshot; clients refuse frames of more than 10 MiB. Older turns are left out."""

Message = dict[str, Any]


def messages(turns: Sequence[Turn]) -> list[Message]:
    """Return the messages of a thread, oldest first.

    A message with the id of an earlier one replaces that one and everything after it.
    """
    found: list[tuple[Turn, list[Message]]] = []
    for turn in turns:
        earlier = [at for at, (of, _) in enumerate(found) if turn.user and of.user and of.user["id"] == turn.user["id"]]
        if earlier:
            del found[earlier[0] :]
        found.append((turn, _of(turn)))
    kept: list[list[Message]] = []
    size = 0
    for _, each in reversed(found):
        size += len(msgspec.json.encode(each))
        if kept and size > MOST_BYTES:
            break
        kept.insert(0, each)
    return [message for each in kept for message in each]


def _of(turn: Turn) -> list[Message]:
    found: list[Message] = []
    if turn.user is not None:
        found.append({"id": str(turn.user.get("id")), "role": "user", "content": _content(turn.user)})
    for part in turn.parts:
        tag = {"subagentRunId": part.run} if part.run in turn.subs else {}
        found += [message | tag for message in _messages(part)]
    return found


def _content(user: Message) -> Any:
    parts = [part for part in user.get("parts", []) if isinstance(part, dict)]
    if all(part.get("type") == "text" for part in parts):
        return user.get("text", "")
    return [_part(part) for part in parts]


def _part(part: Message) -> Message:
    if part.get("type") != "file":
        return part
    mime = str(part.get("mediaType", ""))
    kind = mime.partition("/")[0]
    source = {"type": "url", "value": part.get("url"), "mimeType": mime}
    return {"type": kind if kind in ("image", "audio", "video") else "document", "source": source}


def _messages(part: Part) -> list[Message]:
    if part.kind == "text":
        return [{"id": part.key, "role": "assistant", "content": part.text}]
    if part.kind == "reasoning":
        return [{"id": part.key, "role": "reasoning", "content": part.text}]
    if part.kind == "data":
        return [{"id": part.key, "role": "activity", "activityType": part.name, "content": activity(part)}]
    if part.kind != "tool" or part.value is None:
        return []
    function = {"name": part.name, "arguments": arguments(part)}
    call: Message = {"id": f"call:{part.id}", "role": "assistant"}
    call["toolCalls"] = [{"id": part.id, "type": "function", "function": function}]
    if part.outcome is None:
        return [call]
    result = {"id": f"result:{part.id}", "role": "tool", "toolCallId": part.id, "content": result_of(part)}
    return [call, result | ({"error": part.error} if part.outcome == "failed" else {})]


def activity(part: Part) -> Message:
    """Return the content of an activity message, which is an object."""
    return part.value if isinstance(part.value, dict) else {"value": part.value}


def arguments(part: Part) -> str:
    """Return a tool call's arguments as text."""
    return part.input if isinstance(part.input, str) else msgspec.json.encode(part.input).decode()


def result_of(part: Part) -> str:
    """Return a tool call's outcome as text."""
    match part.outcome:
        case "failed":
            return part.error
        case "denied":
            return (part.request.why if part.request is not None else None) or "denied"
    return part.output if isinstance(part.output, str) else msgspec.json.encode(part.output).decode()


def interrupts(turn: Turn) -> list[Message]:
    """Return the open requests of a turn."""
    found: list[Message] = []
    for part in turn.open_requests:
        request = part.request
        assert request is not None
        schema = request.response_schema
        if request.choices is not None:
            schema = {"enum": request.choices}
        elif schema is None and request.is_approval:
            answer = {"approved": {"type": "boolean"}, "reason": {"type": "string"}}
            schema = {"type": "object", "properties": answer, "required": ["approved"]}
        fields = {
            "id": request.id,
            "reason": request.reason,
            "message": request.message,
            "toolCallId": request.tool_call_id,
            "responseSchema": schema,
            "expiresAt": request.expires_at,
            "metadata": request.metadata,
            "subagentRunId": part.run if part.run in turn.subs else None,
        }
        found.append({name: value for name, value in fields.items() if value is not None})
    return found
