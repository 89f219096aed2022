"""Keys that verify tokens: a shared secret, and public keys from a JWKS.

The JWKS is read again periodically, because its issuer may rotate the keys. Each algorithm uses keys of its own type
only, and only keys from the settings: a key or URL in a token's header is never used.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from wakeline.background import cancel_all
from wakeline.errors import SettingsInvalidError, TokenInvalidError, UnavailableError
from wakeline.gateway.access.grants import Signer
from wakeline.gateway.runtime import supervised

_KINDS: Final = {"HS256": "oct", "RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}
_IMPORTS: Final[dict[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PUBLIC: Final = ("kty", "n", "e", "crv", "x", "y")
_SECRET_BYTES: Final = 32
_JWKS_BYTES: Final = 256 * 1024
_FETCH_SECONDS: Final = 5.0
_REFRESH_SECONDS: Final = 300.0
_log = structlog.get_logger(__name__)


class _Entry(msgspec.Struct):
    """The members of a JWKS key that decide whether it can be used."""

    kty: str
    kid: str | None = None
    use: str = "sig"
    alg: str | None = None


class PublicKey(msgspec.Struct, frozen=True):
    """A key of the JWKS that may sign tokens."""

    kid: str | None
    kind: str
    alg: str | None
    key: Any
    signer: Signer = msgspec.field(default_factory=Signer)

    @property
    def identity(self) -> tuple[object, ...]:
        """The identity of the key, the same at each reading of the JWKS."""
        return self.kid, self.kind, self.alg, self.key.thumbprint()

    @property
    def name(self) -> str:
        """A name of the key, the same at every gateway."""
        return "/".join(str(part) for part in self.identity)


class Keys:
    """Finds the key that verifies a token.

    Args:
        secret: The secret for HS256; None refuses such tokens.
        jwks: URL or file of public keys; None refuses tokens signed with them.
        again: Least seconds between two readings of the JWKS for unknown keys.

    Attributes:
        version: Increases whenever the keys change.

    Raises:
        SettingsInvalidError: The secret is too short, or is a public key.
    """

    def __init__(self, secret: str | None, jwks: str | None, *, again: float = 10.0) -> None:
        self.version = 0
        self._secret = shared_key(secret) if secret is not None else None
        self._jwks = jwks
        self._again = again
        self._public: list[PublicKey] | None = None
        self._last_read = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the JWKS, and continue reading it periodically, so that withdrawn keys are dropped.

        Raises:
            SettingsInvalidError: The JWKS is a file that cannot be read. (A URL that does not answer is retried.)
        """
        if self._jwks is None:
            return
        await self._read_if_due()
        if self._public is None and not _is_url(self._jwks):
            raise SettingsInvalidError(f"expected token_jwks to be a URL or a file of keys, got {self._jwks!r}")
        self._refreshing = supervised("token keys", self._refresh)

    async def stop(self) -> None:
        """Stop reading the JWKS."""
        await cancel_all(self._refreshing, self._reading)

    async def find(self, alg: object, kid: object) -> tuple[Key, Signer | None]:
        """Return the key for a token with this header, and its signer; None for the shared secret.

        Raises:
            TokenInvalidError: There is no such key.
            UnavailableError: The keys could not be fetched yet.
        """
        kind = _KINDS.get(alg) if isinstance(alg, str) else None
        if kind == "oct" and self._secret is not None:
            return self._secret, None
        if kind in (None, "oct") or self._jwks is None:
            raise TokenInvalidError(f"expected a token signed with {self._algorithms()}, got alg {str(alg)[:32]!r}")
        if kid is not None and not isinstance(kid, str):
            raise TokenInvalidError("expected the token's kid to be a string")
        found = self._known(kind, alg, kid)
        if not found:
            await self._read_if_due()
            found = self._known(kind, alg, kid)
        if self._public is None:
            raise UnavailableError(
                "the keys that verify tokens cannot be fetched",
                hint="Try again in some seconds; the gateway's log shows what token_jwks answered.",
            )
        if not found:
            raise TokenInvalidError("expected a token signed with one of the issuer's keys, its kid and alg match none")
        if kid is None and len(found) > 1:
            raise TokenInvalidError(
                f"expected a kid in the token's header, because {len(found)} keys match without one"
            )
        return found[0].key, found[0].signer

    def name_of(self, signer: Signer | None) -> str | None:
        """Return the name of a signer's key, which every gateway gives it; None if it was withdrawn.

        Args:
            signer: The signer of a grant; None for the shared secret.
        """
        if signer is None:
            return None if self._secret is None else self._secret.thumbprint()
        return next((public.name for public in self._public or () if public.signer is signer), None)

    async def signer_of(self, name: str | None) -> Signer | None:
        """Return the signer of the key with this name; None for the shared secret.

        Raises:
            TokenInvalidError: There is no such key, or no longer.
        """
        if self._secret is not None and name == self._secret.thumbprint():
            return None
        for attempt in range(2):
            if attempt and self._jwks is not None:  # another gateway may have read a key that is new
                await self._read_if_due()
            for public in self._public or ():
                if public.name == name:
                    return public.signer
        raise TokenInvalidError("expected a ticket whose token is signed with one of the gateway's keys")

    def _algorithms(self) -> str:
        kinds = [*(["HS256"] if self._secret else []), *(["RS256", "ES256", "EdDSA"] if self._jwks else [])]
        return " or ".join(kinds)

    def _known(self, kind: str | None, alg: object, kid: str | None) -> list[PublicKey]:
        return [
            public
            for public in self._public or ()
            if public.kind == kind and public.alg in (None, alg) and kid in (None, public.kid)
        ]

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            await self._read_if_due()

    async def _read_if_due(self) -> None:
        """Read the JWKS unless it was read recently; concurrent callers share one reading."""
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.done():
            if loop.time() - self._last_read < self._again:
                return
            self._last_read = loop.time()
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        assert self._jwks is not None
        try:
            content = await (_fetch(self._jwks) if _is_url(self._jwks) else asyncio.to_thread(_read_file, self._jwks))
            public = parse_jwks(content)
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError) as error:
            _log.error("token_jwks cannot be read; the known keys stay valid", error=str(error)[:200])
            return
        known = {key.identity: key for key in self._public or ()}
        kept = {key.identity: known.get(key.identity, key) for key in public}
        if self._public is None or kept.keys() != known.keys():
            _log.info("read new keys from token_jwks", keys=len(kept))
            self._public = list(kept.values())
            self.version += 1
        for identity in known.keys() - kept.keys():
            known[identity].signer.withdraw()


def parse_jwks(content: bytes) -> list[PublicKey]:
    """Return the keys of a JWKS that may sign tokens, without private parts; skip others.

    Raises:
        ValueError: The content is not a JWKS.
    """
    try:
        entries = msgspec.json.decode(content, type=dict[str, Any])["keys"]
        found = [_public_key(entry) for entry in entries]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'expected {{"keys": [ … ]}}, got: {error}') from None
    return [public for public in found if public is not None]


def _public_key(value: dict[str, Any]) -> PublicKey | None:
    try:
        entry = msgspec.convert(value, _Entry)
        kind = _IMPORTS.get(entry.kty)
        if kind is None or entry.use != "sig" or "verify" not in (value.get("key_ops") or ["verify"]):
            return None
        if _CURVES.get(entry.kty) != value.get("crv") or (entry.alg and _KINDS.get(entry.alg) != entry.kty):
            return None
        with _warnings_count():
            key = kind.import_key({name: value[name] for name in _PUBLIC if name in value})
    except (JoseError, SecurityWarning, ValueError, TypeError, KeyError) as error:
        _log.warning("skipped an unusable key of token_jwks", error=str(error)[:200])
        return None
    return PublicKey(entry.kid, entry.kty, entry.alg, key)


def shared_key(text: str) -> OctKey:
    """Return the key for HS256 that a secret stands for.

    Raises:
        SettingsInvalidError: The secret is too short, or is a public key.
    """
    value = text.encode()
    if len(value) < _SECRET_BYTES:
        raise SettingsInvalidError(
            f"expected token_secret to have at least {_SECRET_BYTES} bytes, got {len(value)}",
            hint="Make one with: export WAKELINE_TOKEN_SECRET=$(openssl rand -hex 32)",
        )
    try:
        with _warnings_count():
            return OctKey.import_key(value)
    except (ValueError, SecurityWarning):
        raise SettingsInvalidError("expected token_secret to be a secret, got what looks like a public key") from None


@contextmanager
def _warnings_count() -> Iterator[None]:
    """Refuse keys that the library only warns about, such as RSA keys under 2048 bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SecurityWarning)
        yield


def _is_url(jwks: str) -> bool:
    return jwks.startswith(("http://", "https://"))


async def _fetch(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(url, allow_redirects=False, raise_for_status=False) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"expected 200 from token_jwks, got {answer.status}")
        content = bytearray()
        async for piece in answer.content.iter_any():
            content += piece
            if len(content) > _JWKS_BYTES:
                raise ValueError(f"expected at most {_JWKS_BYTES} bytes of keys")
        return bytes(content)


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        content = file.read(_JWKS_BYTES + 1)
    if len(content) > _JWKS_BYTES:
        raise ValueError(f"expected at most {_JWKS_BYTES} bytes of keys")
    return content
