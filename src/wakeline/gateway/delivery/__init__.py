"""Delivery: carries events from publishers into the log, and from the log to devices.

It accepts published events, writes them to live devices after each commit, and reads pages for devices that are behind. It
imports `log` and `runtime`. Open `channel.py` first, then `device.py`: how a device goes from history to live without a gap.
"""

from __future__ import annotations

from wakeline.gateway.delivery.accept import Accept, check_publisher, decode_json, decode_ndjson
from wakeline.gateway.delivery.channel import Channel, Lane, within
from wakeline.gateway.delivery.compact import Compacts
from wakeline.gateway.delivery.composing import Incoming
from wakeline.gateway.delivery.counting import check_array, check_batch
from wakeline.gateway.delivery.device import Connection, Device, Opening
from wakeline.gateway.delivery.gaps import RetentionGap
from wakeline.gateway.delivery.hub import Hub
from wakeline.gateway.delivery.pages import Encoded
from wakeline.gateway.delivery.starts import at_beginning, read_backwards, resolve_start
from wakeline.gateway.delivery.topics import FILTERED_EVENTS, MAX_TOPICS, MOST_PAGES, Topics
