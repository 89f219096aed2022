"""A change of a record is refused with what was expected and what is there."""

from __future__ import annotations

import pytest

from wakeline.errors import RecordConflictError
from wakeline.gateway.log.values import check_revision


@pytest.mark.parametrize(
    ("value", "revision", "now", "message"),
    [
        (b"v", 1, 2, "expected 'k' at revision 1, it is at 2"),
        (b"v", 0, 2, "expected 'k' at revision 0, it is at 2"),
        (None, 1, 0, "expected 'k' at revision 1, it is at 0"),
        (None, 0, 0, "expected a record under 'k', there is none"),
    ],
)
def test_a_change_is_refused(value: bytes | None, revision: int, now: int, message: str) -> None:
    with pytest.raises(RecordConflictError) as refused:
        check_revision("k", value, revision, now)
    assert refused.value.message == message


@pytest.mark.parametrize(("value", "revision"), [(b"v", 0), (b"v", 3), (None, 3)])
def test_a_change_at_the_present_revision_is_accepted(value: bytes | None, revision: int) -> None:
    check_revision("k", value, revision, revision)
