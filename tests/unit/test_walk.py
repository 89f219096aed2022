"""A walk over all names checks each of them after it was requested last."""

from __future__ import annotations

from wakeline.gateway.runtime import Walk


async def test_a_walk_checks_all_names_once() -> None:
    steps: list[str] = []

    async def step(after: str) -> str | None:
        steps.append(after)
        return {"": "b", "b": "d", "d": None}[after]

    walk = Walk(step)
    while not walk.is_over:
        await walk.go_on()
    await walk.go_on()
    assert steps == ["", "b", "d"]
    walk.restart()
    await walk.go_on()
    assert steps[3:] == [""]


async def test_a_walk_that_is_requested_during_its_first_step_takes_that_again() -> None:
    """Such as by a gateway that gains the sessions of another one: the step has passed over them."""
    owned, checked = set[str](), set[str]()

    async def step(after: str) -> str | None:
        passed = [name for name in ("a", "b") if name in owned]
        if not owned:
            owned.update(("a", "b"))
            walk.restart()
        checked.update(passed)
        return None

    walk = Walk(step)
    while not walk.is_over:
        await walk.go_on()
    assert checked == {"a", "b"}
