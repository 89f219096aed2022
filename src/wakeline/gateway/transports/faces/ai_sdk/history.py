"""Turns as the UI messages with which a page begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from wakeline.gateway.transports.faces.ai_sdk.encoding import usage
from wakeline.gateway.transports.faces.parts import Part, Turn

_STATES: Final = {"returned": "output-available", "failed": "output-error", "denied": "output-denied"}


def ui_messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Return the messages of a conversation, without the answer that still runs.

    A message with the id of an earlier one, edited or to be answered again, replaces that one and everything after it.
    """
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if turn.user is not None:
            earlier = [at for at, message in enumerate(messages) if message["id"] == turn.user.get("id")]
            if earlier:
                del messages[earlier[0] :]
            messages.append({"id": turn.user.get("id"), "role": "user", "parts": turn.user.get("parts", [])})
        if not turn.is_running and turn.parts:
            messages.append(_answer(turn))
    return messages


def _answer(turn: Turn) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "step-start"}]
    step = 0
    for part in turn.parts:
        if part.step > step:
            step = part.step
            parts.append({"type": "step-start"})
        parts.append(_part(part))
    message: dict[str, Any] = {"id": turn.id, "role": "assistant", "parts": parts}
    return message | ({"metadata": {"usage": usage(turn)}} if turn.usage else {})


def _part(part: Part) -> dict[str, Any]:
    if part.is_text:
        return {"type": part.kind, "text": part.text, "state": "done"}
    if part.kind != "tool":
        return {"type": f"data-{part.name}", "id": part.id, "data": part.value}
    outcome, request = part.outcome or "returned", part.request
    shown: dict[str, Any] = {"type": f"tool-{part.name}", "toolCallId": part.id, "input": part.input}
    shown["state"] = _STATES[outcome]
    if outcome == "returned":
        shown["output"] = part.output
    if outcome == "failed":
        shown["errorText"] = part.error
    if request is None or request.is_approval:
        shown["providerExecuted"] = True
    if request is not None and request.is_approval and (outcome == "denied" or request.approved):
        approval = {"id": request.id, "approved": request.approved, "reason": request.why}
        shown["approval"] = {name: value for name, value in approval.items() if value is not None}
    return shown
