"""The outcomes of an attempt to read a stream, as the rules distinguish them."""

from __future__ import annotations

import pytest

from wakeline.gateway.following.life.answers import Answer


@pytest.mark.parametrize("answer", Answer)
def test_only_an_answer_that_a_worker_gave_shows_that_one_is_there(answer: Answer) -> None:
    not_a_worker_s = (Answer.NOBODY, Answer.NEVER_BEGAN, Answer.SESSION_CLOSED)
    assert answer.is_a_worker_s is (answer not in not_a_worker_s)


@pytest.mark.parametrize("answer", Answer)
def test_an_answer_is_final_unless_another_worker_may_give_another(answer: Answer) -> None:
    assert answer.is_final is (answer not in (Answer.NOBODY, Answer.ENCODED))
