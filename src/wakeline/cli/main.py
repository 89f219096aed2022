"""`wakeline`: the commands, and how errors end them."""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError, CycloptsPanel, UnusedCliTokensError

from wakeline import __version__
from wakeline.cli.failures import print_error
from wakeline.errors import WakelineError


def _explained(error: CycloptsError) -> object:
    """Return what is printed of a command line that is refused."""
    if isinstance(error, UnusedCliTokensError):
        command = " ".join(["wakeline", *(error.command_chain or ())])
        more = " ".join(error.unused_tokens or ())
        return CycloptsPanel(
            f"More arguments than the command takes: {more}. `{command} --help` has those that it takes."
        )
    return CycloptsPanel(error)


app = App(
    name="wakeline",
    version=__version__,
    help="Durable sessions for Temporal workflows: published once, in order, to every device, through any disconnect.",
    error_formatter=_explained,
)
# Commands are imported when they are called, so that `--help` stays quick. Their lines in the list of commands are
# therefore here; a command's own help is its docstring.
_COMMANDS = {
    "serve": ("wakeline.cli.serve:serve", "Run the gateway: publishers post events, devices read sessions."),
    "dev": ("wakeline.cli.dev:dev", "Run the gateway and a Temporal dev server, for development."),
    "demo": ("wakeline.cli.demo.command:demo", "Run the demo: workflows publish, servers are killed, nothing is lost."),
    "tail": ("wakeline.cli.tail:tail", "Print a session as it changes, to its end."),
    "token": ("wakeline.cli.token:token", "Print a token for development."),
    "publish": ("wakeline.cli.publish:publish", "Append events to a session."),
    "sessions": ("wakeline.cli.sessions:sessions", "List, show, export, import, close and delete sessions."),
    "input": ("wakeline.cli.input:send", "Send a signal or an update to a run of a session, start the run, or end it."),
    "requests": ("wakeline.cli.requests:requests", "List the open requests for input of a session, and answer them."),
    "notifications": ("wakeline.cli.notifications:notifications", "List, show and retry notifications."),
    "admin": (
        "wakeline.cli.admin:admin",
        "Migrate the tables of a store, declare its restore, move it, show its shards.",
    ),
    "restored": ("wakeline.cli.restored:restored", "Declare that a data directory was put back to an older state."),
    "drain": ("wakeline.cli.drain:drain", "Send the events in a publisher's spool."),
}
for _name, (_path, _line) in _COMMANDS.items():
    app.command(_path, name=_name, help=None if _name in sys.argv[1:2] else _line)


def main() -> None:
    """Run a command; one of Wakeline's errors ends it with a message instead of a traceback."""
    _keep_standard_files()
    try:
        app()
    except WakelineError as error:
        print_error(error)
        sys.exit(2)
    except BrokenPipeError:
        # The reader, such as `head`, has enough. Python would report it once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _keep_standard_files() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed."""
    # Otherwise the next file that is opened, such as the database, would get the number and receive the output.
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
