"""Logs in with a key pair: an nkey, or the credentials file of a NATS user.

The server sends a nonce, and the client signs it with the Ed25519 key of a seed. The file is read at each connection, so that it
may be replaced while the gateway runs.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wakeline.errors import EngineRefusedError

_SEED: Final = re.compile(r"^S[A-Z2-7]{57}$", re.MULTILINE)
_TOKEN: Final = re.compile(r"BEGIN NATS USER JWT-+\s+(\S+)")
_OF_USERS: Final = 20 << 3
_OF_USER_SEEDS: Final = bytes([18 << 3 | _OF_USERS >> 5, (_OF_USERS & 31) << 3])


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file with a seed, and perhaps a token.

    Args:
        option: The option of the engine's address that names it, for errors.
        path: Where it is.
    """

    option: str
    path: str

    def signature(self, nonce: str) -> bytes:
        """Return the signature of a server's nonce."""
        return base64.b64encode(self._key().sign(nonce.encode()))

    def token(self) -> bytes:
        """Return the token of a credentials file."""
        found = _TOKEN.search(self._text())
        if found is None:
            raise self._unfit("with a user's token and seed, as nsc writes it")
        return found[1].encode()

    def public_key(self) -> str:
        """Return the user that the seed stands for: `U…`."""
        raw = bytes([_OF_USERS]) + self._key().public_key().public_bytes_raw()
        return _encoded(raw)

    def _key(self) -> Ed25519PrivateKey:
        found = _SEED.search(self._text())
        raw = base64.b32decode(f"{found[0]}======") if found is not None else b""
        if found is None or raw[:2] != _OF_USER_SEEDS or _encoded(raw[:-2]) != found[0]:
            raise self._unfit("with the seed of a user, which begins with SU")
        return Ed25519PrivateKey.from_private_bytes(raw[2:-2])

    def _text(self) -> str:
        try:
            return Path(self.path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise EngineRefusedError(
                f"expected a file in {self.option}, got: {reason} for {self.path[:200]!r}",
                hint="Correct the path in the engine's address, or the file's permissions.",
            ) from None

    def _unfit(self, expected: str) -> EngineRefusedError:
        return EngineRefusedError(
            f"expected a file {expected}, in {self.option}, {self.path[:200]!r} has none",
            hint="Name the file that nsc or nk has written for this user.",
        )


def _encoded(raw: bytes) -> str:
    """Return a key as NATS writes it: with its checksum, in base 32."""
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
