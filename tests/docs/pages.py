"""The pages whose code a reader may copy: their blocks, and how they are run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.docs.markdown import ROOT

RUN = frozenset({"python", "sh", "js", "toml", "html", "ts", "tsx"})
SHOWN = frozenset({"json", "text", "mermaid", "jsx"})  # `tests/web` runs jsx
# Of the concepts, those with commands and programs; others show fragments of code.
_CONCEPTS = [f"docs/concepts/{name}.md" for name in ("compact", "positions", "retention", "tokens")]
_GUIDES = sorted(f"docs/how-to/{path.name}" for path in (ROOT / "docs/how-to").glob("*.md"))
PAGES = ["README.md", "PROTOCOL.md", *_GUIDES, *_CONCEPTS]
# A fence with the comment above it; or a comment with commands that are run and not shown.
_BLOCK = re.compile(r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n+)?^```(?P<kind>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
_HIDDEN = re.compile(r"^<!-- sh\n(?P<code>.*?)^-->$", re.M | re.S)
_FILE = re.compile(r"(?:# ([\w/]+\.(?:py|toml))|<!-- ([\w/]+\.html) -->)\n")


@dataclass(frozen=True)
class Block:
    """A piece of code of a page.

    Attributes:
        page: The page.
        line: The line of the page on which its code begins.
        kind: Its language.
        code: The code.
        runs: Whether it is run.
    """

    page: str
    line: int
    kind: str
    code: str
    runs: bool = True

    @property
    def file(self) -> str | None:
        """The file that its first line names."""
        found = _FILE.match(self.code)
        return found[found.lastindex or 0] if found else None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def padded(self) -> str:
        """The code on the lines on which it stands in the page, so that a traceback names those."""
        return "\n" * (self.line - 1) + self.code


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [
        Block(page, _line(text, match.start("code")), match["kind"], match["code"], match["why"] is None)
        for match in _BLOCK.finditer(text)
    ]
    hidden = [Block(page, _line(text, match.start("code")), "sh", match["code"]) for match in _HIDDEN.finditer(text)]
    return sorted(found + hidden, key=lambda block: block.line)


def program(of: list[Block]) -> str:
    """The Python of a page that belongs to no file, as one program with the page's lines."""
    lines: list[str] = []
    for block in of:
        if block.kind == "python" and block.runs and block.file is None:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
    return "\n".join(lines) + "\n" if lines else ""


def runnable() -> list[str]:
    """The pages that have something to run."""
    return [page for page in PAGES if any(block.runs and block.kind in RUN for block in blocks(page))]


def indented(page: str) -> list[int]:
    """The lines on which code begins that no fence names: nothing would run it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    hide = re.compile(rf"{_BLOCK.pattern}|{_HIDDEN.pattern.replace('?P<code>', '')}", re.M | re.S)
    bare = hide.sub(lambda match: "\n" * match[0].count("\n"), text)
    return [_line(bare, match.end()) for match in re.finditer(r"^(?![ *\-0-9]).*\n\n(?= {4}\S)", bare, re.M)]


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def module(page: str) -> str:
    """The name of a page's program."""
    return Path(page).stem.lower().replace("-", "_")
