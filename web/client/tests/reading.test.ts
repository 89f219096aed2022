import { expect, test } from "vitest";
import { fresh, publish, request, until } from "../../testing/gateway.ts";
import type { SessionEvent, State, Transport } from "../src/index.ts";
import { client, numbers, url } from "./support.ts";

const TRANSPORTS: readonly Transport[] = ["auto", "websocket", "sse", "long-poll"];

async function close(session: string) {
  await request(url, "POST", `/v1/sessions/${session}/close`);
}

test.each(TRANSPORTS)("every event comes once, in order, to the end of the session, over %s", async (transport) => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1200));
  const events = client({ transport }).session(name).events();
  const got: SessionEvent[] = [];
  const reading = (async () => {
    for await (const event of events) got.push(event);
  })();
  await until(() => events.state.status === "live");
  for (let n = 1200; n < 1230; n += 10) await publish(url, name, ...numbers(n, 10));
  await until(() => got.length === 1230);
  await close(name);
  await reading;
  expect(got.map(({ offset }) => offset)).toEqual(Array.from({ length: 1231 }, (_, n) => n));
  expect(got.slice(0, 1230).map(({ data }) => data)).toEqual(Array.from({ length: 1230 }, (_, n) => n));
  expect(events.state).toEqual({ status: "ended", reason: "closed" });
});

test.each(TRANSPORTS)("topics select, and Wakeline's own come only if they are named, over %s", async (transport) => {
  const name = fresh();
  await publish(url, name, { topic: "a.x", data: 1 }, { topic: "b", data: 2 }, { topic: "a.y", data: 3 });
  const events = client({ transport })
    .session(name)
    .events({ topics: ["a.*"] });
  expect([(await events.next()).value?.data, (await events.next()).value?.data]).toEqual([1, 3]);
  await until(() => events.state.status === "live");
  await publish(url, name, { topic: "b", data: 4 }, { topic: "a.x", data: 5 });
  expect((await events.next()).value?.data).toBe(5);
  await close(name);
  expect((await events.next()).done).toBe(true);
});

test("a reader may begin now, at the tail, or at a cursor", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 10));
  const session = client().session(name);
  const tail = session.events({ from: "tail:2" });
  const first = (await tail.next()).value;
  expect(first?.data).toBe(8);
  const resumed = session.events({ from: first?.cursor ?? "" });
  expect((await resumed.next()).value?.data).toBe(9);
  const now = session.events({ from: "now" });
  await until(() => now.state.status === "live");
  await publish(url, name, { topic: "n", data: 10 });
  expect((await now.next()).value?.data).toBe(10);
});

test("many sessions share one connection", async () => {
  const made = client();
  const names = Array.from({ length: 20 }, () => fresh());
  for (const name of names) await publish(url, name, { topic: "n", data: name });
  const readings = names.map((name) => made.session(name).events());
  for (const [n, reading] of readings.entries()) expect((await reading.next()).value?.data).toBe(names[n]);
  await until(() => readings.every(({ state }) => state.status === "live"));
  const text = await (await fetch(`${url}/metrics`)).text();
  expect(text).toContain("wakeline");
  await Promise.all(names.map((name) => publish(url, name, { topic: "n", data: "more" })));
  for (const reading of readings) expect((await reading.next()).value?.data).toBe("more");
});

test("a slow reader holds a bounded number of events, and gets them all", async () => {
  const name = fresh();
  let came = 0;
  const counting = async (to: string, init: RequestInit) => {
    const answer = await fetch(to, init);
    came += ((await answer.clone().json()).events ?? []).length;
    return answer;
  };
  const session = client({ transport: "long-poll", fetch: counting }).session(name);
  await publish(url, name, { topic: "n", data: 0 });
  const events = session.events();
  await until(() => events.state.status === "live");
  for (let n = 1; n <= 9_000; n += 1_000) await publish(url, name, ...numbers(n, 1_000));
  await until(() => came > 1_000);
  for (let n = 0; n <= 9_000; n += 1) {
    expect((await events.next()).value?.data).toBe(n);
    expect(came - n).toBeLessThan(2_500);
  }
});

test("a session that does not exist is refused for good, with the gateway's error", async () => {
  const events = client().session(fresh()).events();
  await expect(events.next()).rejects.toMatchObject({ code: "session_not_found", status: 404, retry: false });
  expect(events.state).toMatchObject({ status: "refused", retry: false });
  expect((await events.next()).done).toBe(true);
});

test("a deleted session is refused, never ended", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 3));
  const events = client().session(name).events();
  await until(() => events.state.status === "live");
  await request(url, "DELETE", `/v1/sessions/${name}`);
  for (let n = 0; n < 3; n += 1) await events.next();
  await expect(events.next()).rejects.toMatchObject({ code: "session_not_found" });
});

test("waiting for the start creates the session", async () => {
  const name = fresh();
  const events = client().session(name).events({ waitForStart: true });
  await until(() => events.state.status === "live");
  await publish(url, name, { topic: "n", data: 1 });
  expect((await events.next()).value?.data).toBe(1);
});

test("a page that has a cursor of a deleted session waits for the next start", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  const kept = new Map<string, string>();
  const storage = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  };
  const session = () => client({ storage }).session(name);
  const options = { resume: "list", waitForStart: true };
  for await (const _ of session().events(options)) break;
  await until(() => kept.size === 1);
  await request(url, "DELETE", `/v1/sessions/${name}`);
  await expect(session().events(options).next()).rejects.toMatchObject({ code: "epoch_changed" });
  await until(() => kept.size === 0);
  const events = session().events(options);
  await until(() => events.state.status === "live");
});

test("the progress of catching up is reported, and then live", async () => {
  const name = fresh();
  for (let n = 0; n < 3_000; n += 500) await publish(url, name, ...numbers(n, 500));
  const session = client().session(name);
  const states: State[] = [];
  session.onState((state) => states.push(state));
  const events = session.events();
  for (let n = 0; n < 3_000; n += 1) await events.next();
  await until(() => events.state.status === "live");
  const progress = states.flatMap((state) => (state.status === "catching up" ? [state.progress] : []));
  expect(progress.length).toBeGreaterThan(1);
  expect(progress).toEqual([...progress].sort((a, b) => a - b));
  expect(progress.every((part) => part > 0 && part <= 1)).toBe(true);
  expect(states.at(-1)?.status).toBe("live");
});

test("a reading that is left early, or aborted, ends", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 3));
  const session = client().session(name);
  for await (const event of session.events()) if (event.offset === 1) break;
  const stopping = new AbortController();
  const events = session.events({ signal: stopping.signal });
  await events.next();
  stopping.abort();
  expect((await events.next()).done).toBe(true);
  expect(events.state.status).toBe("stopped");
});

test("a stored cursor is where the next reading goes on", async () => {
  const name = fresh();
  const kept = new Map<string, string>();
  const storage = {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  };
  await publish(url, name, ...numbers(0, 5));
  for await (const event of client({ storage }).session(name).events({ resume: "list" })) if (event.data === 2) break;
  const again = client({ storage }).session(name).events({ resume: "list" });
  expect((await again.next()).value?.data).toBe(3);
});

test("a page of another server is no stream", async () => {
  const made = client({ url: `${url}/no/such/place` });
  await expect(made.session("s").events().next()).rejects.toMatchObject({ retry: false });
});
