"""The AI SDK's face: the UI message stream, for `useChat` with its stock transport.

    encoding.py   UiMessageStream: a turn as chunks
    history.py    turns as UI messages
    asked.py      the body of a request: a user's message, or answers

Open `encoding.py` first.
"""

from __future__ import annotations

from wakeline.gateway.transports.faces.ai_sdk.asked import Asked
from wakeline.gateway.transports.faces.ai_sdk.encoding import HEADERS, UiMessageStream
from wakeline.gateway.transports.faces.ai_sdk.history import ui_messages

__all__ = ["HEADERS", "Asked", "UiMessageStream", "ui_messages"]
