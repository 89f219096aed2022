"""Failures of a start on PostgreSQL: each with the correction that it needs."""

from __future__ import annotations

import difflib
import os
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from wakeline.errors import EngineRefusedError

EXAMPLE: Final = "postgres://USER@HOST:5432/DATABASE"
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_TLS_FILES: Final = "sslrootcert, sslcert, sslkey and sslcrl"
_PARAMETERS: Final = (
    *_FILES,
    *("host", "port", "user", "password", "dbname", "database", "service", "sslmode", "sslnegotiation", "sslpassword"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib"),
    *("statement_cache_size", "application_name", "options", "search_path", "statement_timeout", "lock_timeout"),
)
_SAYS_MORE: Final = "; the database's log may say more."
_UPGRADES: Final = "docs/operate/upgrades.md#several-gateways-on-postgresql"
_MODES: Final = "disable, allow, prefer, require, verify-ca or verify-full"


class _Rule(NamedTuple):
    """A failure to connect: its type, a pattern of its message, the expectation and the hint."""

    type: type[BaseException] | tuple[type[BaseException], ...]
    says: str
    expected: str
    hint: str


# The first one that fits counts.
_RULES: Final = (
    _Rule(
        asyncpg.InvalidAuthorizationSpecificationError,
        "pg_hba.conf",
        "a host that may connect",
        "Add a line for this host, user and database to the server's pg_hba.conf; if it has one for TLS alone (hostssl), set"
        " sslmode=require in the address or in PGSSLMODE.",
    ),
    _Rule(
        asyncpg.InvalidAuthorizationSpecificationError,
        "",
        "a role that may connect",
        "Correct the user and the password, in the address or in PGUSER, PGPASSWORD or PGPASSFILE.",
    ),
    _Rule(asyncpg.InvalidCatalogNameError, "", "an existing database", "Create it, or correct the address."),
    _Rule(
        asyncpg.InsufficientPrivilegeError,
        "for database",
        "a role that may connect to the database",
        "Grant it as the database's owner: GRANT CONNECT ON DATABASE name TO role.",
    ),
    _Rule(
        ssl.SSLCertVerificationError,
        "",
        "a certificate that can be verified",
        "Name the certificate of the authority that has signed the server's in sslrootcert, and the server as its own"
        " certificate does.",
    ),
    _Rule(
        ssl.SSLError,
        "PEM|NO_CERTIFICATE|KEY_VALUES|X509",
        f"certificates and keys in PEM in the files of {_TLS_FILES}",
        f"Correct the files that {_TLS_FILES} name, in the address or in PGSSLROOTCERT, PGSSLCERT, PGSSLKEY and PGSSLCRL.",
    ),
    _Rule(
        ssl.SSLError,
        "",
        "a connection with TLS",
        "Compare the versions of TLS and the certificates that the server and the address ask for" + _SAYS_MORE,
    ),
    _Rule(
        ConnectionError,
        "rejected SSL upgrade",
        "TLS, which sslmode requires",
        "Turn TLS on at the server (ssl = on). If its network is trusted, set sslmode=disable in the address or in PGSSLMODE.",
    ),
    _Rule(
        asyncpg.TooManyConnectionsError,
        "",
        "a free connection",
        "Raise max_connections at the server, or the connection limit of the role or database: a gateway uses up to 9.",
    ),
    _Rule(
        asyncpg.CannotConnectNowError,
        "",
        "a server that is up",
        "Start the gateway again when the server is up" + _SAYS_MORE,
    ),
    _Rule(
        asyncpg.TargetServerAttributeNotMatched,
        "",
        "a server that accepts writes",
        "Name the primary in the address, or all hosts: postgres://USER@HOST:5432,HOST:5432/DATABASE.",
    ),
    _Rule(socket.gaierror, "", "a host that can be found", "Correct the host's name, in the address or in PGHOST."),
    _Rule(
        (OSError, TimeoutError),
        "",
        "a server that can be reached",
        "Start the server, or correct its address" + _SAYS_MORE,
    ),
)
_OF_PARAMETERS: Final = re.compile(r"configuration parameter|startup parameter|\bparameter \"|set parameter")
# Messages of a configuration that cannot repeat the address, and with it the password.
_HARMLESS: Final = re.compile(
    r"root certificate file|`ssl|direct TLS|could not match|could not determine|\S+ \S* ?TLS version"
)


def unfit(name: str, expected: str, hint: str) -> EngineRefusedError:
    """Return the refusal of a server."""
    return EngineRefusedError(f"{name}: expected {expected}", hint=hint)


def of_connection(name: str, error: BaseException, query: Mapping[str, str]) -> EngineRefusedError:
    """Return the refusal for an error of the first connection.

    Args:
        name: The server, without user and password.
        error: The error.
        query: The parameters of the address.
    """
    text = text_of(error).splitlines()[0]
    if isinstance(error, (asyncpg.ClientConfigurationError, ValueError)) and not isinstance(error, ssl.SSLError):
        return _of_configuration(text, query)
    if isinstance(error, asyncpg.PostgresError) and _OF_PARAMETERS.search(text):
        return unfit(
            name,
            f"that it knows the parameters of the address, got: {text}",
            f"Correct that parameter, or leave it out{_meant(text)}",
        )
    if isinstance(error, OSError) and (file := _unreadable(query)) is not None:
        return file
    for rule in _RULES:
        if isinstance(error, rule.type) and re.search(rule.says, text):
            return unfit(name, f"{rule.expected}, got: {text}", rule.hint)
    return unfit(name, f"that it accepts a connection, got: {text}", "Correct what the message names" + _SAYS_MORE)


def _of_configuration(text: str, query: Mapping[str, str]) -> EngineRefusedError:
    """Return the refusal of an address, or of variables, that cannot be read."""
    if text.startswith("root certificate file"):
        return EngineRefusedError(
            f"expected the certificate of an authority, got: {text}",
            hint="Name its file in sslrootcert in the address, or in PGSSLROOTCERT.",
        )
    if text.startswith("`sslmode"):
        mode = query.get("sslmode") or os.environ.get("PGSSLMODE", "")
        return EngineRefusedError(
            f"expected {_MODES} for sslmode, got {mode[:32]!r}",
            hint="Correct sslmode in the engine's address, or the variable PGSSLMODE.",
        )
    if text.startswith("target_session_attrs"):
        return EngineRefusedError(
            "expected any, primary, standby, prefer-standby, read-write or read-only for target_session_attrs, got"
            f" {query.get('target_session_attrs', '')[:32]!r}",
            hint="Correct target_session_attrs in the engine's address, or leave it out.",
        )
    if _HARMLESS.match(text):
        return EngineRefusedError(
            f"expected an address and variables PG… that fit, got: {text}", hint="Correct what the message names."
        )
    return EngineRefusedError(f"expected an address such as {EXAMPLE}, its parts cannot be read")


def check_files(query: Mapping[str, str]) -> None:
    """Raise `EngineRefusedError` unless the files that an address names can be read."""
    for name in _FILES:
        if query.get(name):
            _check_file(f"{name} of the engine's address", query[name])


def _check_file(place: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            return
    except OSError as error:
        raise EngineRefusedError(
            f"expected a file in {place}, got: {error.strerror} for {file!r}", hint=f"Correct {place}, or the file."
        ) from None


def _unreadable(query: Mapping[str, str]) -> EngineRefusedError | None:
    """Return the refusal of a file that variables name: the system's own error does not name it."""
    for name in _FILES[:4]:
        file = os.environ.get(f"PG{name.upper()}")
        if file and not query.get(name):
            try:
                _check_file(f"the variable PG{name.upper()}", file)
            except EngineRefusedError as refusal:
                return refusal
    return None


def _meant(text: str) -> str:
    """Return the question whether a known parameter was meant, or the end of the sentence."""
    named = re.search(r'parameter:? "?([\w.]+)', text)
    close = difflib.get_close_matches(named[1], _PARAMETERS, n=1, cutoff=0.7) if named else []
    return f"; did you mean {close[0]}?" if close and close[0] != (named and named[1]) else "."


def of_statement(name: str, error: BaseException) -> EngineRefusedError:
    """Return the refusal for a statement of a start, or of an admin command, that has failed."""
    return unfit(
        name,
        f"that it executes what a start needs, got: {text_of(error)}",
        "Correct what the message names, then try again" + _SAYS_MORE,
    )


def of_rights(name: str, role: str, lacks: str) -> EngineRefusedError:
    """Return the refusal of a role that may not use the tables.

    Args:
        name: The server.
        role: The role, quoted for SQL.
        lacks: The rights that it has not.
    """
    return unfit(
        name,
        f"a role that may use the schema wakeline, got: {lacks}",
        f"Run as the schema's owner: GRANT USAGE ON SCHEMA wakeline TO {role};"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wakeline TO {role};"
        f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA wakeline TO {role}; see {_UPGRADES}",
    )


def of_migration(name: str, error: BaseException, *, found: int) -> EngineRefusedError:
    """Return the refusal of a role that may not change the tables.

    Args:
        name: The server.
        error: The server's error.
        found: The version of the tables; 0 if there are none.
    """
    grants = f"the rights of {_UPGRADES}"
    return unfit(
        name,
        f"a role that may create and change the schema wakeline, got: {text_of(error)}",
        f"Run `wakeline admin migrate` as the role that owns the schema, then grant this one {grants}"
        if found
        else "Let this role: grant CREATE on the database to it, or create the schema for it: CREATE SCHEMA wakeline"
        " AUTHORIZATION role, or ALTER SCHEMA wakeline OWNER TO role. Or run `wakeline admin migrate` as a role that may, and"
        f" grant this one {grants}",
    )


def text_of(error: BaseException) -> str:
    """Return an error's message; its type if it has none."""
    return str(error) or type(error).__name__
