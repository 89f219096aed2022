"""The OpenAPI document against the gateway: requests made up from the one, answers of the other, and no surprises.

`test_openapi.py` runs it.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.soak import times
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

pytest_plugins = ["schemathesis.pytest.plugin"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "openapi.yaml"
# A 500 is in no document, and so fails the first; a 503 may be an honest answer.
CHECKS: list[Any] = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> bytes:
    """What is made up for the document's string, as it is."""
    return str(value).encode("utf-8", "surrogatepass")


# A session that no test makes: made up now, for Hypothesis tries the strings that it finds in our code.
NOBODYS = uuid.uuid4().hex

schema = schemathesis.openapi.from_path(str(DOCUMENT))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in a thread of its own: schemathesis waits for each answer, and would wait for itself."""
    started: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        folder = str(tmp_path_factory.mktemp("openapi"))
        async with gateway(Settings(data=folder, port=0, no_auth=True, durability="process", keep_alive=0.2)) as at:
            started.append(at)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60), "expected the gateway to start"
        for session in ("0", "closed"):
            answer = requests.post(
                f"{started[0]}/v1/sessions/{session}/events",
                json={"events": [{"topic": "t", "data": 1}] * 5},
                timeout=60,
            )
            assert answer.status_code == 200
        requests.post(f"{started[0]}/v1/sessions/closed/close", timeout=60)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


@schema.parametrize()
@settings(max_examples=times(5, 15), deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_the_document_says(case: Any, url: str) -> None:
    # An answer without an end cannot be waited for; streams have tests of their own.
    if "text/event-stream" in str((case.headers or {}).get("Accept", "")) or case.path == "/v1/feed":
        case.headers = {**(case.headers or {}), "Accept": "application/json"}
    if isinstance(case.query, dict) and "wait" in case.query:
        case.query["wait"] = min(float(case.query["wait"]), 0.01) if _is_number(case.query["wait"]) else "x"
    if isinstance(case.body, dict) and isinstance(case.body.get("wait"), (int, float)):
        case.body["wait"] = min(case.body["wait"], 0.01)
    if case.path == "/v1/feed":
        case.query = {**(case.query or {}), "until": "settled", "session": [NOBODYS], "wait_for_start": "false"}
    if case.path == "/v1/ag-ui/{session}" and isinstance(case.query, dict):
        case.query.pop("until", None)
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=60)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
