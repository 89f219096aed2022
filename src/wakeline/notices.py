"""Notices: the member `notify` of an event, by which a publisher notifies users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from wakeline.errors import RequestInvalidError
from wakeline.events import MAX_KEY_BYTES, NewEvent

MAX_TITLE_BYTES: Final = 256
MAX_BODY_BYTES: Final = 1_000
MAX_URL_BYTES: Final = 1_000
MAX_USERS: Final = 20
MARK: Final = b',"notify":{'
"""Bytes that the body of every event with a notice contains; other bodies may, too."""


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"users": "for"}):
    """The words of a notification, and its receivers.

    Attributes:
        title: A line for people.
        body: A few more lines.
        url: The address to open.
        users: The user or the users to notify; none: those of the rule in the settings.
        digest: Events with the same name here become one notification.
        critical: Notify at once, and of this event alone.
    """

    title: str
    body: str = ""
    url: str = ""
    users: str | tuple[str, ...] = ()
    digest: str = ""
    critical: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """The users to notify."""
        return (self.users,) if isinstance(self.users, str) else self.users


def check_notice(notice: Notice) -> Notice:
    """Return a notice if an event may have it.

    Raises:
        RequestInvalidError: A member is empty, too long, or not UTF-8; or `url` is no address of a page.
    """
    _check("notify.title", notice.title, 1, MAX_TITLE_BYTES)
    _check("notify.body", notice.body, 0, MAX_BODY_BYTES)
    _check("notify.url", notice.url, 0, MAX_URL_BYTES)
    _check("notify.digest", notice.digest, 0, MAX_KEY_BYTES)
    if len(notice.named) > MAX_USERS:
        raise RequestInvalidError(f"expected at most {MAX_USERS} users in notify.for, got {len(notice.named)}")
    for user in notice.named:
        _check("notify.for", user, 1, MAX_KEY_BYTES)
    if notice.url and not _is_address(notice.url):
        raise RequestInvalidError(f"expected notify.url with http:// or https://, got {notice.url[:100]!r}")
    return notice


def read_notice(fields: Mapping[str, Any]) -> Notice:
    """Return the notice with these members.

    Raises:
        RequestInvalidError: A member is unknown, missing or invalid.
    """
    try:
        notice = msgspec.convert(dict(fields), Notice)
    except msgspec.ValidationError as error:
        raise RequestInvalidError(
            f"expected notify with title, body, url, for, digest and critical, got: {error}",
            hint="Only title is required; for is a user or a list of users.",
        ) from None
    return check_notice(notice)


def with_notice(event: NewEvent, notice: Notice) -> NewEvent:
    """Return an event with a notice as its last member."""
    return NewEvent(event.topic, b'%b,"notify":%b}' % (event.body[:-1], msgspec.json.encode(notice)), event.time)


def _check(what: str, text: str, least: int, most: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        raise RequestInvalidError(f"expected {what} in UTF-8, got {text[:64]!r}") from None
    if not least <= size <= most:
        raise RequestInvalidError(f"expected {what} of {least} to {most} bytes, got {size}")


def _is_address(url: str) -> bool:
    if not (url.isascii() and url.isprintable()) or " " in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
