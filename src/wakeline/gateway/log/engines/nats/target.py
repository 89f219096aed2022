"""The servers of an engine, and whether acknowledged events are safe there."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import msgspec
import nats.errors
import structlog

from wakeline.errors import EngineRefusedError
from wakeline.gateway.log.engines.addresses import split
from wakeline.gateway.log.engines.nats.client import LastingClient
from wakeline.gateway.log.engines.nats.credentials import KeyFile

CONNECT_SECONDS: Final = 5
SHARDS: Final = 16
_LEAST_VERSION: Final = (2, 11)
_LEAST_PAYLOAD: Final = 2 * 1024 * 1024
_MONITOR_PORT: Final = 8222
_KNOWN: Final = ("shards", "replicas", "monitor", "password_file", "credentials_file", "nkey_file", "tls_ca")
_log = structlog.get_logger(__name__)
_ERRORS: Final = 10
P = ParamSpec("P")
_EXAMPLE: Final = "nats://USER@HOST:4222,HOST:4222/NAME"


@dataclass(frozen=True, slots=True)
class Target:
    """The servers, and the options in the address.

    Attributes:
        name: The servers without credentials, for errors.
        servers: Their addresses, without credentials.
        prefix: The beginning of the names of streams and subjects.
        shards: The number of streams that hold sessions.
        replicas: The number of replicas of each stream; None for as many as there are nodes, at most three.
        monitors: The addresses of the servers' monitoring endpoints.
        login: Options of the connection: user, password, token and TLS.
        key_file: The key pair that logs in; None for a user or token.
    """

    name: str
    servers: tuple[str, ...]
    prefix: str
    shards: int
    replicas: int | None
    monitors: tuple[str, ...]
    login: dict[str, Any]
    key_file: KeyFile | None

    def __repr__(self) -> str:
        """Return the servers without credentials."""
        return f"Target({self.name})"

    @classmethod
    def parse(cls, address: str) -> Target:
        """Return the target of `nats://USER:PASSWORD@HOST:PORT,…/NAME?…`.

        Raises:
            EngineRefusedError: A part of the address cannot be read; the message has no credentials.
        """
        parts = split(address, _EXAMPLE)
        try:
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
            login, _, hosts = parts.netloc.rpartition("@")
            named = [urlsplit(f"//{host}") for host in hosts.split(",")]
            places = [(one.hostname or "", one.port or 4222) for one in named]
        except ValueError:  # its message may repeat the address, and with it the password
            raise EngineRefusedError(f"expected an address such as {_EXAMPLE}, its parts cannot be read") from None
        if not all(host for host, _ in places):
            raise EngineRefusedError(f"expected an address such as {_EXAMPLE}, it has an empty host")
        prefix = parts.path.strip("/") or "wakeline"
        if not prefix.replace("-", "").replace("_", "").isalnum() or not prefix.isascii():
            raise EngineRefusedError(
                f"expected a name of letters, digits, - and _ after the servers' address, got {prefix[:64]!r}"
            )
        for unknown in sorted(options.keys() - set(_KNOWN)):
            raise EngineRefusedError(
                f"expected one of {', '.join(_KNOWN)} in the engine's address, got {unknown[:64]!r}"
            )
        hosts = ",".join(f"{host}:{port}" for host, port in places)
        monitors = options.get("monitor") or ",".join(
            f"http://{_bracketed(host)}:{_MONITOR_PORT}" for host, _ in places
        )
        return cls(
            f"NATS at {hosts}",
            tuple(f"{parts.scheme}://{_bracketed(host)}:{port}" for host, port in places),
            prefix,
            _number(options, "shards", 1, 256) or SHARDS,
            _number(options, "replicas", 1, 5),
            tuple(monitors.split(",")),
            _login(login, options, tls=parts.scheme == "tls" or bool(options.get("tls_ca"))),
            _key_file(login, options),
        )

    def unfit(self, expected: str, hint: str) -> EngineRefusedError:
        """Return the error for servers that cannot be used."""
        return EngineRefusedError(f"{self.name}: expected {expected}", hint=hint)

    async def connect(self, client: LastingClient, **callbacks: Any) -> None:
        """Connect for the first time, and check that the server fits.

        Raises:
            EngineRefusedError: It cannot be used; the message has the reason.
        """
        errors: deque[str] = deque(maxlen=_ERRORS)  # the client reports errors here as long as it lives

        async def failed(error: Exception) -> None:
            errors.append(str(error) or type(error).__name__)

        client.encrypts = "tls" in self.login
        try:
            await client.connect(
                list(self.servers),
                name="wakeline",
                error_cb=failed,
                connect_timeout=CONNECT_SECONDS,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]  # any number of seconds
                max_reconnect_attempts=1,
                ping_interval=2,
                skip_subject_validation=True,  # all subjects are made here
                **self.login,
                **self._keys(client),
                **callbacks,
            )
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            text = next(iter(errors), str(error) or type(error).__name__)
            if any("authorization" in one.lower() for one in errors):
                raise self.unfit(
                    "a user that may connect, it answered: authorization violation",
                    "Correct the user, password or token in the engine's address, or the file that it names.",
                ) from None
            if any("certificate" in one.lower() for one in errors):
                raise self.unfit(
                    f"a certificate that can be verified, got: {text[:200]}",
                    "Name the certificate of the authority that has signed the servers' in tls_ca, and the servers as"
                    " their own certificates do.",
                ) from None
            raise self.unfit(
                f"a server that can be reached, got: {text[:200]}",
                "Start the servers, or correct the engine's address.",
            ) from None
        version = client.connected_server_version
        if (version.major, version.minor) < _LEAST_VERSION:
            raise self.unfit(f"version 2.11 or later, it has version {version.major}.{version.minor}", "Upgrade it.")
        client.options["max_reconnect_attempts"] = -1
        client.set_server_pool(list(self.servers))  # those that did not answer just now, too
        if client.max_payload < _LEAST_PAYLOAD:
            raise self.unfit(
                f"max_payload of at least 2MB, it is {client.max_payload} bytes",
                "Set max_payload: 8MB in the configuration of every server, and reload it.",
            )

    def _keys(self, client: LastingClient) -> dict[str, Any]:
        """Return the options of a connection that logs in with a key pair.

        Raises:
            EngineRefusedError: Its file cannot be used.
        """
        if self.key_file is None:
            return {}
        client.identify(self.key_file.public_key())
        options: dict[str, Any] = {"signature_cb": _retried(self.key_file.signature)}
        if self.key_file.option == "credentials_file":
            self.key_file.token()
            options["user_jwt_cb"] = _retried(self.key_file.token)
        return options

    async def check_sync(self) -> int:
        """Check that every server writes to its disk before it acknowledges.

        Returns:
            The number of the cluster's nodes, as far as they are known; 0 without a cluster.

        Raises:
            EngineRefusedError: One does not, or cannot be asked.
        """
        nodes = read = 0
        timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for monitor in self.monitors:
                try:
                    async with session.get(f"{monitor}/varz") as answer:
                        known = msgspec.json.decode(await answer.read(), type=_Variables)
                    async with session.get(f"{monitor}/jsz") as answer:
                        cluster = msgspec.json.decode(await answer.read(), type=_JetStream).meta_cluster
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    _log.warning(
                        "a NATS server's variables cannot be read", monitor=monitor, error=type(error).__name__
                    )
                    continue
                read += 1
                nodes = max(nodes, cluster.cluster_size)  # one that has just started may not know all of them
                if known.jetstream.config is None:
                    raise self.unfit(
                        f"JetStream, {monitor} reports that the server runs without",
                        "Add a jetstream block to the configuration of every server.",
                    )
                if not known.jetstream.config.sync_always:
                    raise self.unfit(
                        f"sync_interval: always, {monitor} reports another one: a power cut would lose acknowledged events",
                        "Set sync_interval: always in the jetstream block of every server.",
                    )
        if not read:
            raise self.unfit(
                f"sync_interval: always, its variables cannot be read at {', '.join(self.monitors)}",
                "Name the monitoring endpoint of every server: ?monitor=http://HOST:8222,…"
                " Or set the option yourself, and pass --nats-sync-unchecked.",
            )
        return nodes


def _retried(read: Callable[P, bytes]) -> Callable[P, bytes]:
    """Return a function whose error makes the client try again: the file is being replaced."""

    def call(*args: P.args, **how: P.kwargs) -> bytes:
        try:
            return read(*args, **how)
        except EngineRefusedError as error:
            raise nats.errors.Error(error.message) from None

    return call


class _Config(msgspec.Struct):
    sync_always: bool = False


class _OfVariables(msgspec.Struct):
    config: _Config | None = None


class _Variables(msgspec.Struct):
    jetstream: _OfVariables = msgspec.field(default_factory=_OfVariables)


class _Cluster(msgspec.Struct):
    cluster_size: int = 0


class _JetStream(msgspec.Struct):
    meta_cluster: _Cluster = msgspec.field(default_factory=_Cluster)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _number(options: dict[str, str], name: str, least: int, most: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise EngineRefusedError(f"expected {name} of {least} to {most} in the engine's address, got {text[:64]!r}")
    return int(text)


def _key_file(login: str, options: dict[str, str]) -> KeyFile | None:
    given = [option for option in ("credentials_file", "nkey_file", "password_file") if options.get(option)]
    if len(given) > 1 or (login and given and given[0] != "password_file"):
        raise EngineRefusedError(
            f"expected one login in the engine's address, got {' and '.join([*given, *(['a user'] if login else [])])}"
        )
    return KeyFile(given[0], options[given[0]]) if given and given[0] != "password_file" else None


def _login(text: str, options: dict[str, str], *, tls: bool) -> dict[str, Any]:
    """Return the options of a connection: user and password, or a token, and TLS."""
    user, colon, password = text.partition(":")
    login: dict[str, Any] = {}
    if file := options.get("password_file"):
        try:
            password, colon = Path(file).read_text().strip(), ":"
        except OSError as error:
            raise EngineRefusedError(
                f"expected a file with the password in password_file, got: {error.strerror} for {file!r}"
            ) from None
    if colon:
        login = {"user": unquote(user), "password": unquote(password) if not file else password}
    elif user:
        login = {"token": unquote(user)}
    if tls:
        login["tls"] = _certificates(options.get("tls_ca") or None)
    return login


def _certificates(file: str | None) -> ssl.SSLContext:
    """Return what verifies the certificates of the servers."""
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise EngineRefusedError(
            f"expected a file with certificates in tls_ca, got: {error.strerror} for {file!r}"
        ) from None
