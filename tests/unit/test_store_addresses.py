"""An address of a store that cannot be read: the error repeats no part of it, because that may be a password."""

from __future__ import annotations

import pytest

from wakeline.errors import EngineRefusedError
from wakeline.gateway.settings import Settings
from wakeline.gateway.stores import engine_of


@pytest.mark.parametrize("scheme", ["postgres", "nats", "tls"])
@pytest.mark.parametrize(
    "login", ["jane:qq/SECRET", "jane:q@qq/SECRET", "jane:qq@SECRET", "jane:qq?SECRET", "jane:[SECRET"]
)
def test_a_password_with_a_character_that_ends_it_is_in_no_error(scheme: str, login: str) -> None:
    with pytest.raises(EngineRefusedError) as refused:
        engine_of(Settings(engine=f"{scheme}://{login}@db.internal:4222/wakeline"))
    said = f"{refused.value} {refused.value.hint}"
    assert [part for part in ("SECRET", "jane", "qq") if part in said] == []


@pytest.mark.parametrize("scheme", ["postgres", "nats"])
def test_a_password_in_which_they_are_encoded_is_read(scheme: str) -> None:
    engine_of(Settings(engine=f"{scheme}://user:p%40ss%2F%3F%23@db.internal:4222/wakeline"))
