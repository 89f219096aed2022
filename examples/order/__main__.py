"""Run this example alone: `python -m examples.order`."""

from examples.order import EXAMPLE
from examples.stage import main

main(EXAMPLE)
