"""Inputs: from any device to the workflow, once for each key.

It accepts signals, updates and requests to start or end a run, sends them, and puts their outcome into the session's log.
`http` and `transports` may import it; it stands on the connections of `following` and on the records of `sessions`. Open
`inputs.py` first, then `carrying.py`, and `steps.py`: the order of steps that makes an input arrive once.
"""

from __future__ import annotations

from wakeline.gateway.inputs.asked import ANSWER_KEY, RESERVED, Asked, check_key, input_publisher
from wakeline.gateway.inputs.calls import ABORTED
from wakeline.gateway.inputs.inputs import Inputs
from wakeline.gateway.inputs.unseen import check_seen

__all__ = [
    "ABORTED",
    "ANSWER_KEY",
    "RESERVED",
    "Asked",
    "Inputs",
    "check_key",
    "check_seen",
    "input_publisher",
]
