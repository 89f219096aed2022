"""`wakeline`: the commands, and how errors end them."""

from __future__ import annotations

import sys

from cyclopts import App
from rich.console import Console
from rich.text import Text

from wakeline import __version__
from wakeline.errors import WakelineError

app = App(
    name="wakeline",
    version=__version__,
    help="Durable sessions for Temporal workflows: published once, in order, to every device, through any disconnect.",
)
# The commands are imported when they are called: `--help` stays quick.
app.command("wakeline.cli.serve:serve", name="serve")
app.command("wakeline.cli.dev:dev", name="dev")
app.command("wakeline.cli.demo.command:demo", name="demo")
app.command("wakeline.cli.tail:tail", name="tail")
app.command("wakeline.cli.publish:publish", name="publish")


def main() -> None:
    """Run a command; an error that we know ends it with one message, not a traceback."""
    try:
        app()
    except WakelineError as error:
        console = Console(stderr=True)
        console.print(Text.assemble((error.code, "bold red"), f": {error.message}"), soft_wrap=True)
        console.print(Text(f"  {error.hint}"), soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
