"""Devices: how far each has come in each session, and which are present.

`transports`, `sessions` and `http` may import it. Open `positions.py` first; `records.py` describes what is stored.
"""

from __future__ import annotations

from wakeline.gateway.devices.positions import Positions
from wakeline.gateway.devices.presence import Change, Presence

__all__ = [
    "Change",
    "Positions",
    "Presence",
]
