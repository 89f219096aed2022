"""Notifications of users none of whose devices has seen an event.

`sessions` and `http` may import it. Open `deciding.py` first: what follows from a page of the log, positions and time. Then
`notifier.py`: the background task; `outbox.py`: the stored form; `sending.py` and `channels/`: the way to a receiver;
`subscriptions.py` and `reaching.py`: the devices of a user; `links.py`: links that answer requests.
"""

from __future__ import annotations

from wakeline.gateway.notifications.channels.channel import Channel, Notification, Outcome, Subscription
from wakeline.gateway.notifications.channels.outgoing import Answer, Outgoing
from wakeline.gateway.notifications.channels.vapid import new_keys
from wakeline.gateway.notifications.channels.web_push import WebPush, check_push_keys
from wakeline.gateway.notifications.links import Linked, Links
from wakeline.gateway.notifications.notifier import Notifier
from wakeline.gateway.notifications.outbox import Outbox, replaced
from wakeline.gateway.notifications.sending import retried
from wakeline.gateway.notifications.service import Notifying, notifications
from wakeline.gateway.notifications.subscriptions import Subscriptions
from wakeline.gateway.notifications.values import Box, Message, State

__all__ = [
    "Answer",
    "Box",
    "Channel",
    "Linked",
    "Links",
    "Message",
    "Notification",
    "Notifier",
    "Notifying",
    "Outbox",
    "Outcome",
    "Outgoing",
    "State",
    "Subscription",
    "Subscriptions",
    "WebPush",
    "check_push_keys",
    "new_keys",
    "notifications",
    "replaced",
    "retried",
]
