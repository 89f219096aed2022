"""Run this example alone: `python -m examples.external`."""

from examples.external import EXAMPLE
from examples.stage import main

main(EXAMPLE)
