"""Errors for requests that violate the protocol: the gateway's own, with other hints."""

from __future__ import annotations

from wakeline.errors import BodyInvalidError, RequestInvalidError


class StreamInvalidError(RequestInvalidError):
    """A header or parameter violates the protocol."""

    hint = "Correct the header or parameter that the message names."


class StreamBodyInvalidError(BodyInvalidError):
    """A body does not fit the stream's content."""

    hint = "Send bytes of the stream's content type; for application/json one value, or an array of messages."
