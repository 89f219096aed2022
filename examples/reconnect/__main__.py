"""Run this example alone: `python -m examples.reconnect`."""

from examples.reconnect import EXAMPLE
from examples.stage import main

main(EXAMPLE)
