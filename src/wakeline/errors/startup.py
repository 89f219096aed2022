"""Errors of programs that cannot start with the given settings."""

from __future__ import annotations

import errno
import os

from wakeline.errors.base import WakelineError


class StartupError(WakelineError):
    """A program that cannot start with the given settings."""


class SettingsInvalidError(StartupError):
    """A setting that is unknown or has a value that it cannot have."""

    code = "settings_invalid"
    hint = "Correct the setting that the message names, in the command line, the environment (WAKELINE_…) or the file."


class ListenRefusedError(StartupError):
    """An address that the program cannot listen on."""

    code = "listen_refused"
    hint = "Listen on another address or port, with --host and --port."

    @classmethod
    def of(
        cls, host: str, port: int, error: OSError | OverflowError, option: str = "--port", *, least: int = 0
    ) -> ListenRefusedError:
        """Return the error for an address and the system's error.

        Args:
            host: The address.
            port: The port.
            error: The system's error.
            option: The command's option, or the setting, that names the port.
            least: The least port that it may have; 0, if it can select a free one.
        """
        number = error.errno if isinstance(error, OSError) else None
        match number:
            case None:
                hint = f"Give {option} a port from {least} to 65535."
            case errno.EADDRINUSE:
                free = "" if least else "; 0 takes a free one"
                hint = f"Stop the program that listens there, or give {option} another port{free}."
            case errno.EACCES:
                hint = f"Give {option} a port of 1024 or more, or let this program bind lower ones."
            case _:
                hint = "Give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
        reason = os.strerror(number) if number and number > 0 else str(error)
        return cls(f"cannot listen on {host}:{port}: {reason}", hint=hint)


class DataInUseError(StartupError):
    """A data directory that another process uses."""

    code = "data_in_use"
    hint = "Stop the gateway that uses it. Two gateways cannot share a data directory: a second one needs its own."


class SchemaTooNewError(StartupError):
    """A database that a newer Wakeline has written."""

    code = "schema_too_new"
    hint = "Run the newer Wakeline on this data directory; nothing was changed."


class EngineRefusedError(StartupError):
    """A database server that the engine cannot use."""

    code = "engine_refused"
    hint = "Correct the engine's address: postgres://USER@HOST:5432/DATABASE or nats://USER@HOST:4222."


class ProgramMissingError(StartupError):
    """A program that the command starts and that is not installed."""

    code = "program_missing"
    hint = "Install it with the command in the message."
