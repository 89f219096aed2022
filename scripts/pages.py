"""Check that the built pages in the package are of their source as it stands.

A page is stamped with a hash of its source (`web/building/stamp.ts` makes the same), so that this takes no Node.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"web/demo": "src/wakeline/cli/demo/page.html", "web/inspector": "src/wakeline/gateway/http/inspector.html"}
_STAMP = re.compile(r'<meta name="wakeline-source" content="([0-9a-f]{64})">')


def source_stamp(root: Path) -> str:
    """Return one hash over path and content of the files that a page is made of."""
    folders = {name: root / name for name in ("src", "../client/src", "../shared")}
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}": path
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file()
    }
    files["index.html"] = root / "index.html"
    stamp = hashlib.sha256()
    for name in sorted(files):
        stamp.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    return stamp.hexdigest()


def stale() -> list[str]:
    """Return the pages that were not built of their source as it stands."""
    return [
        page
        for source, page in PAGES.items()
        if _STAMP.findall((ROOT / page).read_text()) != [source_stamp(ROOT / source)]
    ]


def main() -> int:
    """Print the stale pages and return the exit status."""
    found = stale()
    print("\n".join(f"{page} is stale: make web" for page in found) or f"{len(PAGES)} built pages: of their source")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
