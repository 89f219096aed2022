"""How a command tells what went wrong: one message, not a traceback."""

from __future__ import annotations

from contextlib import suppress

from rich.console import Console
from rich.text import Text

from wakeline.errors import WakelineError


def tell(error: WakelineError) -> None:
    """Print an error on stderr, with its code and what to do; where stderr cannot be written, the exit code is what is left."""
    console = Console(stderr=True)
    with suppress(OSError, ValueError):
        console.print(Text.assemble((error.code, "bold red"), f": {error.message}"), soft_wrap=True)
        console.print(Text(f"  {error.hint}"), soft_wrap=True)
