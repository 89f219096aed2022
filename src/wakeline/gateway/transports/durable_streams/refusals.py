"""Requests that are not what the protocol asks for: the gateway's own errors, with another thing to do about them."""

from __future__ import annotations

from wakeline.errors import BodyInvalidError, RequestInvalidError


class StreamInvalidError(RequestInvalidError):
    """A header or parameter is not what the protocol asks for."""

    hint = "Correct the header or parameter that the message names."


class StreamBodyInvalidError(BodyInvalidError):
    """A body cannot be what the stream holds."""

    hint = "Send bytes of the stream's content type; for application/json one value, or an array of messages."
