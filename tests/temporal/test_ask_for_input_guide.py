"""The program of `docs/how-to/ask-for-input.md` when its run is cancelled."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.docs.pages import blocks
from tests.temporal.test_follower import running_gateway

PAGE = "docs/how-to/ask-for-input.md"


async def test_cancelling_the_run_cancels_the_question(
    client: Client, temporal: WorkflowEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = [block.code for block in blocks(PAGE) if block.file == "pay.py"]
    for slow, fast in (("heartbeat_every(timedelta(seconds=10))", 0.2), ("heartbeat_timeout=timedelta(seconds=30)", 3)):
        assert slow in code
        code = code.replace(slow, re.sub(r"seconds=\d+", f"seconds={fast}", slow))
    (tmp_path / "pay_of_the_guide.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    pay = importlib.import_module("pay_of_the_guide")
    path = "/v1/sessions/guide-order-1/requests"
    async with running_gateway(temporal, tmp_path / "data") as served:
        monkeypatch.setenv("WAKELINE_URL", served.url)
        async with Worker(client, task_queue="guide", workflows=[pay.Payment], activities=[pay.pay]):
            handle = await client.start_workflow(pay.Payment.run, "order-1", id="guide-order-1", task_queue="guide")
            async with asyncio.timeout(60):
                while "pay-order-1" not in str(await served.call("GET", path)):
                    await asyncio.sleep(0.05)
                await handle.cancel()
                with pytest.raises(WorkflowFailureError):
                    await handle.result()
                while (await served.call("GET", f"{path}/pay-order-1"))[1]["status"] == "open":
                    await asyncio.sleep(0.05)
        assert (await served.call("GET", f"{path}/pay-order-1"))[1]["status"] == "cancelled"
