"""A session's configuration: its retention, and the properties that its transport stores."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from wakeline.errors import RequestInvalidError

_MOST: Final = 2**53 - 1  # the largest integer that every JSON reader represents exactly
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_CONTENT_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}[ \t]*(;[\x20-\x7e\t]*)?")


class Retention(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The retention of a session; None is no limit.

    Attributes:
        age: Seconds from the moment that the session is settled or closed to its deletion.
        events: The number of events that are kept.
        bytes: The number of bytes of events that are kept.
        compact: Keep the compact form of the events that `events` and `bytes` remove. Default: False.
    """

    age: Annotated[float, Meta(gt=0, le=_MOST)] | None = None
    events: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    bytes: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    compact: bool = False


class SessionConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `config` of a session's state.

    Attributes:
        retention: The session's retention; None for the one of the gateway's settings.
        content_type: The media type of a Durable Stream's messages; None for other sessions.
        ttl: Seconds from a Durable Stream's last use to its deletion.
        expires_at: When a Durable Stream is deleted.
    """

    retention: Retention | None = None
    content_type: str | None = None
    ttl: int | None = None
    expires_at: datetime | None = None

    @property
    def has_lifetime(self) -> bool:
        """Whether the transport that created the session determines when it is deleted."""
        return self.ttl is not None or self.expires_at is not None


_decoder = msgspec.json.Decoder(SessionConfig)
_NOTHING = SessionConfig()


def check_content_type(text: str) -> str:
    """Return `text` if it is a content type that a header can hold.

    Raises:
        RequestInvalidError: It is not a media type.
    """
    if len(text) > 255 or _CONTENT_TYPE.fullmatch(text) is None:
        raise RequestInvalidError(f"expected Content-Type to be a media type such as text/plain, got {text[:64]!r}")
    return text


def encode_config(config: SessionConfig) -> bytes:
    """Return a config as the bytes that the log stores; the default config is empty."""
    return b"" if config == _NOTHING else msgspec.json.encode(config)


def decode_config(config: bytes) -> SessionConfig:
    """Return the config in the bytes that the log stores."""
    return _decoder.decode(config) if config else _NOTHING


def outlives(config: bytes, default: Retention) -> bool:
    """Return whether a session's compact form is kept when retention removes its events.

    Args:
        config: The session's config, as the log stores it.
        default: The retention of sessions whose config has none.
    """
    return (decode_config(config).retention or default).compact
