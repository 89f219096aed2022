"""What is kept with a session beside its events: how long, and what a transport has to remember of it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from wakeline.errors import RequestInvalidError

_MOST: Final = 2**53 - 1  # what every JSON reader can hold
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_CONTENT_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}[ \t]*(;[\x20-\x7e\t]*)?")


class Retention(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is kept of a session; None keeps all.

    Attributes:
        age: Seconds after the session was settled or closed at which it is deleted.
        events: How many events are kept.
        bytes: How many bytes of them are kept.
        compact: Of what `events` and `bytes` take, the compact form is kept.
    """

    age: Annotated[float, Meta(gt=0, le=_MOST)] | None = None
    events: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    bytes: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    compact: bool = False


class SessionConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `config` of a session's state.

    Attributes:
        retention: What is kept; None: what the settings say.
        content_type: What a stream's messages are, for transports that do not only know JSON.
        ttl: Seconds after its last use at which a stream ends.
        expires_at: When a stream ends.
    """

    retention: Retention | None = None
    content_type: str | None = None
    ttl: int | None = None
    expires_at: datetime | None = None

    @property
    def has_lifetime(self) -> bool:
        """Whether the transport that made the session says when it is deleted."""
        return self.ttl is not None or self.expires_at is not None


_decoder = msgspec.json.Decoder(SessionConfig)
_NOTHING = SessionConfig()


def check_content_type(text: str) -> str:
    """Return `text` if it is a content type that an answer's header can hold.

    Raises:
        RequestInvalidError: It is not a media type.
    """
    if len(text) > 255 or _CONTENT_TYPE.fullmatch(text) is None:
        raise RequestInvalidError(f"expected Content-Type to be a media type such as text/plain, got {text[:64]!r}")
    return text


def encode_config(config: SessionConfig) -> bytes:
    """A config as the log keeps it."""
    return b"" if config == _NOTHING else msgspec.json.encode(config)


def decode_config(config: bytes) -> SessionConfig:
    """A config from what the log keeps."""
    return _decoder.decode(config) if config else _NOTHING


def outlives(config: bytes, default: Retention) -> bool:
    """Whether a session's compact form is kept when its events go; `default` is for those that say nothing."""
    return (decode_config(config).retention or default).compact
