"""Run every example, or those that are named: `python -m examples order ticker`."""

import sys

from examples import external, llm, order, reconnect, rollover, stage, ticker
from examples.approval import play as approval
from examples.chat_ag_ui import play as chat_ag_ui
from examples.chat_ai_sdk import play as chat_ai_sdk

ALL = [
    order.EXAMPLE,
    reconnect.EXAMPLE,
    external.EXAMPLE,
    ticker.EXAMPLE,
    llm.EXAMPLE,
    rollover.EXAMPLE,
    approval.EXAMPLE,
    chat_ai_sdk.EXAMPLE,
    chat_ag_ui.EXAMPLE,
]

if __name__ == "__main__":
    named = sys.argv[1:]
    unknown = set(named) - {example.name for example in ALL}
    if unknown:
        sys.exit(f"expected names of {', '.join(example.name for example in ALL)}, got {', '.join(sorted(unknown))}")
    stage.main(*(example for example in ALL if not named or example.name in named))
