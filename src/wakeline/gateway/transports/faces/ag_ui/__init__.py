"""AG-UI's face: the events of AG-UI 1.0, for `@ag-ui/client` and its users.

    encoding.py   AgUiEvents: a turn as the events of one run
    history.py    turns as messages, and requests for input as interrupts
    asked.py      the body of a request: RunAgentInput

Open `encoding.py` first.
"""

from __future__ import annotations

from wakeline.gateway.transports.faces.ag_ui.asked import Asked
from wakeline.gateway.transports.faces.ag_ui.encoding import AgUiEvents, Run, empty_run

__all__ = ["AgUiEvents", "Asked", "Run", "empty_run"]
