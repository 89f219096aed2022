"""Keep files small: none of the source over 500 lines, and half of them at most 150."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

MOST, MEDIAN = 500, 150
ROOT = Path(__file__).parent.parent


def main() -> int:
    paths = [p for folder, kind in (("src", "*.py"), ("web/demo/src", "*.ts")) for p in (ROOT / folder).rglob(kind)]
    sizes = {path: len(path.read_text().splitlines()) for path in paths}
    counted = [size for size in sizes.values() if size > 1]
    over = {path: size for path, size in sizes.items() if size > MOST}
    for path, size in over.items():
        print(f"{path.relative_to(ROOT)}: {size} lines, expected at most {MOST}")
    median = statistics.median(counted)
    print(f"{len(counted)} files, median {median:g} lines, longest {max(counted)}")
    return 1 if over or median > MEDIAN else 0


if __name__ == "__main__":
    sys.exit(main())
