"""A turn as chunks of the AI SDK's UI message stream."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from wakeline.gateway.transports.faces.parts import Part, Turn
from wakeline.gateway.transports.sse import HEADERS as SSE_HEADERS

HEADERS: Final = {**SSE_HEADERS, "x-vercel-ai-ui-message-stream": "v1"}

_DONE: Final = b"data: [DONE]\n\n"
_RESET: Final = "An earlier attempt's output was taken back. Resume the stream to continue."

Chunk = dict[str, Any]


class UiMessageStream:
    """Shows a turn as one assistant message.

    Args:
        version: The client's major version of `ai`: version 6 has no chunk that takes parts back.
        steps: The steps that the client has of the message already; 0 for a new message.
        texts: The texts that it has.

    Attributes:
        is_over: Whether parts were taken back that no chunk can take back here.
    """

    def __init__(self, *, version: int = 7, steps: int = 0, texts: Collection[str] = ()) -> None:
        self.is_over = False
        self._version = version
        self._known_steps = steps
        self._known_texts = set(texts)
        self._step = 0
        self._shown: dict[Part, _Shown] = {}

    def begin(self, turn: Turn) -> bytes:
        """Return `start` and everything that the client does not have yet."""
        chunks: list[Chunk] = [{"type": "start", "messageId": turn.id}]
        turn.reset = None
        if self._known_steps == 0:
            chunks.append({"type": "start-step"})
        else:
            self._step = self._known_steps - 1
            if self._version >= 7:
                chunks.append({"type": "reset-step"})
        for part in turn.parts:
            part.fresh.clear()
            is_known = part.step < self._step or self._version < 7
            chunks += self._continued(part) if is_known else self._all(part)
        return _wire(chunks)

    def advance(self, turn: Turn, changed: Sequence[Part]) -> bytes:
        """Return what has changed."""
        chunks: list[Chunk] = []
        if turn.reset is not None:
            first, turn.reset = turn.reset, None
            if first < self._step or self._version < 7:
                self.is_over = True
                return _wire([{"type": "error", "errorText": _RESET}]) + _DONE
            chunks.append({"type": "reset-step"})
            for part in [part for part in self._shown if part.step >= self._step]:
                del self._shown[part]
            changed = [part for part in turn.parts if part.step >= self._step or part in changed]
        for part in changed:
            if part in turn.parts:
                chunks += self._all(part)
        return _wire(chunks)

    def end(self, turn: Turn) -> bytes:
        """Return the end of the message."""
        chunks: list[Chunk] = []
        for part in turn.parts:
            shown = self._shown.get(part)
            if shown is not None and part.is_text and not shown.ended:
                chunks.append({"type": f"{part.kind}-end", "id": shown.id})
            if not turn.is_running and part.is_pending and part.request is not None and part.request.approved:
                # Without an outcome the client would take the approval for one that it has not sent.
                chunks.append({"type": "tool-output-available", "toolCallId": part.id, "output": None})
        chunks += _ending(turn)
        return _wire(chunks) + _DONE

    def _continued(self, part: Part) -> list[Chunk]:
        """Return what the client misses of a part of a message that it has had some of."""
        if part.step < self._step:
            shown = self._shown.setdefault(part, _Shown(part.key, ended=part.is_text, called=True))
            return self._outcome(part, shown) if part.kind == "tool" else []
        if part.is_text and part.step == self._step and self._known_texts:
            text = part.text
            known = max((known for known in self._known_texts if text.startswith(known)), key=len, default="")
            self._known_texts.discard(known)
            if known:
                return self._rest(part, text[len(known) :])
        return self._all(part, known=part.kind == "tool" and part.step == self._step and self._known_steps > 0)

    def _rest(self, part: Part, rest: str) -> list[Chunk]:
        """Return the rest of a text whose beginning the client has, as a part of its own."""
        self._shown[part] = shown = _Shown(part.key, ended=True)
        part.fresh = [rest] if rest else []
        return self._grown(part, shown, is_new=False)

    def _all(self, part: Part, *, known: bool = False) -> list[Chunk]:
        """Return the chunks that the client misses of a part."""
        chunks: list[Chunk] = []
        if part.step > self._step:
            self._step = part.step
            chunks.append({"type": "start-step"})
        shown = self._shown.get(part)
        is_new = shown is None
        if shown is None:
            shown = self._shown[part] = _Shown(part.key, called=known)
        if part.is_text:
            return chunks + self._grown(part, shown, is_new=is_new)
        if part.kind == "tool":
            return chunks + self._call(part, shown) + self._outcome(part, shown)
        return [*chunks, {"type": f"data-{part.name}", "id": part.id, "data": part.value}]

    def _grown(self, part: Part, shown: _Shown, *, is_new: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        delta = part.text if is_new else "".join(part.fresh)
        part.fresh.clear()
        if is_new or (shown.ended and delta):
            # A text that grows after its end, which publishers do not do, goes on as another part.
            chunks.append({"type": f"{part.kind}-start", "id": shown.id})
            shown.ended = False
        if delta:
            chunks.append({"type": f"{part.kind}-delta", "id": shown.id, "delta": delta})
        if part.complete and not shown.ended:
            chunks.append({"type": f"{part.kind}-end", "id": shown.id})
            shown.ended = True
        return chunks

    def _call(self, part: Part, shown: _Shown) -> list[Chunk]:
        chunks: list[Chunk] = []
        if not shown.called:
            call: Chunk = {"type": "tool-input-available", "toolCallId": part.id, "toolName": part.name}
            runs_here = part.request is not None and not part.request.is_approval
            # The client would run a tool that is not said to be executed elsewhere.
            chunks.append(call | {"input": part.input} | ({} if runs_here else {"providerExecuted": True}))
            shown.called = True
        request = part.request
        if request is not None and request.is_approval and not shown.asked:
            asked: Chunk = {"type": "tool-approval-request", "approvalId": request.id, "toolCallId": part.id}
            chunks.append(asked | ({} if request.message is None else {"reason": request.message}))
            shown.asked = True
        return chunks

    def _outcome(self, part: Part, shown: _Shown) -> list[Chunk]:
        """Return the answer to a tool call's approval, and its outcome."""
        chunks: list[Chunk] = []
        request = part.request
        if request is not None and request.is_approval and request.status != "open" and not shown.answered:
            shown.answered = True
            if self._version >= 7:
                response: Chunk = {"type": "tool-approval-response", "approvalId": request.id}
                response["approved"] = request.approved
                chunks.append(response | ({} if request.why is None else {"reason": request.why}))
        outcome = part.outcome
        if outcome == shown.outcome:
            return chunks
        shown.outcome = outcome
        match outcome:
            case "returned":
                chunks.append({"type": "tool-output-available", "toolCallId": part.id, "output": part.output})
            case "failed":
                chunks.append({"type": "tool-output-error", "toolCallId": part.id, "errorText": part.error})
            case "denied":
                chunks.append({"type": "tool-output-denied", "toolCallId": part.id})
        return chunks


class _Shown:
    """The state of a part at the client."""

    __slots__ = ("answered", "asked", "called", "ended", "id", "outcome")

    def __init__(self, id: str, *, ended: bool = False, called: bool = False) -> None:
        self.id = id
        self.ended = ended
        self.called = called
        self.asked = called
        self.answered = False
        self.outcome: str | None = None


def _ending(turn: Turn) -> list[Chunk]:
    match turn.status:
        case "running":
            return [{"type": "finish-step"}, {"type": "finish", "finishReason": "tool-calls"}]
        case "completed":
            finish: Chunk = {"type": "finish", "finishReason": "stop"}
            if turn.usage:
                finish["messageMetadata"] = {"usage": usage(turn)}
            return [{"type": "finish-step"}, finish]
        case "canceled" | "terminated":
            return [{"type": "abort", "reason": turn.status}]
        case _:
            text = turn.failure or f"the workflow ended as {turn.status}"
            return [{"type": "error", "errorText": text}]


def usage(turn: Turn) -> dict[str, int]:
    """Return the used tokens under the AI SDK's names."""
    used = turn.tokens()
    return {
        "inputTokens": used["input_tokens"],
        "outputTokens": used["output_tokens"],
        "totalTokens": used["total_tokens"],
    }


def _wire(chunks: list[Chunk]) -> bytes:
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks)
