"""The guide to the Python client: its code runs as it stands, and it names what there is."""

from __future__ import annotations

import inspect
import re

from tests.docs.markdown import span, spans, tables, text
from wakeline.client import Session

GUIDE = "docs/how-to/python-client.md"


def test_every_argument_of_events_is_named() -> None:
    (rows,) = tables(text(GUIDE))
    named = [name for row in rows for name in spans(row["argument"])]
    assert sorted(named) == sorted(set(inspect.signature(Session.events).parameters) - {"self"})
    assert all(span(row["argument"].split(",")[0]) for row in rows)


def test_every_method_of_a_session_is_shown() -> None:
    shown = set(re.findall(r"\.(\w+)\(", text(GUIDE)))
    assert {name for name, value in vars(Session).items() if inspect.isfunction(value) and name[0] != "_"} <= shown
