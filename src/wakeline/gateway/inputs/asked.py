"""An input as a client sends it."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from wakeline.errors import BodyTooLargeError, RequestInvalidError
from wakeline.events import check_data
from wakeline.gateway.sessions import Kind, key_hash

MAX_ARGS_BYTES: Final = 128 * 1024
MAX_SHOWN_BYTES: Final = 64 * 1024
NAMED: Final = ("signal", "update")
"""The kinds of input that have a name and arguments."""

ANSWER_KEY: Final = "wakeline-request-"
"""The prefix of the keys under which the outcomes of requests are sent to their runs."""

RESERVED: Final = ("__temporal", "$", "wakeline_")
"""How names begin that no device may send."""

_KEY: Final = re.compile("[!-~]{1,128}")


ALONE: Final = ("cancel", "terminate")
"""The kinds of input that have neither a name nor arguments."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An input as a client sends it.

    Attributes:
        id: A key that the client made, 1 to 128 visible ASCII characters.
        kind: What is sent.
        name: The signal's or update's name, or the name of the rule of a start; empty for the other kinds.
        args: Its arguments, or those of the workflow that is started.
        run: The run that it is for; None for the session's open run.
        start: The name of the rule by which an update starts its workflow, if no run of it is open.
        device: The device that it is sent from.
        expect: The offset of the last event that the device has seen; the input is refused if a later one counts.
        shown: What `$input.accepted` shows every device of it, such as the message of a chat; a JSON object.
        wait: Seconds to wait for its outcome. Default: 10.
    """

    id: str
    kind: Kind
    name: Annotated[str, Meta(max_length=256)] = ""
    args: list[msgspec.Raw] = []
    run: str | None = None
    start: str | None = None
    device: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    expect: Annotated[int, Meta(ge=-1)] | None = None
    shown: dict[str, msgspec.Raw] | None = None
    wait: Annotated[float, Meta(ge=0, le=30)] = 10.0

    @property
    def permission(self) -> str:
        """The name that a token must allow: the signal's or update's, `$cancel`, or `$terminate`."""
        return self.name if self.kind in NAMED else f"${self.kind}"

    def digest(self, by: str) -> str:
        """Return a digest of all that tells two inputs apart, so not of the wait."""
        told: list[object] = [by, self.kind, self.name, self.args, self.run, self.start, self.device, self.expect]
        if self.shown is not None:
            told.append(self.shown)
        said = msgspec.json.encode(told)
        try:
            said = msgspec.json.encode(msgspec.json.decode(said), order="sorted")
        except (msgspec.MsgspecError, ValueError, OverflowError):
            # JSON may have numbers that fit no float and no 64 bits, and half a surrogate pair.
            said = msgspec.json.format(said, indent=-1)
        return sha256(said).hexdigest()

    @property
    def arguments(self) -> bytes:
        """The arguments as a JSON array."""
        return msgspec.json.encode(self.args)

    @property
    def size(self) -> int:
        """The bytes of the arguments and of what is shown."""
        return len(self.arguments) + (0 if self.shown is None else len(msgspec.json.encode(self.shown)))

    def check(self) -> None:
        """Raise unless this is an input that can be sent.

        Raises:
            RequestInvalidError: The id or the name is impossible, or of another kind.
            BodyInvalidError: The arguments nest too deep.
            BodyTooLargeError: The arguments, or what is shown, are too large.
        """
        check_key(self.id)
        if self.id.startswith(ANSWER_KEY):
            raise RequestInvalidError(f"expected an input's id that is not Wakeline's own, got {self.id!r}")
        if self.kind in NAMED and not self.name:
            raise RequestInvalidError(f"expected the name of the {self.kind}, got none")
        if self.kind in ALONE and (self.name or self.args):
            raise RequestInvalidError(f"expected no name and no args with {self.kind}")
        if self.start is not None and self.kind != "update":
            raise RequestInvalidError(f"expected start with an update only, got it with a {self.kind}")
        if self.run is not None and (self.kind == "start" or self.start is not None):
            raise RequestInvalidError("expected no run with an input that starts its workflow, got one")
        if self.name.startswith(RESERVED):
            raise RequestInvalidError(
                f"expected a name that begins with none of {', '.join(RESERVED)}, got {self.name!r}",
                hint="Answer a request for input by POST …/requests/ID; the others are not for devices.",
            )
        if (size := len(check_data(self.arguments))) > MAX_ARGS_BYTES:
            raise BodyTooLargeError(
                f"expected arguments of at most {MAX_ARGS_BYTES} bytes, got {size}",
                hint="Keep large values elsewhere, and send a reference.",
            )
        if self.shown is not None and (size := len(check_data(msgspec.json.encode(self.shown)))) > MAX_SHOWN_BYTES:
            raise BodyTooLargeError(
                f"expected shown of at most {MAX_SHOWN_BYTES} bytes, got {size}",
                hint="Keep large values elsewhere, and show a reference.",
            )


def check_key(key: str) -> str:
    """Return an input's key if it is one.

    Raises:
        RequestInvalidError: It is empty, too long, or not visible ASCII.
    """
    if not _KEY.fullmatch(key) or key in (".", ".."):  # which no address could end in
        raise RequestInvalidError(f"expected an input's id of 1 to 128 visible ASCII characters, got {key[:130]!r}")
    return key


def input_publisher(key: str) -> str:
    """Return the name under which the events of an input are appended, by its key."""
    return f"input:{key_hash(key)}"
