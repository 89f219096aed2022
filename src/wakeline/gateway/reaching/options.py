"""From settings, and Temporal's own configuration, to how each namespace is reached.

Temporal's own configuration (`temporal.toml`, the `TEMPORAL_…` variables) is read as the SDKs read it: where the settings name a
profile or a file of it, or where they name no address and the environment has one of `TEMPORAL_ADDRESS`, `TEMPORAL_PROFILE` and
`TEMPORAL_CONFIG_FILE`. The settings take precedence over it.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS, DataSource
from temporalio.service import TLSConfig

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.reaching.connection import Options
from wakeline.gateway.reaching.converters import load_converter
from wakeline.gateway.rules import Namespace
from wakeline.gateway.settings import Settings, is_loopback

_CALLING: Final = ("TEMPORAL_ADDRESS", "TEMPORAL_PROFILE", "TEMPORAL_CONFIG_FILE")
_CREDENTIALS: Final = ("api_key", "tls_client_cert", "tls_client_key")


class _Said(msgspec.Struct, frozen=True):
    """The settings of one namespace, and their names."""

    namespace: str | None
    options: Namespace
    names: Mapping[str, str]
    environment: Mapping[str, str] | None = None  # None: the TEMPORAL_… variables are about another namespace

    def refuse(self, what: str, hint: str | None = None) -> NoReturn:
        message = what if self.namespace is None else f"namespace {self.namespace!r}: {what}"
        raise SettingsInvalidError(message, hint=hint)


def options_of(settings: Settings, environment: Mapping[str, str]) -> list[Options]:
    """How each namespace is reached, the main one first; empty if nothing is said of Temporal.

    Args:
        settings: The settings.
        environment: Where the `TEMPORAL_…` variables are.

    Raises:
        SettingsInvalidError: They contradict each other, or a file cannot be read.
    """
    main = Namespace(**{field: getattr(settings, name) for field, name in _names("temporal_").items()})
    found = []
    if main.address or _calls(main) or any(environment.get(name) for name in _CALLING):
        found.append(_options(_Said(settings.namespace, main, _names("temporal_"), environment)))
    elif not settings.namespaces and (unused := [name for name in Namespace.__struct_fields__ if getattr(main, name)]):
        name = _names("temporal_")[unused[0]]
        raise SettingsInvalidError(f"expected an address in temporal, which {name} is for, got none")
    for name, table in settings.namespaces.items():
        if found and name == found[0].namespace:
            raise SettingsInvalidError(f"expected other namespaces than the main one in namespaces, got {name!r}")
        found.append(_options(_Said(name, _inherited(table, main), _names(""))))
    return found


def _names(prefix: str) -> dict[str, str]:
    names = {name: f"{prefix}{name}" for name in Namespace.__struct_fields__}
    return names | ({"address": "temporal", "data_converter": "data_converter"} if prefix else {})


def _calls(options: Namespace) -> bool:
    """Whether Temporal's own configuration is called for by name."""
    return bool(options.profile or options.config_file)


def _inherited(table: Namespace, main: Namespace) -> Namespace:
    """A table, with the main one's word for what it does not say."""
    said = {name: value for name, value in msgspec.structs.asdict(table).items() if value is not None}
    if _calls(table):
        kept = {"config_file": main.config_file, "data_converter": main.data_converter}
    else:
        kept = msgspec.structs.asdict(main)
        if table.tls is False:
            kept |= dict.fromkeys((*_CREDENTIALS, "tls_server_ca", "tls_server_name"))
        elif any(name in said for name in _CREDENTIALS):
            kept |= dict.fromkeys(_CREDENTIALS)
    return msgspec.convert(kept | said, Namespace)


def _options(said: _Said) -> Options:
    own = said.options
    profile = _profile(said)
    address = own.address or profile.address
    if not address:
        said.refuse(f"expected the address of Temporal in {said.names['address']} or in the profile, got none")
    if "://" in address or not address.rpartition(":")[2].isdigit():
        hint = f"Write {_as_address(address)} in {said.names['address']}, without http:// and without a path."
        said.refuse(f"expected HOST:PORT as the address of Temporal, got {address!r}", hint)
    if said.environment is None and profile.namespace not in (None, said.namespace):
        said.refuse(f"expected a profile of this namespace, got one of {profile.namespace!r}")
    api_key = profile.api_key if own.api_key is None else own.api_key
    api_key = (api_key or "").strip() or None
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        said.refuse(f"expected an API key of visible ASCII characters in {said.names['api_key']}, got others")
    tls = _tls(said, profile.tls)
    if tls is False and api_key is not None and not is_loopback(address.rpartition(":")[0]):
        said.refuse(f"expected TLS where there is an API key, got {said.names['tls']} = false for {address}")
    return Options(
        address=address,
        namespace=said.namespace or profile.namespace or "default",
        api_key=api_key,
        tls=tls,
        rpc_metadata=dict(profile.grpc_meta),
        data_converter=load_converter(own.data_converter) if own.data_converter else None,
    )


def _as_address(text: str) -> str:
    """Return what was probably meant: the host, and its port or Temporal's usual one."""
    host, _, port = text.rpartition("://")[2].partition("/")[0].rpartition(":")
    return f"{host}:{port}" if host and port.isdigit() else f"{host or port or 'localhost'}:7233"


def _profile(said: _Said) -> ClientConfigProfile:
    """Return Temporal's own configuration; an empty one if it is not asked for."""
    own, environment = said.options, said.environment
    if own.address and not _calls(own):
        return ClientConfigProfile()
    file = own.config_file or None
    if file is None and environment is not None:
        file = environment.get("TEMPORAL_CONFIG_FILE") or None
    if file is not None and not Path(file).is_file():  # which the SDK passes over
        said.refuse(f"expected a file with Temporal's profiles at {file}, got none")
    try:
        return ClientConfigProfile.load(
            own.profile or None,
            config_source=None if file is None else Path(file),
            disable_env=environment is None,
            override_env_vars=None if environment is None else _readable(environment),
        )
    except Exception as error:  # noqa: BLE001 - the SDK's own, which has no public name
        # What follows the first line may repeat the file's text, and with it a key.
        hint = _profiles_hint(own.profile or (environment or {}).get("TEMPORAL_PROFILE"), file)
        said.refuse(f"cannot read Temporal's configuration: {str(error).splitlines()[0]}", hint)


def _profiles_hint(asked: str | None, file: str | None) -> str | None:
    """Return a hint with the file of profiles and their names; None without a named profile."""
    if not asked:
        return None
    where = Path(file) if file is not None else _default_file()
    try:
        there = sorted(tomllib.loads(where.read_text()).get("profile", {}))
    except (OSError, ValueError, AttributeError, TypeError):
        there = []
    names = ", ".join(there) if there else "none"
    return (
        f"The profiles in {where} are: {names}. Name one of them in temporal_profile or TEMPORAL_PROFILE, "
        "or another file in temporal_config_file or TEMPORAL_CONFIG_FILE."
    )


def _default_file() -> Path:
    """Return the file in which the SDKs look for profiles."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library/Application Support/temporalio/temporal.toml"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "temporalio/temporal.toml"


def _readable(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are valid UTF-8, as a dict: the SDK's core refuses others."""
    return {
        name: value
        for name, value in environment.items()
        if (name + value).encode(errors="replace").decode() == name + value
    }


def _tls(said: _Said, profile: ClientConfigTLS | None) -> TLSConfig | bool | None:
    own = said.options
    profile = profile or ClientConfigTLS()
    files: dict[str, DataSource | None] = {
        "tls_client_cert": profile.client_cert,
        "tls_client_key": profile.client_private_key,
        "tls_server_ca": profile.server_root_ca_cert,
    }
    files |= {name: _source(getattr(own, name)) for name in files if getattr(own, name) is not None}
    server_name = profile.server_name if own.tls_server_name is None else own.tls_server_name or None
    own_parts = [name for name in (*files, "tls_server_name") if getattr(own, name)]
    if own.tls is False:
        if own_parts:
            said.refuse(
                f"expected {said.names['tls']} to be true or not set, got false with {said.names[own_parts[0]]}"
            )
        return False
    if own.tls is None and profile.disabled and not own_parts:
        return False
    cert, key = files["tls_client_cert"], files["tls_client_key"]
    if (cert is None) != (key is None):
        has, lacks = ("tls_client_cert", "tls_client_key") if key is None else ("tls_client_key", "tls_client_cert")
        said.refuse(f"expected both {said.names[has]} and {said.names[lacks]}, got only {said.names[has]}")
    if not any(files.values()) and server_name is None:
        return True if own.tls or profile.disabled is False else None
    return TLSConfig(
        server_root_ca_cert=_read(said, "tls_server_ca", files["tls_server_ca"], b"CERTIFICATE-----"),
        domain=server_name,
        client_cert=_read(said, "tls_client_cert", cert, b"CERTIFICATE-----"),
        client_private_key=_read(said, "tls_client_key", key, b"PRIVATE KEY-----"),
    )


def _source(path: str) -> Path | None:
    return Path(path) if path else None


def _read(said: _Said, name: str, source: Any, mark: bytes) -> bytes | None:
    if source is None:
        return None
    name, where = said.names[name], "the profile"
    if isinstance(source, Path):
        where = str(source)
        try:
            source = source.read_bytes()
        except OSError as error:
            said.refuse(f"cannot read {name}, the file {where}: {error.strerror}")
    data: bytes = source.encode() if isinstance(source, str) else source
    if mark not in data:
        said.refuse(f"expected PEM with a {mark.decode().strip('-').lower()} for {name}, got something else in {where}")
    return data
