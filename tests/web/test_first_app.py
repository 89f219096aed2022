"""The React page of the tutorial with its service, its worker and a gateway: the files are those of the document."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, expect
from temporalio.testing import WorkflowEnvironment

from tests.docs.first_app import LETTER, opened
from tests.docs.markdown import blocks, text
from tests.nodejs import client, environment
from tests.tokens import SECRET, token
from tests.web.conftest import WEB, Npx
from wakeline.cli.processes import free_port
from wakeline.gateway.app import gateway
from wakeline.gateway.settings import Settings

# As Vite's template has them.
MAIN = """
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import App from "./App.jsx";
createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
"""
INDEX = '<!doctype html><div id="root"></div><script type="module" src="/src/main.jsx"></script>'
CONFIGURATION = """
export default {
  oxc: { jsx: { runtime: "automatic" } },
  resolve: {
    conditions: ["@wakeline/source", "module", "browser", "production"],
    alias: [{ find: /^@wakeline.client.worker.js/, replacement: "WORKER" }],
  },
};
"""


def write(folder: Path, gateway: str, temporal: str) -> None:
    """Write the files of the tutorial; its tokens last for 4 seconds."""
    document = text("docs/how-to/first-app.md")
    files = {"page/src/main.jsx": MAIN, "page/index.html": INDEX}
    # The workspace has the packages' sources; the worker is the file that a build puts into `dist`.
    files["page/vite.config.mjs"] = CONFIGURATION.replace("WORKER", str(client(WEB) / "worker.js"))
    for code in [*blocks(document, "python"), *blocks(document, "jsx"), *blocks(document, "html")]:
        named = re.match(r"(?:#|//|<!--) (at the end of )?([\w/.]+)", code)
        assert named is not None, code
        files[named[2]] = files[named[2]] + code if named[1] else code
    for name, code in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        changed = code.replace("http://localhost:7777", gateway).replace("localhost:7233", temporal)
        path.write_text(changed.replace("SECONDS = 900", "SECONDS = 4"))
    (folder / "page/node_modules").symlink_to(WEB / "node_modules")


@asynccontextmanager
async def running(folder: Path, *command: str, log: Path, **variables: str) -> AsyncIterator[Process]:
    """A program of the tutorial, in its directory."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=folder, env=environment(**variables), stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_react_page_shows_a_letter_through_a_killed_worker_and_expired_tokens(
    browser: Browser, npx: Npx, temporal: WorkflowEnvironment, tmp_path: Path
) -> None:
    expect.set_options(timeout=60_000)
    port, server = free_port(), temporal.client.service_client.config.target_host
    origin, log = f"http://127.0.0.1:{port}", tmp_path / "log"
    settings = Settings(port=0, engine="memory", token_secret=SECRET, cors_origins=(origin,), temporal=server)
    async with gateway(settings) as url, AsyncExitStack() as stack:
        write(tmp_path, url, server)
        npx("react", "vite", "build", str(tmp_path / "page"), "--base", "/react/", "--logLevel", "warn")
        publishes = token(sub="worker", allow=["publish"], sessions=["*"])
        variables = {"WAKELINE_TOKEN": publishes, "WAKELINE_URL": url, "WAKELINE_TOKEN_SECRET": SECRET}
        service = ("-m", "uvicorn", "web:app", "--port", str(port))
        await stack.enter_async_context(running(tmp_path, *service, log=log, **variables))
        page = await opened(browser, f"{origin}/react/")
        async with running(tmp_path, "worker.py", log=log, **variables):
            await page.click("#order")
            await expect(page.locator("#letter")).to_contain_text("Dear customer, your")
        await stack.enter_async_context(running(tmp_path, "worker.py", log=log, **variables))
        await expect(page.locator("#status")).to_have_text("completed")
        await expect(page.locator("#letter")).to_have_text(LETTER)
        await page.context.close()
        assert log.read_text().count("POST /bearer") > 1, log.read_text()
        assert re.search(r"GET /react/assets/worker-\S+\.js HTTP/1.1\" 200", log.read_text()), log.read_text()


async def test_a_page_shows_why_it_is_refused(browser: Browser, npx: Npx, tmp_path: Path) -> None:
    expect.set_options(timeout=60_000)
    port, log = free_port(), tmp_path / "log"
    origin, other = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    settings = Settings(port=0, engine="memory", token_secret=SECRET, cors_origins=(origin,))
    async with gateway(settings) as url:
        write(tmp_path, url, "localhost:7233")
        npx("react", "vite", "build", str(tmp_path / "page"), "--base", "/react/", "--logLevel", "warn")
        service = ("-m", "uvicorn", "web:app", "--port", str(port))
        problems = [
            (f"not {SECRET}", [(f"{origin}/", "got another signature"), (f"{origin}/react/", "got another signature")]),
            (None, [(f"{origin}/", "answered 500"), (f"{origin}/react/", "answered 500")]),
            (SECRET, [(f"{other}/", f"{url} is down"), (f"{other}/react/", "cannot be reached")]),
        ]
        for secret, pages in problems:
            variables = {} if secret is None else {"WAKELINE_TOKEN_SECRET": secret}
            async with running(tmp_path, *service, log=log, **variables):
                for address, problem in pages:
                    page = await opened(browser, f"{address}#orders/alice/1")
                    await expect(page.locator("#problem")).to_contain_text(problem)
                    await page.context.close()
