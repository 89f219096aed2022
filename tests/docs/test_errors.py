"""The errors: the tree drawn at the top of the file, the reference and the protocol tell what the classes say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import wakeline.client.errors
import wakeline.errors
import wakeline.errors.publishing
import wakeline.publisher.errors
import wakeline.streams.errors
from tests.docs.markdown import span, spans, tables, text
from wakeline.client import RefusedError
from wakeline.errors import RequestInvalidError, WakelineError
from wakeline.errors.publishing import PublisherError, StreamError

_LINE = re.compile(r"^    (?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)(?P<rest>.*)$")


def descendants(kind: type[WakelineError]) -> Iterator[type[WakelineError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from descendants(below)


def own() -> list[type[WakelineError]]:
    """Every error of ours that has a code of its own."""
    kinds = dict.fromkeys(descendants(WakelineError))  # once each, also one of two families
    return [kind for kind in kinds if kind.__module__.startswith("wakeline.") and "code" in vars(kind)]


def status(kind: type[WakelineError]) -> str:
    """Its HTTP status, or a dash where neither it nor a class it belongs to, other than the root, names one."""
    named = any("status" in vars(base) for base in kind.__mro__ if base is not WakelineError)
    return str(kind.status) if named or kind is WakelineError else "–"


def documented() -> dict[str, str]:
    rows = [row for table in tables(text("docs/reference/errors.md")) for row in table]
    found = {span(row["code"]): row["status"] for row in rows}
    assert len(found) == len(rows), "expected each code once"
    return found


def test_every_code_is_documented_with_its_status() -> None:
    assert documented() == {kind.code: status(kind) for kind in own()}


def test_every_documented_error_tells_its_meaning_and_what_to_do() -> None:
    for table in tables(text("docs/reference/errors.md")):
        for row in table:
            assert row["meaning"]
            assert row["what to do"] or span(row["code"]) == "stream"


def test_a_code_means_one_thing() -> None:
    codes = [kind.code for kind in own() if kind is not WakelineError]
    assert len(codes) == len(set(codes))


def drawn(module: ModuleType) -> dict[str, tuple[str | None, str]]:
    """Each class in the tree at the top of a module: the class it is drawn under, and what stands beside it."""
    found: dict[str, tuple[str | None, str]] = {}
    above: list[tuple[int, str]] = []
    for line in (module.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["indent"])
        above = [(at, name) for at, name in above if at < depth]
        found[match["name"]] = (above[-1][1] if above else None, match["rest"].strip())
        above.append((depth, match["name"]))
    return found


@pytest.mark.parametrize(
    "module",
    [
        wakeline.errors,
        wakeline.errors.publishing,
        wakeline.streams.errors,
        wakeline.client.errors,
        wakeline.publisher.errors,
    ],
    ids=lambda m: m.__name__,
)
def test_the_tree_at_the_top_names_every_class_where_it_belongs(module: ModuleType) -> None:
    shared = {StreamError, PublisherError} & {kind for kind in vars(module).values() if isinstance(kind, type)}
    classes = {kind for kind in descendants(WakelineError) if kind.__module__ == module.__name__} | shared
    above = {name: parent for name, (parent, _) in drawn(module).items()}
    assert above.pop("WakelineError") is None
    assert set(above) == {kind.__name__ for kind in classes} - {"WakelineError"}
    for kind in classes - {WakelineError}:
        assert above[kind.__name__] in {base.__name__ for base in kind.__bases__}


def test_the_tree_at_the_top_tells_codes_and_statuses() -> None:
    beside = {name: rest for name, (_, rest) in drawn(wakeline.errors).items()}
    for kind in own():
        if kind.__module__ == "wakeline.errors" and kind is not WakelineError:
            told = kind.code if status(kind) == "–" else f"{status(kind)} {kind.code}"
            assert re.match(rf"{told}\b", beside[kind.__name__]), f"{kind.__name__}: {beside[kind.__name__]!r}"


def test_every_hint_says_something() -> None:
    for kind in own():
        assert kind.hint.endswith(".")


def test_no_hint_needs_a_file_that_pip_does_not_install() -> None:
    sources = sorted(Path(wakeline.__file__).parent.rglob("*.py"))
    hints = [
        str(part.value)
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        for value in _hints(node)
        for part in ast.walk(value)
        if isinstance(part, ast.Constant)
    ]
    assert len(hints) > 60
    assert [hint for hint in hints if re.search(r"\bdocs/|\.md\b", hint)] == []


def _hints(node: ast.AST) -> Iterator[ast.expr]:
    """The text of a hint, where a class or an error is given one."""
    if isinstance(node, ast.keyword) and node.arg == "hint":
        yield node.value
    if isinstance(node, ast.Assign) and any("hint" in ast.unparse(target).lower() for target in node.targets):
        yield node.value


def test_an_error_may_have_a_hint_of_its_own() -> None:
    assert RequestInvalidError("m").hint == RequestInvalidError.hint
    assert RequestInvalidError("m", hint="Do so.").wire()["error"]["hint"] == "Do so."


def test_the_one_class_without_a_code_of_its_own_carries_the_gateway_s() -> None:
    error = RefusedError(409, {"code": "sequence_gap", "message": "m", "hint": "h", "expected": 4})
    assert (error.code, error.status, error.wire()["error"]["expected"]) == ("sequence_gap", 409, 4)


def test_the_codes_of_the_protocol_exist_with_these_statuses() -> None:
    protocol = text("PROTOCOL.md")
    told = {
        (code, row["status"])
        for table in tables(protocol)
        for row in table
        if "code" in row
        for code in spans(row["code"])
    }
    told |= {(code, number) for number, code in re.findall(r"`(\d{3}) ([a-z]+_[a-z_]+)`", protocol)}
    assert len(told) > 10
    assert told <= {(kind.code, status(kind)) for kind in own()}
