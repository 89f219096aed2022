"""A session in the terms of the protocol."""

from __future__ import annotations

import msgspec

from wakeline.gateway.log import SessionState
from wakeline.gateway.sessions import decode_config
from wakeline.gateway.transports.durable_streams import offsets
from wakeline.gateway.transports.durable_streams.content import Content
from wakeline.gateway.transports.durable_streams.headers import Lifetime


class Stream(msgspec.Struct, frozen=True):
    """A session at one moment, with the protocol's part of its configuration."""

    state: SessionState
    content: Content
    lifetime: Lifetime

    @classmethod
    def of(cls, state: SessionState) -> Stream:
        """Return the stream that a session represents."""
        kept = decode_config(state.config)
        return cls(state, Content.of(kept.content_type), Lifetime(kept.ttl, kept.expires_at))

    @property
    def name(self) -> str:
        """The session's name."""
        return self.state.session

    @property
    def epoch(self) -> str:
        """The session's epoch."""
        return self.state.epoch

    def headers(self) -> dict[str, str]:
        """Return the headers with the stream's end, and whether it is closed."""
        headers = {"Stream-Next-Offset": offsets.written(self.epoch, self.state.next_offset)}
        if self.state.closed:
            headers["Stream-Closed"] = "true"
        return headers

    def described(self) -> dict[str, str]:
        """Return the headers of an answer to `HEAD`."""
        headers = {"Content-Type": self.content.type, **self.headers()}
        if self.lifetime.ttl is not None:
            headers["Stream-TTL"] = str(self.lifetime.ttl)
        if self.lifetime.expires_at is not None:
            headers["Stream-Expires-At"] = self.lifetime.expires_at.isoformat()
        return headers
