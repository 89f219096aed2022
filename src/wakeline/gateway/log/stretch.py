"""A stretch of a publisher: the row by which engines with tables find a retry's offsets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stretch:
    """One row of `publications`: sequences [first, next) at offsets [first, next)."""

    first_sequence: int
    next_sequence: int
    first_offset: int
    next_offset: int

    def extends_to(self, sequence: int, offset: int) -> bool:
        """Return whether events from this sequence and offset on belong to the same row."""
        one_to_one = self.next_sequence - self.first_sequence == self.next_offset - self.first_offset
        return one_to_one and self.next_sequence == sequence and self.next_offset == offset
