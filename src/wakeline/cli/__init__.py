"""The command line: one file a command."""

from wakeline.cli.main import main

__all__ = ["main"]
