"""The documents as a whole: links lead somewhere, code compiles, the demo's page is built from what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, blocks, spans, tables, text, tree, without_code
from wakeline.gateway.delivery.accept import OWN_PUBLISHERS
from wakeline.gateway.following.life import RULES
from wakeline.gateway.following.life.phases import Phase

DOCUMENTS = [path for path in tree() if path.suffix == ".md"]
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.M)


def anchors(document: str) -> set[str]:
    """What headings can be linked by."""
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(document)]
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for found in _LINK.finditer(without_code(path.read_text(encoding="utf-8"))):
        target, _, anchor = (found[1] or found[2]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = path.parent / target if target else path
        assert there.exists(), f"{path.relative_to(ROOT)} links to {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8"))


def test_every_decision_is_in_the_list_and_short() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    listed = re.findall(r"\((0\d{3}-[^)]+\.md)\)", text("docs/decisions/README.md"))
    assert listed == [page.name for page in pages]
    for page in pages:
        headings = _HEADING.findall(page.read_text(encoding="utf-8"))
        assert headings[0].startswith(page.name[:4])
        assert headings[1:] == ["Context", "Decision", "Consequence"]


def test_the_readme_s_workflow_is_one() -> None:
    code, worker = blocks(text("README.md"), "python")
    module: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), module)
    workflows = [name for name, value in module.items() if hasattr(value, "__temporal_workflow_definition")]
    assert workflows == ["OrderWorkflow"]
    for each in (code, worker):
        assert len([line for line in each.splitlines() if line and not line.startswith("#")]) <= 10


@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/how-to/watch-in-a-browser.md", 3)])
def test_a_program_for_the_browser_is_short(page: str, count: int) -> None:
    programs = blocks(text(page), "js")
    assert len(programs) == count
    assert all(len(program.splitlines()) <= 6 for program in programs)


def test_the_readme_names_the_commands_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", text("Makefile"), re.M))
    for document in ("README.md", "CONTRIBUTING.md", "docs/decisions/0002-sqlite-layout.md"):
        named = set(re.findall(r"(?:^    |^|`)make ([a-z]+)", text(document), re.M))
        assert named <= targets, f"{document} names {named - targets}"


# Put together from pieces, since this file is looked through, too.
REGISTRIES = [
    ".".join(host)
    for host in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("jsr", "io"),
        ("crates", "io"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("golang", "org"),
    ]
]
_MACHINE_PATH = re.compile(r"(?<![\w.*}\])-])/(?:" + "work|root" + r")(?=[/\s\"'`)]|$)", re.M)


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    named: list[str] = []
    for path in tree():
        if path.suffix == ".png":
            continue
        content = path.read_text(encoding="utf-8")
        places = [content.index(host) for host in REGISTRIES if host in content]
        places += [found.start() for found in _MACHINE_PATH.finditer(content)]
        named += [f"{path.relative_to(ROOT)}: {content[max(0, at - 60) : at + 60]!r}" for at in places]
    assert not named


def test_the_protocol_names_the_publishers_that_are_wakeline_s_own() -> None:
    (row,) = (
        row for table in tables(text("PROTOCOL.md")) for row in table if row.get("header") == "`Wakeline-Publisher`"
    )
    named = [name for name in spans(row["value"]) if name.endswith(":")]
    assert sorted(named) == sorted(OWN_PUBLISHERS)


def picture() -> str:
    """Return the table of the rules as a Mermaid diagram; a phase that is kept is not drawn."""
    reasons: dict[tuple[Phase, Phase], dict[str, None]] = {}
    for (phase, _), row in sorted(RULES.items(), key=lambda row: list(Phase).index(row[0][0])):
        for lead, why in row.leads.items():
            if lead is not phase:
                reasons.setdefault((phase, lead), {})[why] = None
    arrows = [f"  {state(phase)} --> {state(lead)}: {'<br/>'.join(whys)}" for (phase, lead), whys in reasons.items()]
    return "\n".join(["stateDiagram-v2", "  [*] --> waiting: the run is registered", *arrows])


def state(phase: Phase) -> str:
    return "[*]" if phase is Phase.DONE else phase.name.lower()


def test_the_picture_of_a_run_s_life_is_drawn_from_its_rules() -> None:
    assert picture() in text("docs/concepts/runs.md")
