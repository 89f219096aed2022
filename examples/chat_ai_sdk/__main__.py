"""Run this example alone: `python -m examples.chat_ai_sdk`; with `--page` it serves a page to chat in."""

import asyncio
import contextlib
import sys
from pathlib import Path

from examples.chat_ai_sdk.page import serve
from examples.chat_ai_sdk.play import EXAMPLE
from examples.stage import main

if "--page" in sys.argv:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Path(__file__).with_name("page")))
else:
    main(EXAMPLE)
