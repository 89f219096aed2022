"""Run this example alone: `python -m examples.approval`."""

from examples.approval.play import EXAMPLE
from examples.stage import main

main(EXAMPLE)
