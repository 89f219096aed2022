"""Run this example alone: `python -m examples.ticker`."""

from examples.stage import main
from examples.ticker import EXAMPLE

main(EXAMPLE)
