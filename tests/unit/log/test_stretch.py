"""The search for an event's publication among publishers in memory."""

from __future__ import annotations

from typing import Any

from wakeline.gateway.log import Published
from wakeline.gateway.log.stretch import HeldPublisher, Stretch, published_at


class Counted(list[Any]):
    """A list that counts the reads of its elements, and that nobody may copy."""

    reads = 0

    def __getitem__(self, at: Any) -> Any:
        self.reads += 1
        return super().__getitem__(at)

    def __iter__(self) -> Any:
        raise AssertionError("a search must not visit every element")


class One(HeldPublisher):
    """A publisher with a thousand appends in its attempt, after a thousand in earlier ones."""

    def __init__(self, first: int) -> None:
        super().__init__(7, None)
        kept = Counted((at, at + 1, False) for at in range(first, first + 2_000, 2))
        stretches = Counted(Stretch(n, n + 1, first + 2_000 + 2 * n, first + 2_001 + 2 * n) for n in range(1_000))
        self.counted = (kept, stretches)
        self.kept, self.stretches = kept, stretches


def test_a_search_reads_a_few_elements_of_the_publisher_and_the_ends_of_the_others() -> None:
    publishers = {str(n): One(n * 4_000) for n in range(100)}
    assert published_at(50 * 4_000 + 500, publishers) == Published("50")
    assert published_at(50 * 4_000 + 2_500, publishers) == Published("50", 7, 250)
    assert published_at(50 * 4_000 + 501, publishers) is None
    assert published_at(50 * 4_000 + 2_501, publishers) is None
    for name, one in publishers.items():
        assert sum(each.reads for each in one.counted) < (100 if name == "50" else 20)


def test_removed_events_that_a_rough_range_counts_are_not_found() -> None:
    one = One(0)
    one.kept, one.stretches = [(4, 6, True)], [Stretch(0, 4, 8, 12, rough=True), Stretch(4, 5, 20, 21)]
    found = {offset for offset in range(30) if published_at(offset, {"p": one})}
    assert found == {20}
