"""The text of a push: a declarative message, which some browsers show by themselves."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from wakeline.gateway.notifications.channels.channel import Notification

_VERSION: Final = 8030  # the number by which browsers know a declarative message
_MOST_TITLE: Final = 300
_MOST_TEXT: Final = 2_000
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def declarative(notification: Notification, url: str, most: int) -> bytes:
    """Return the JSON of a declarative push message.

    Args:
        notification: The notification.
        url: The address that a tap opens.
        most: The most bytes: the text is cut, and then the title.
    """
    title = _cut(_CONTROL.sub(" ", notification.title), _MOST_TITLE)
    text = _cut(_CONTROL.sub(" ", notification.text), _MOST_TEXT)
    while len(made := _encoded(notification, url, title, text)) > most and (title or text):
        if text:
            text = _cut(text, len(text.encode()) * 3 // 4)
        else:
            title = _cut(title, len(title.encode()) * 3 // 4)
    return made


def _encoded(notification: Notification, url: str, title: str, text: str) -> bytes:
    return msgspec.json.encode(
        {
            "web_push": _VERSION,
            "notification": {
                "title": title,
                "body": text,
                "navigate": url,
                # A repeated push replaces the first one on the screen. Other notifications have other ids.
                "tag": notification.id,
                "data": {
                    "id": notification.id,
                    "session": notification.session,
                    "cursor": notification.cursor,
                    "count": notification.count,
                },
            },
        }
    )


def _cut(text: str, size: int) -> str:
    """Return a text with at most `size` bytes; one that was cut ends in an ellipsis."""
    value = text.encode(errors="replace")
    if len(value) <= size:
        return value.decode()
    kept = value[: max(0, size - 3)].decode(errors="ignore").rstrip()
    return f"{kept}…" if kept else ""
