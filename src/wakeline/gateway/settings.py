"""Every setting of the gateway, once: its name, type, default and meaning.

A setting comes from, in this order: the command line, `WAKELINE_<NAME>` in the environment, the TOML file, the default
here. `docs/reference/settings.md` lists them; a test keeps the two equal.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from wakeline.errors import ListenRefusedError, SettingsInvalidError

_ENVIRONMENT: Final = "WAKELINE_"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The gateway's settings."""

    data: Annotated[str, Meta(description="Directory of the log; one gateway at a time.")] = "wakeline-data"
    engine: Annotated[
        Literal["sqlite", "memory"], Meta(description="Where sessions are kept; `memory` forgets at exit.")
    ] = "sqlite"
    durability: Annotated[
        Literal["full", "process"],
        Meta(description="What an acknowledged event survives: `full` a power cut, `process` a crash of the process."),
    ] = "full"
    host: Annotated[str, Meta(description="Address to listen on; loopback only.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 7777
    no_auth: Annotated[bool, Meta(description="Say that nobody is asked who they are; loopback only, for good.")] = (
        False
    )
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="Origins of web pages that may call, such as `http://localhost:3000`.")
    ] = ()
    temporal: Annotated[
        str | None, Meta(description="`HOST:PORT` of Temporal; without it only publishers write sessions.")
    ] = None
    namespace: Annotated[str, Meta(min_length=1, description="Temporal namespace.")] = "default"
    poll_fastest: Annotated[
        float, Meta(ge=0.005, description="Seconds between reads of a workflow's stream while events come.")
    ] = 0.05
    poll_slowest: Annotated[
        float, Meta(ge=0.05, description="Seconds between reads of a workflow's stream when nothing comes.")
    ] = 1.0
    drain_grace: Annotated[
        float, Meta(ge=0, description="Seconds to wait for a worker to tell a closed run's last events.")
    ] = 10.0
    max_event_bytes: Annotated[int, Meta(ge=1024, description="Largest `data` of one event.")] = 1024 * 1024
    max_body_bytes: Annotated[int, Meta(ge=1024, description="Largest body of one request.")] = 8 * 1024 * 1024
    keep_alive: Annotated[float, Meta(gt=0, description="Seconds between comments on an idle stream.")] = 15.0
    write_timeout: Annotated[
        float, Meta(gt=0, description="Seconds in which a device must take what is unsent, or be cut; it may resume.")
    ] = 30.0
    event_loop: Annotated[
        Literal["asyncio", "uvloop"],
        Meta(description="`uvloop` (extra `fast`) takes in events for less, `asyncio` delivers them for less."),
    ] = "asyncio"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severe messages to log.")
    ] = "info"

    def check_listen(self) -> None:
        """Refuse to listen where nobody is asked who they are.

        Raises:
            ListenRefusedError: `host` is not a loopback address.
        """
        if not is_loopback(self.host):
            raise ListenRefusedError(
                f"expected a loopback address to listen on, got {self.host!r}: requests are not authenticated"
            )


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine to itself only."""
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
    """Put the settings together.

    Args:
        arguments: From the command line; None means not given.
        file: A TOML file; None takes `WAKELINE_CONFIG`, if that is set.
        environment: None takes the process's own.

    Raises:
        SettingsInvalidError: The file cannot be read, or a setting is unknown or has a value it cannot have.
    """
    environment = os.environ if environment is None else environment
    if file is None and environment.get("WAKELINE_CONFIG"):
        file = Path(environment["WAKELINE_CONFIG"])
    settings = _convert(_read(file), f"the file {file}", strict=True) if file else {}
    settings |= _convert(_from_environment(environment), "the environment", strict=False)
    settings |= _convert({k: v for k, v in (arguments or {}).items() if v is not None}, "the command line", strict=True)
    return msgspec.convert(settings, Settings)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingsInvalidError(f"expected a TOML file at {file}, got: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in Settings.__struct_fields__:
        text = environment.get(_ENVIRONMENT + field.upper())
        if text is not None:
            found[field] = (
                [part.strip() for part in text.split(",") if part.strip()] if field == "cors_origins" else text
            )
    return found


def _convert(given: dict[str, Any], source: str, *, strict: bool) -> dict[str, Any]:
    try:
        checked = msgspec.convert(given, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsInvalidError(f"in {source}: {error}") from None
    return {name: getattr(checked, name) for name in given}
