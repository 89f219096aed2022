"""Run this example alone: `python -m examples.rollover`."""

from examples.rollover import EXAMPLE
from examples.stage import main

main(EXAMPLE)
