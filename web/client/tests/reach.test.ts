/** Pages whose connections to the gateway may be dead; `tests/web/test_browser.py` has one in a browser. */

import { afterEach, expect, test, vi } from "vitest";
import { fresh, request, token, until } from "../../testing/gateway.ts";
import { client, keyed, numbers } from "./support.ts";

const PROBE = "/healthz";

afterEach(() => vi.unstubAllGlobals());

/** Never answer a request, until it is aborted. */
function silence(init: RequestInit): Promise<Response> {
  return new Promise((_, reject) => init.signal?.addEventListener("abort", () => reject(new Error("aborted"))));
}

/** Answers a check of the connections; it may wait until so many requests were not answered. */
type Probe = (init: RequestInit, unanswered: () => number) => Promise<Response>;

/** Read sessions on a page, whose first request for each is not answered; return the paths that were requested. */
async function read(sessions: number, origin: string, probe: Probe) {
  vi.stubGlobal("location", { origin });
  const names = Array.from({ length: sessions }, () => fresh());
  for (const name of names) {
    await request(keyed, "POST", `/v1/sessions/${name}/events`, { events: numbers(0, 3) }, token());
  }
  const asked: string[] = [];
  let unanswered = 0;
  const made = client({
    url: keyed,
    token: token(),
    transport: "sse",
    timing: { connect: 2_000, pause: [1, 20] },
    fetch: (to, init) => {
      const { pathname } = new URL(to);
      asked.push(pathname);
      if (pathname === PROBE) return probe(init, () => unanswered);
      const first = asked.filter((path) => path === pathname).length === 1;
      if (!first) return fetch(to, init);
      return silence(init).finally(() => {
        unanswered += 1;
      });
    },
  });
  await Promise.all(
    names.map(async (name) => {
      const events = made.session(name).events();
      for (let n = 0; n < 3; n += 1) expect((await events.next()).value?.data).toBe(n);
    }),
  );
  return asked;
}

const probes = (asked: string[]) => asked.filter((path) => path === PROBE).length;

test("connections that were silent are checked once for all readings, and any answer will do", async () => {
  const asked = await read(3, "https://app.test", async (_, unanswered) => {
    await until(() => unanswered() === 3);
    throw new TypeError("blocked by the page's policy");
  });
  expect(probes(asked)).toBe(6);
});

test("no request follows while the gateway is silent", async () => {
  let sent = 0;
  const asked = await read(1, "https://app.test", (init) => {
    sent += 1;
    return sent <= 6 ? silence(init) : fetch(`${keyed}${PROBE}`);
  });
  expect(asked.slice(1, 13)).toEqual(Array(12).fill(PROBE));
});

test("a page of the gateway's own origin checks nothing", async () => {
  expect(probes(await read(1, new URL(keyed).origin, () => Promise.reject(new Error("not asked"))))).toBe(0);
});
