"""Requests for input: a run asks people something, and the first answer counts.

It accepts requests and answers, decides which answer counts by appending it, and closes requests whose time is over. `http` and
`transports` may import it; it stands on `delivery` and on the records of `sessions`. Open `requests.py` first, then
`deciding.py`: what an answer does to a request.
"""

from __future__ import annotations

from wakeline.gateway.requests.asked import Answer, Asked, Claim, check_id
from wakeline.gateway.requests.deciding import Life, Person
from wakeline.gateway.requests.description import described
from wakeline.gateway.requests.requests import Requests

__all__ = [
    "Answer",
    "Asked",
    "Claim",
    "Life",
    "Person",
    "Requests",
    "check_id",
    "described",
]
