"""Check how long files, functions and lines are, and that prose is plain English.

Each finding is one line: the place, the value found and the limit. The exceptions below may only shrink: one that
is no longer needed is a finding as well.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FILE_LINES, MEDIAN_LINES, FUNCTION_LINES = 400, 130, 60
CONCEPT_LINES = 150
DOCSTRING_CHARACTERS, MARKDOWN_CHARACTERS = 90, 120

# Files and functions that are longer than the limit, with the most lines that they may have.
LONGER: dict[str, int] = {}

# Files and folders whose prose has not been edited yet. A folder's name ends with a slash.
UNEDITED = ("benchmarks/README.md",)

# A sentence begins with its actor, not with a nominal clause. Questions are free.
OPENING = re.compile(r"(?:^|[.!?] )[\s*_(>-]*((?:Who|What|Whoever|Whatever|That which)) (?![^.!]*\?)")
# Words that stood for many acts. Each has a precise verb: report, record, check, restart, abandon, be pending.
WORDS = re.compile(
    r"\b(nobody thought|anew|told|tell(?:s|ing)? of|ow(?:e|es|ed|ing)|look(?:s|ed|ing)? at|whom"
    r"|g(?:ive|ives|iving|ave|iven) up|has the word)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"``.+?``|`[^`]*`")
LINK = re.compile(r"\]\([^)]*\)|https?://\S+")
BLOCK = re.compile(r"\s*(?:[-*+]|\d+\.)\s+")


def dialect(text: str) -> Iterator[str]:
    """Yield the banned openings and words in a text."""
    plain = " ".join(CODE.sub("x", text).split())
    for match in OPENING.finditer(plain):
        yield f'a sentence begins with "{match[1]}", expected the actor first'
    for match in WORDS.finditer(plain):
        yield f'"{match[1]}", expected a more precise verb'


def functions(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Yield the name, first line and number of lines of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and text of each comment; comments on consecutive lines are one."""
    start, last, parts = 0, 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1 and parts:
                yield start, " ".join(parts)
                parts.clear()
            start, last = start if parts else token.start[0], token.start[0]
            parts.append(token.string.lstrip("#! "))
    if parts:
        yield start, " ".join(parts)


def python_prose(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the finding for each flaw in docstrings, comments and texts of errors and log lines."""
    for line, text in comments(source):
        for flaw in dialect(text):
            yield line, flaw
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text, line = "", 1
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            line = 1 if isinstance(node, ast.Module) else node.lineno
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if len(first) > DOCSTRING_CHARACTERS:
                yield line, f"first docstring line: {len(first)} characters, expected at most {DOCSTRING_CHARACTERS}"
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
            line = node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            text, line = node.value, node.lineno
        # Shorter strings are names and keys.
        if text.count(" ") > 1:
            yield from ((line, flaw) for flaw in dialect(text))


def markdown_prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the finding for each flaw in prose; code is skipped, tables and headings are not measured."""
    fenced, start, block = False, 1, list[str]()
    for number, line in enumerate([*source.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        apart = line.startswith("#") or line.lstrip().startswith("|")
        if (fence or fenced or apart or not line.strip() or BLOCK.match(line)) and block:
            for flaw in dialect(" ".join(block)):
                yield start, flaw
            block.clear()
        fenced ^= fence
        if fence or fenced or not line.strip():
            continue
        if apart:
            # The words count in cells and headings too; "What …" as a heading is a question without its mark.
            for match in WORDS.finditer(CODE.sub("x", line)):
                yield number, f'"{match[1]}", expected a more precise verb'
            continue
        if len(LINK.sub("", line)) > MARKDOWN_CHARACTERS:
            yield number, f"{len(line)} characters, expected at most {MARKDOWN_CHARACTERS}"
        start = start if block else number
        block.append(BLOCK.sub("", line, count=1))


def sizes(paths: Iterable[tuple[str, Path]], longer: dict[str, int]) -> Iterator[str]:
    """Yield a finding for each file and function over its limit, and for each exception without need."""
    needed, counted = set[str](), list[int]()
    for name, path in paths:
        source = path.read_text()
        lengths = [(name, name, len(source.splitlines()), FILE_LINES)]
        if path.suffix == ".py":
            found = functions(ast.parse(source))
            lengths += [
                (f"{name} {func}", f"{name}:{line}: {func}", length, FUNCTION_LINES) for func, line, length in found
            ]
        counted += [lengths[0][2]] if lengths[0][2] > 1 else []
        for key, place, length, limit in lengths:
            needed |= {key} if length > limit else set()
            if length > longer.get(key, limit):
                yield f"{place}: {length} lines, expected at most {longer.get(key, limit)}"
    if counted and statistics.median(counted) > MEDIAN_LINES:
        yield f"median of {len(counted)} files: {statistics.median(counted):g} lines, expected at most {MEDIAN_LINES}"
    yield from (f"LONGER has {key!r}, which is no longer too long: remove it" for key in longer if key not in needed)


def concepts(paths: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """Yield a finding for each page that explains more than fits one idea."""
    for name, path in paths:
        if (length := len(path.read_text().splitlines())) > CONCEPT_LINES:
            yield f"{name}: {length} lines, expected at most {CONCEPT_LINES}"


def prose(paths: Iterable[tuple[str, Path]], unedited: Iterable[str]) -> Iterator[str]:
    """Yield a finding for each flaw in prose, and for each exempt path without flaws."""
    flawed = dict.fromkeys(unedited, False)
    for name, path in paths:
        source = path.read_text()
        found = list(markdown_prose(source) if path.suffix == ".md" else python_prose(source, ast.parse(source)))
        exempt = [entry for entry in flawed if name == entry or (entry.endswith("/") and name.startswith(entry))]
        flawed.update((entry, True) for entry in exempt if found)
        if not exempt:
            yield from (f"{name}:{line}: {flaw}" for line, flaw in sorted(found))
    yield from (f"UNEDITED has {entry!r}, which has no flaws: remove it" for entry, has in flawed.items() if not has)


def files(*patterns: str) -> list[tuple[str, Path]]:
    """Return the names and paths of the files that match; what is installed or hidden is left out."""
    paths = (path for pattern in patterns for path in sorted(ROOT.glob(pattern)))
    named = ((path.relative_to(ROOT).as_posix(), path) for path in paths)
    return [(name, path) for name, path in named if not re.search(r"(^|/)(\.|node_modules/)", name)]


def main() -> int:
    """Print what was found and return the exit status."""
    sources = files("src/**/*.py")
    found = [*sizes(sources + files("web/*/src/**/*.ts*"), LONGER)]
    found += concepts(files("docs/concepts/*.md"))
    found += prose(sources + files("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md"), UNEDITED)
    print("\n".join(found) if found else f"{len(sources)} files: sizes and prose as expected")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
