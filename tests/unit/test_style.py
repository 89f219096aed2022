"""`make check` finds what is too long and prose that is not plain English."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def style() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "style.py"
    spec = importlib.util.spec_from_file_location("style", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""Who comes late reads the log."""', [1]),
        ('"""Return the end. What follows is unknown."""', [1]),
        ("x = 1\n# The end is\n# told when it comes.", [2]),
        ('raise ValueError(f"nobody thought that {x} may come")', [1]),
        ('def f():\n    """' + "Long " * 20 + '"""', [1]),
        ('"""What is a session? A log."""', []),
        ('"""Return the answer that `told` has."""', []),
        ('told = {"told": "What x"}', []),
    ],
)
def test_python_prose_is_checked_in_docstrings_comments_and_texts(
    style: ModuleType, source: str, lines: list[int]
) -> None:
    assert [line for line, _ in style.python_prose(source, ast.parse(source))] == lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("word " * 30, [1]),
        ("First.\n\n- Who comes late\n  reads the log.", [3]),
        ("| a | is told |", [1]),
        ("| " + "cell " * 30 + " |", []),
        ("```\n" + "code " * 30 + "\nWho told?\n```", []),
        ("See [this](https://example.org/" + "x" * 120 + ").", []),
        ("## What it is", []),
    ],
)
def test_markdown_prose_is_checked_outside_code(style: ModuleType, source: str, lines: list[int]) -> None:
    assert [line for line, _ in style.markdown_prose(source)] == lines


def test_a_file_and_a_function_may_not_outgrow_their_exceptions(style: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    pass\n" * 500)
    found = list(style.sizes([("long.py", path)], {"long.py": 501, "long.py f": 500, "gone.py": 410}))
    assert found == [
        "long.py:1: f: 501 lines, expected at most 500",
        "median of 1 files: 501 lines, expected at most 130",
        "LONGER has 'gone.py', which is no longer too long: remove it",
    ]


def test_a_page_of_the_concepts_has_a_limit(style: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "idea.md"
    page.write_text("a line\n" * 150)
    assert list(style.concepts([("docs/concepts/idea.md", page)])) == []
    page.write_text("a line\n" * 151)
    assert list(style.concepts([("docs/concepts/idea.md", page)])) == [
        "docs/concepts/idea.md: 151 lines, expected at most 150"
    ]


def test_a_room_without_flaws_is_no_exception(style: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "room.py"
    path.write_text('"""Who reads this?"""\n')
    assert list(style.prose([("old/room.py", path)], ["old/"])) == [
        "UNEDITED has 'old/', which has no flaws: remove it"
    ]
    path.write_text('"""Who reads this."""\n')
    assert list(style.prose([("old/room.py", path)], ["old/"])) == []
    assert list(style.prose([("new/room.py", path)], [])) == [
        'new/room.py:1: a sentence begins with "Who", expected the actor first'
    ]
