import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { fresh, gateway, publish, request, token, until } from "../../testing/gateway.ts";
import { faultProxy } from "../../testing/proxy.ts";
import { connect, type State, type Transport } from "../src/index.ts";
import { client, keyed, numbers, url } from "./support.ts";

const TRANSPORTS: readonly Transport[] = ["websocket", "sse", "long-poll"];

test("a killed gateway is offline, and the reading goes on where it was, over each transport", async () => {
  const data = await mkdtemp(join(tmpdir(), "wakeline-client-"));
  const killed = await gateway({ engine: "sqlite", data });
  onTestFinished(async () => {
    await killed.kill();
    await rm(data, { recursive: true });
  });
  const name = fresh();
  await publish(killed.url, name, ...numbers(0, 3));
  const states: State["status"][] = [];
  const readings = TRANSPORTS.map((transport) => {
    const session = client({ url: killed.url, transport }).session(name);
    session.onState(({ status }) => states.push(status));
    return session.events();
  });
  const read = async (from: number) => {
    for (const events of readings) {
      for (let n = from; n < from + 3; n += 1) expect((await events.next()).value?.data).toBe(n);
      await until(() => events.state.status === "live");
    }
  };
  await read(0);
  await killed.kill();
  await until(() => readings.every(({ state }) => state.status === "offline"));
  await killed.start();
  await publish(killed.url, name, ...numbers(3, 3));
  await read(3);
  expect(states).not.toContain("ended");
});

test("behind a proxy that buffers, the events of an open session come by long-polls", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 3));
  const proxy = await faultProxy(url, () => ({ kind: "buffer" }));
  onTestFinished(() => proxy.close());
  const asked: string[] = [];
  const made = client({
    url: proxy.url,
    timing: { connect: 500, pause: [5, 100] },
    fetch: (to, init) => {
      asked.push(`${new Headers(init.headers).get("accept")} ${new URL(to).searchParams.has("wait")}`);
      return fetch(to, init);
    },
  });
  const session = made.session(name);
  const states: State["status"][] = [];
  session.onState(({ status }) => states.push(status));
  const events = session.events();
  for (let n = 0; n < 20; n += 1) {
    if (n >= 3) await publish(url, name, ...numbers(n, 1));
    expect((await events.next()).value?.data).toBe(n);
  }
  // The WebSocket and the stream were tried before, and each of the long-polls brings an event.
  expect(asked).toContain("text/event-stream false");
  expect(asked.slice(-5)).toEqual(Array(5).fill("application/json true"));
  expect(events.state.status).toBe("live");
  expect(states).not.toContain("ended");
});

test.each(TRANSPORTS)("tokens that end again and again leave no gap, over %s", async (transport) => {
  const name = fresh();
  const bearer = token();
  const post = (data: number) =>
    request(keyed, "POST", `/v1/sessions/${name}/events`, { events: [{ topic: "n", data }] }, bearer);
  await post(0);
  let asked = 0;
  const fetchToken = () => {
    asked += 1;
    return token({ seconds: 1.2 });
  };
  const session = client({ url: keyed, token: fetchToken, transport, timing: { poll: 500 } }).session(name);
  // A slow machine may use a token that has just ended: the reading then asks for another one.
  const ends: State[] = [];
  session.onState((state) => {
    if (state.status === "ended" || (state.status === "refused" && !state.retry)) ends.push(state);
  });
  const events = session.events();
  expect((await events.next()).value?.data).toBe(0);
  let n = 0;
  while (asked < 4) {
    n += 1;
    await post(n);
    expect((await events.next()).value?.data).toBe(n);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  expect(ends).toEqual([]);
});

test("an expired token that cannot be renewed is a refusal, never the end", async () => {
  const session = client({ url: keyed, token: token({ seconds: -10 }) }).session(fresh());
  const events = session.events();
  await expect(events.next()).rejects.toMatchObject({ code: "token_expired", status: 401 });
  expect(events.state).toMatchObject({ status: "refused", retry: false });
});

test("a token function that fails is called again", async () => {
  const name = fresh();
  const bearer = token();
  await request(keyed, "POST", `/v1/sessions/${name}/events`, { events: [{ topic: "n", data: 0 }] }, bearer);
  let asked = 0;
  const events = client({
    url: keyed,
    token: async () => {
      asked += 1;
      if (asked < 3) throw new Error("the login service is away");
      return token();
    },
  })
    .session(name)
    .events();
  await until(() => events.state.status === "refused");
  expect(events.state).toMatchObject({ retry: true, error: { code: "token_unavailable" } });
  expect((await events.next()).value?.data).toBe(0);
});

test("a token for some topics reads those, without complaints about the others", async () => {
  const name = fresh();
  const bearer = token();
  const post = (...events: object[]) => request(keyed, "POST", `/v1/sessions/${name}/events`, { events }, bearer);
  await post(...numbers(0, 2), { topic: "m", data: "first" }, ...numbers(2, 2));
  const some = token({ wakeline: { topics: ["m"] } });
  for (const given of [some, () => some]) {
    const events = client({ url: keyed, token: given }).session(name).events({ until: "settled" });
    expect((await events.next()).value?.data).toBe("first");
    await until(() => events.state.status === "live");
  }
});

test("positions are acknowledged, the latest of many", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 50));
  const session = client({ device: "phone" }).session(name);
  const events = session.events();
  const sent = [];
  for (let n = 0; n < 50; n += 1) {
    await events.next();
    sent.push(session.seen(n));
  }
  await Promise.all(sent);
  const { devices } = await request(url, "GET", `/v1/sessions/${name}/devices`);
  expect(devices[0]).toMatchObject({ device: "phone", lag: 0 });
  const onwards = session.events({ from: "device" });
  await until(() => onwards.state.status === "live");
  await publish(url, name, { topic: "n", data: "next" });
  expect((await onwards.next()).value?.data).toBe("next");
});

test.each(["websocket", "sse"] as const)("devices that join and leave are reported, over %s", async (transport) => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  let present: string[] = [];
  const end = client({ device: "laptop", transport })
    .session(name)
    .presence((devices) => {
      present = devices.map(({ device }) => device).sort();
    });
  await until(() => present.includes("laptop"));
  const phone = client({ device: "phone", transport });
  const events = phone.session(name).events();
  await until(() => events.state.status === "live" && present.length === 2);
  expect(present).toEqual(["laptop", "phone"]);
  phone.close();
  await until(() => present.length === 1);
  end();
});

test.each(["127.0.0.1:7777", "localhost:7777", "/v1", ""])("the URL %j is refused by connect itself", (wrong) => {
  expect(() => connect({ url: wrong })).toThrow(`expected connect({ url: "http://…" }), got ${wrong}`);
});

test("an answer of another server has a code that is documented", async () => {
  const made = client({ fetch: async () => new Response("<!doctype html>", { status: 404 }) });
  await expect(made.call("GET", "/v1/sessions")).rejects.toMatchObject({ code: "not_a_gateway", status: 404 });
});
