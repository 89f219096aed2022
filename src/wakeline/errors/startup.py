"""Errors of programs that cannot start as asked."""

from __future__ import annotations

import errno
import os

from wakeline.errors.base import WakelineError


class StartupError(WakelineError):
    """The server cannot start as asked."""


class SettingsInvalidError(StartupError):
    """A setting is unknown or has a value it cannot have."""

    code = "settings_invalid"
    hint = "Correct the setting that the message names, in the command line, the environment (WAKELINE_…) or the file."


class ListenRefusedError(StartupError):
    """The address may not be listened on."""

    code = "listen_refused"
    hint = "Listen on another address or port, with --host and --port."

    @classmethod
    def of(cls, host: str, port: int, error: OSError | OverflowError, option: str = "--port") -> ListenRefusedError:
        """Return the error of an address that cannot be listened on.

        Args:
            host: The address.
            port: The port.
            error: The system's error.
            option: The option of the command that names the port.
        """
        number = error.errno if isinstance(error, OSError) else None
        match number:
            case None:
                hint = f"Give {option} a port from 0 to 65535."
            case errno.EADDRINUSE:
                hint = f"Stop the program that listens there, or give {option} another port; 0 takes a free one."
            case errno.EACCES:
                hint = f"Give {option} a port of 1024 or more, or let this program bind lower ones."
            case _:
                hint = "Give an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them."
        said = os.strerror(number) if number and number > 0 else str(error)
        return cls(f"cannot listen on {host}:{port}: {said}", hint=hint)


class DataInUseError(StartupError):
    """Another process has this data directory."""

    code = "data_in_use"
    hint = "Stop the other gateway, or give this one a --data directory of its own."


class SchemaTooNewError(StartupError):
    """The database was written by a newer Wakeline."""

    code = "schema_too_new"
    hint = "Run the newer Wakeline on this data directory; nothing was changed."


class ProgramMissingError(StartupError):
    """A program that this command starts is not installed."""

    code = "program_missing"
    hint = "Install it as the message says."
