"""Publishers cannot use the names under which the gateway reports about runs: the report would be taken for a duplicate."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from wakeline.events import ACTIVITY_PAUSED, ACTIVITY_RETRYING, ACTIVITY_STALLED, RUN_WAITING
from wakeline.gateway import following
from wakeline.gateway.delivery.accept import OWN_PUBLISHERS

_NAME = re.compile(r"[a-z.]+:(at-)?")


def names_in(source: str) -> set[str]:
    """The beginnings of the names of publishers that a module makes, such as `closed:`."""
    made = (node.values[0] for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr))
    texts = (one.value for one in made if isinstance(one, ast.Constant) and isinstance(one.value, str))
    return {text for text in texts if _NAME.fullmatch(text)}


def test_each_name_under_which_a_run_is_reported_is_reserved() -> None:
    files = Path(following.__path__[0]).rglob("*.py")
    names = set[str]().union(*(names_in(file.read_text(encoding="utf-8")) for file in files))
    names |= {f"{topic[1:]}:" for topic in (RUN_WAITING, ACTIVITY_RETRYING, ACTIVITY_PAUSED, ACTIVITY_STALLED)}
    assert {"undone:", "closed:", "closed:at-", "stream:"} <= names
    assert {name for name in names if not name.startswith(OWN_PUBLISHERS)} == set()
