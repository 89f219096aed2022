"""Reading the documents: which there are, their tables, their code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SPAN = re.compile(r"`([^`]+)`")
_BAR = re.compile(r"(?<!\\)\|")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def tree() -> list[Path]:
    """Every file that is, or is about to be, in version control; none where there is no version control."""
    if not (ROOT / ".git").exists():
        return []
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    return sorted(path for name in set(listed.split("\0")) if name and (path := ROOT / name).is_file())


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def spans(cell: str) -> list[str]:
    """What stands between backticks."""
    return _SPAN.findall(cell)


def span(cell: str) -> str:
    (only,) = spans(cell)
    return only


def blocks(document: str, language: str) -> list[str]:
    """The fenced code of a language."""
    return [code for kind, code in _BLOCK.findall(document) if kind == language]


def without_code(document: str) -> str:
    """The prose alone."""
    return _SPAN.sub("", _BLOCK.sub("", document))


def tables(document: str) -> list[list[dict[str, str]]]:
    """Every table, as rows by the names of its columns."""
    found: list[list[dict[str, str]]] = []
    names: list[str] = []
    for line in [*document.splitlines(), ""]:
        if not line.startswith("|"):
            names = []
            continue
        cells = [cell.strip() for cell in _BAR.split(line.strip()[1:-1])]
        if not names:
            names = cells
            found.append([])
        elif set(line) - set("|- :"):
            assert len(cells) == len(names), f"expected {len(names)} cells, got {line!r}"
            found[-1].append(dict(zip(names, cells, strict=True)))
    return found


def sections(document: str) -> dict[str, str]:
    """The text below each second-level heading."""
    parts = re.split(r"^## (.+)$", document, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
