"""Run this example alone: `python -m examples.llm`."""

from examples.llm import EXAMPLE
from examples.stage import main

main(EXAMPLE)
