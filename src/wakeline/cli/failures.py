"""How a command reports an error: one message, no traceback."""

from __future__ import annotations

import sys
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from wakeline.errors import WakelineError


def message_of(error: WakelineError) -> str:
    """Return an error's message and its notes, such as the gateway's URL."""
    notes = getattr(error, "__notes__", ())
    return f"{error.message} ({'; '.join(notes)})" if notes else error.message


def report_retry(error: WakelineError) -> None:
    """Report on stderr that a call has failed and is repeated."""
    print(f"{message_of(error)}; retrying", file=sys.stderr, flush=True)


def print_error(error: WakelineError) -> None:
    """Print an error with its code and hint on stderr, if that can be written."""
    console = Console(stderr=True)
    with suppress(OSError, ValueError):
        console.print(Text.assemble((error.code, "bold red"), f": {message_of(error)}"), soft_wrap=True)
        console.print(Text(f"  {error.hint}"), soft_wrap=True)
