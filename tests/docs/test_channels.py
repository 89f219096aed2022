"""The receivers on the page about channels accept what a webhook sends, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from tests import nodejs
from tests.docs.markdown import ROOT, blocks, text
from tests.receivers import OTHER_SECRET, SECRET
from wakeline.gateway.notifications.channels.webhook import signed

PAGE = "docs/concepts/channels.md"
FACES = ROOT / "tests" / "faces"
DATA = {"session": "order-1", "text": "é日本"}
BODY = json.dumps({"type": "notification", "data": DATA}, ensure_ascii=False).encode()
_CALL = """
for (const body of JSON.parse(process.argv[2])) {
  try { console.log(JSON.stringify(dataOf(body, %s, "%s"))) } catch (error) { console.log(JSON.stringify(error.name)) }
}
"""


def headers(age: int = 0) -> dict[str, str]:
    """Return the headers of a request while secrets change."""
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in (OTHER_SECRET, SECRET)]
    return signed("msg_1", int(time.time()) - age, BODY, keys)


def test_the_receiver_in_python_accepts_a_signed_body_alone() -> None:
    (code,) = blocks(text(PAGE), "python")
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, PAGE, "exec"), names)
    data_of = names["data_of"]
    assert data_of(BODY, headers(), SECRET) == DATA
    for body, sent in ((BODY + b" ", headers()), (BODY, headers(age=600))):
        with pytest.raises(WebhookVerificationError):
            data_of(body, sent, SECRET)


async def test_the_receiver_in_node_accepts_a_signed_body_alone(tmp_path: Path) -> None:
    nodejs.install(FACES)
    (tmp_path / "node_modules").symlink_to(FACES / "node_modules")
    (code,) = blocks(text(PAGE), "js")
    (tmp_path / "page.mjs").write_text(code + _CALL % (json.dumps(headers()), SECRET))
    bodies = json.dumps([BODY.decode(), BODY.decode() + " "])
    running = await asyncio.create_subprocess_exec(nodejs.NODE, tmp_path / "page.mjs", bodies, stdout=PIPE, stderr=PIPE)
    out, errors = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0, errors.decode()
    accepted, refused = map(json.loads, out.splitlines())
    assert (accepted, "Error" in refused) == (DATA, True)
