"""Faces: a session in the protocols that chat frontends speak, the AI SDK's and AG-UI's.

    parts.py          the neutral model: turns and their parts
    conversation.py   Conversation: folds events into turns, the one mapping for all faces
    reading.py        Reader: the compact form, then the log; when a turn's answer ends
    sending.py        what a frontend sends: messages, answers, stops
    ai_sdk/           the AI SDK's UI message stream
    ag_ui/            AG-UI's events

`http` may import it. docs/reference/faces.md has the mapping. Open `parts.py` first, then `conversation.py`.
"""

from __future__ import annotations

from wakeline.gateway.rules import Face
from wakeline.gateway.transports.faces.conversation import STRUCTURE, Conversation
from wakeline.gateway.transports.faces.parts import Part, Request, Sub, Turn
from wakeline.gateway.transports.faces.reading import Reader, encoded_turn, idle_until
from wakeline.gateway.transports.faces.sending import Given, UserMessage, answer, say, stop

__all__ = [
    "STRUCTURE",
    "Conversation",
    "Face",
    "Given",
    "Part",
    "Reader",
    "Request",
    "Sub",
    "Turn",
    "UserMessage",
    "answer",
    "encoded_turn",
    "idle_until",
    "say",
    "stop",
]
