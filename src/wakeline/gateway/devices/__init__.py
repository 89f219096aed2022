"""Devices: how far each device has read in each session, and which devices are connected.

`transports`, `sessions`, `notifications` and `http` may import it. Open `positions.py` first; `records.py`
describes the stored form. `exchange.py` shares presence between gateways.
"""

from __future__ import annotations

from wakeline.gateway.devices.exchange import Exchange
from wakeline.gateway.devices.positions import Furthest, Positions
from wakeline.gateway.devices.presence import Change, Presence
