"""Every setting of the gateway, once: its name, type, default and meaning.

A setting comes from, in this order: the command line, `WAKELINE_<NAME>` in the environment, the TOML file, the default
here. `docs/reference/settings.md` lists them; a test keeps the two equal.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from wakeline.errors import ListenRefusedError, SettingsInvalidError
from wakeline.gateway.rules import Face, Follow, InputRules, Namespace, Notify
from wakeline.gateway.setting_refusals import ENVIRONMENT, THE_ENVIRONMENT, meant, refused

_OTHERS: Final = ("WAKELINE_CONFIG", "WAKELINE_URL", "WAKELINE_TOKEN", "WAKELINE_PROCESS_NUMBER")
"""Variables of the commands and of clients, which may share the gateway's environment."""
_LISTS: Final = ("cors_origins", "cors_headers", "trusted_proxies", "outgoing_networks")
_NEVER_EMPTY: Final = ("token_issuer", "token_audience")
"""Settings whose empty variable is refused: as none, it would accept the tokens of others."""
_PLAIN_URL: Final = r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
_TABLES: Final = ("follow", "namespaces", "notify", "channels", "inputs", "faces")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The gateway's settings.

    Attributes:
        data: Directory of the log; one gateway at a time.
        engine: Store of sessions: `sqlite`, `memory`, which is lost at exit, or `postgres://…` or `nats://…`, which gateways
            share.
        nats_sync_unchecked: Do not check that NATS writes to its disks before it acknowledges.
        durability: Acknowledged events survive a power cut (`full`) or a crash of the process (`process`).
        host: Address to listen on; without keys loopback only.
        port: Port to listen on; 0 chooses a free one.
        processes: Gateways that `wakeline serve` starts, which share `port`; more than 1 on a shared engine only.
        own_port: A second port, which this gateway has for itself; none: only `port`.
        no_auth: Require no token; on loopback only.
        token_secret: Secret of tokens signed with HS256, at least 32 bytes.
        token_jwks: URL or file of the keys of tokens signed with RS256, ES256 or EdDSA.
        token_issuer: The required `iss` of every token.
        token_audience: The value that `aud` of every token must be or contain.
        open_metrics: Answer `/metrics` without a token.
        cors_origins: Origins of web pages that may call, such as `http://localhost:3000`.
        cors_headers: Headers that requests of such pages may have, in addition to those of the protocol.
        trusted_proxies: Addresses and networks of proxies whose forwarding headers are trusted.
        temporal: `HOST:PORT` of Temporal; without it, only publishers write sessions.
        namespace: Temporal namespace; none: the profile's, or `default`.
        temporal_api_key: API key of Temporal Cloud; it turns TLS on.
        temporal_tls: Whether to use TLS; none: if there is an API key or a certificate.
        temporal_tls_client_cert: File of the client's certificate (mTLS).
        temporal_tls_client_key: File of the client certificate's key.
        temporal_tls_server_ca: File of the certificates that the server's is checked against.
        temporal_tls_server_name: Name in the server's certificate, if it differs from that in `temporal`.
        temporal_profile: Profile of Temporal's own configuration for everything that is not set here.
        temporal_config_file: File with Temporal's profiles; none: the default of Temporal's SDKs.
        data_converter: `MODULE:ATTRIBUTE` that decodes payloads; none: they stay encoded.
        namespaces: Further namespaces, each a table with its connection.
        poll_fastest: Seconds between reads of a workflow's stream while events arrive.
        poll_slowest: Seconds between reads of a silent workflow's stream.
        follow: Rules for workflows that are followed by themselves, and their sessions.
        sweep_interval: Seconds between listings of the workflows that have started and ended in a namespace.
        close_watches: Most runs that are watched closely; the others are swept.
        lease: Seconds after which another gateway takes over from one that has stopped.
        leave_within: Seconds over which a gateway that stops ends its streams; none: 5 on a shared engine, else 0.
        drain_grace: Seconds to wait for a worker that answers queries for a closed run's last events.
        max_event_bytes: Largest `data` of one event.
        max_body_bytes: Largest body of one request.
        max_batch_events: Most events of one batch, however it is published.
        max_import_bytes: Largest session that may be imported.
        retention_age: Seconds for which a session is kept after it was settled or closed.
        retention_events: Events that are kept of a session.
        retention_bytes: Bytes of events that are kept of a session.
        erase_within: Seconds after a deletion by which the store's files contain no deleted data.
        notify: Rules for notifications, by name.
        channels: The channels of notifications, by name, each a table with its `type` and options.
        operations: Session that receives the gateway's own events, such as that a channel was disabled.
        outgoing_networks: Private addresses and networks that notifications may be sent to.
        public_url: URL at which people reach the gateway, for answer links in notifications; none: there are no links.
        inspector: Serve the inspector at `/`.
        temporal_ui: URL of Temporal's web UI, which the inspector links to; none: it has no links.
        codec_server: URL of a codec server, by which the inspector decodes payloads; none: they stay encoded.
        keep_alive: Seconds between comments on an idle stream.
        long_poll_timeout: Seconds after which a long-poll of a Durable Stream is answered without events.
        write_timeout: Seconds within which a device must accept unsent data, or is cut; it may resume.
        header_timeout: Seconds within which a request's headers must arrive.
        body_timeout: Seconds within which each KiB of a request's body must arrive.
        idle_timeout: Seconds that a connection may wait between requests.
        max_connections: Most connections that are open at a time.
        address_connections: Most streams, feeds, long-polls, compact pages and waits of one address; 0 for no limit.
        user_connections: Most streams, feeds, long-polls, compact pages and waits of one user; 0 for no limit.
        feed_subscriptions: Most sessions on one feed; 0 for no limit.
        user_devices: Most devices of one user that are remembered in a session; 0 for no limit.
        inputs: Rules for inputs: the workflows that they start, and the schemas of their arguments.
        faces: Rules for the sessions of chat frontends, by name.
        run_updates: Most updates of one run that may be under way at this gateway.
        run_total_signals: Most signals of one Temporal run.
        run_total_updates: Most updates of one Temporal run.
        publish_rate: Events a second that one user may publish in the long run; 0 for no limit.
        ticket_rate: Tickets a second that one user may request in the long run; 0 for no limit.
        event_loop: `uvloop` (extra `fast`) accepts events with less CPU, `asyncio` delivers them with less.
        log_level: Least severe messages to log.
    """

    data: str = "wakeline-data"
    engine: Annotated[str, Meta(pattern=r"^(sqlite|memory|(postgres(ql)?|nats|tls)://.*)$")] = "sqlite"
    nats_sync_unchecked: bool = False
    durability: Literal["full", "process"] = "full"
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 7777
    processes: Annotated[int, Meta(ge=1)] = 1
    own_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    no_auth: bool = False
    token_secret: str | None = None
    token_jwks: str | None = None
    token_issuer: Annotated[str, Meta(min_length=1)] | None = None
    token_audience: Annotated[str, Meta(min_length=1)] | None = None
    open_metrics: bool = False
    cors_origins: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    temporal: str | None = None
    namespace: Annotated[str, Meta(min_length=1)] | None = None
    temporal_api_key: str | None = None
    temporal_tls: bool | None = None
    temporal_tls_client_cert: str | None = None
    temporal_tls_client_key: str | None = None
    temporal_tls_server_ca: str | None = None
    temporal_tls_server_name: str | None = None
    temporal_profile: str | None = None
    temporal_config_file: str | None = None
    data_converter: str | None = None
    namespaces: dict[str, Namespace] = {}
    poll_fastest: Annotated[float, Meta(ge=0.005)] = 0.05
    poll_slowest: Annotated[float, Meta(ge=0.05)] = 20.0
    follow: tuple[Follow, ...] = ()
    sweep_interval: Annotated[float, Meta(ge=0.1)] = 5.0
    close_watches: Annotated[int, Meta(ge=0)] = 500
    lease: Annotated[float, Meta(ge=0.5)] = 10.0
    leave_within: Annotated[float, Meta(ge=0)] | None = None
    drain_grace: Annotated[float, Meta(ge=0)] = 10.0
    max_event_bytes: Annotated[int, Meta(ge=1024)] = 1024 * 1024
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 8 * 1024 * 1024
    max_batch_events: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    max_import_bytes: Annotated[int, Meta(ge=1024)] = 1024**3
    retention_age: Annotated[float, Meta(gt=0)] | None = None
    retention_events: Annotated[int, Meta(ge=1)] | None = None
    retention_bytes: Annotated[int, Meta(ge=1)] | None = None
    erase_within: Annotated[float, Meta(gt=0)] = 604_800.0
    notify: dict[str, Notify] = {}
    channels: dict[str, dict[str, Any]] = {}
    operations: str | None = None
    outgoing_networks: tuple[str, ...] = ()
    public_url: str | None = None
    inspector: bool = True
    temporal_ui: Annotated[str, Meta(pattern=_PLAIN_URL)] | None = None
    codec_server: Annotated[str, Meta(pattern=_PLAIN_URL)] | None = None
    keep_alive: Annotated[float, Meta(gt=0)] = 15.0
    long_poll_timeout: Annotated[float, Meta(gt=0)] = 20.0
    write_timeout: Annotated[float, Meta(gt=0)] = 30.0
    header_timeout: Annotated[float, Meta(gt=0)] = 10.0
    body_timeout: Annotated[float, Meta(gt=0)] = 30.0
    idle_timeout: Annotated[float, Meta(gt=0)] = 75.0
    max_connections: Annotated[int, Meta(ge=1)] = 18_000
    address_connections: Annotated[int, Meta(ge=0)] = 1_000
    user_connections: Annotated[int, Meta(ge=0)] = 1_000
    feed_subscriptions: Annotated[int, Meta(ge=0)] = 1_000
    user_devices: Annotated[int, Meta(ge=0)] = 1_000
    inputs: InputRules = InputRules()
    faces: dict[str, Face] = {}
    run_updates: Annotated[int, Meta(ge=1)] = 10
    run_total_signals: Annotated[int, Meta(ge=1)] = 10_000
    run_total_updates: Annotated[int, Meta(ge=1)] = 2_000
    publish_rate: Annotated[float, Meta(ge=0)] = 20_000.0
    ticket_rate: Annotated[float, Meta(ge=0)] = 10.0
    event_loop: Literal["asyncio", "uvloop"] = "asyncio"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __repr__(self) -> str:
        """Return the class's name only, because some values are secrets."""
        return "Settings(…)"

    @property
    def asks(self) -> bool:
        """Whether there are keys, so that callers need a token."""
        return self.token_secret is not None or self.token_jwks is not None

    def check_listen(self) -> None:
        """Refuse to serve other machines without tokens, or this one without `no_auth`.

        Raises:
            SettingsInvalidError: There are keys and `no_auth`.
            ListenRefusedError: There are no keys, and there is no `no_auth` or `host` is not a loopback address.
        """
        if self.asks and self.no_auth:
            raise SettingsInvalidError(
                "expected either keys for tokens or no_auth, got both",
                hint="Leave --no-auth out, or unset token_secret and token_jwks (WAKELINE_TOKEN_SECRET, WAKELINE_TOKEN_JWKS).",
            )
        if self.asks:
            return
        if not is_loopback(self.host):
            raise ListenRefusedError(
                f"expected keys for tokens or a loopback address to listen on, got {self.host!r} without keys",
                hint="Set token_secret or token_jwks; or listen on 127.0.0.1 with --no-auth.",
            )
        if not self.no_auth:
            raise ListenRefusedError(
                "expected keys for tokens or no_auth, got neither",
                hint="For this machine alone, add --no-auth. For others, make a key first: "
                "export WAKELINE_TOKEN_SECRET=$(openssl rand -hex 32), or set token_jwks.",
            )


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback name or address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(
    arguments: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings from all their sources.

    Args:
        arguments: Values from the command line; None means not given.
        file: A TOML file; None for that in `WAKELINE_CONFIG`, if it is set.
        environment: The environment; None for the process's own.

    Raises:
        SettingsInvalidError: The file cannot be read, or a setting is unknown or has an invalid value.
    """
    environment = os.environ if environment is None else environment
    if file is None and environment.get("WAKELINE_CONFIG"):
        file = Path(environment["WAKELINE_CONFIG"])
    settings = _convert(_read(file), f"the file {file}", strict=True) if file else {}
    settings |= _convert(_from_environment(environment), THE_ENVIRONMENT, strict=False)
    settings |= _convert({k: v for k, v in (arguments or {}).items() if v is not None}, "the command line", strict=True)
    return msgspec.convert(settings, Settings)


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence about each unknown `WAKELINE_…` variable, without its value."""
    known = [*(ENVIRONMENT + name.upper() for name in Settings.__struct_fields__), *_OTHERS]
    for name in sorted(environment):
        if name.upper().startswith(ENVIRONMENT) and name not in known:
            yield f"the variable {name} is not one of Wakeline's and has no effect{meant(name.upper(), known)}"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        hint = "Correct the path, in --config or WAKELINE_CONFIG, or the file at the line that the message names."
        raise SettingsInvalidError(f"expected a TOML file at {file}, got: {said}", hint=hint) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in Settings.__struct_fields__:
        text = environment.get(ENVIRONMENT + field.upper())
        # Compose files and shells pass a variable that has no value as an empty one.
        if text is None or (not text and field not in _NEVER_EMPTY):
            continue
        if field in _LISTS:
            found[field] = [part.strip() for part in text.split(",") if part.strip()]
        elif field in _TABLES:
            found[field] = _table(ENVIRONMENT + field.upper(), text)
        else:
            found[field] = text
    return found


def _table(variable: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:  # its message does not repeat the text, which may be a secret
        raise SettingsInvalidError(f"expected JSON in {variable}, got: {error}") from None


def _convert(given: dict[str, Any], source: str, *, strict: bool) -> dict[str, Any]:
    try:
        checked = msgspec.convert(given, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise refused(Settings, source, given, error) from None
    return {name: getattr(checked, name) for name in given}
