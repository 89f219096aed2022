import { expect, test } from "vitest";
import { fresh, publish, request, token, until } from "../../testing/gateway.ts";
import { type Fault, fault, faultProxy } from "../../testing/proxy.ts";
import { firstSeed, Random } from "../../testing/random.ts";
import { type Client, connect, type Transport, type View } from "../src/index.ts";
import { keyed } from "./support.ts";

/** `make faults` runs many more. */
const SCHEDULES = Number(process.env.WAKELINE_SCHEDULES ?? 20);
const SEED = firstSeed();
const AT_ONCE = 24;
/** Milliseconds after which a reader counts as hanging: a busy machine may need a minute. */
const PATIENCE = 200_000;
const TIMING = {
  connect: 500,
  silence: 700,
  quiet: 200,
  pong: 400,
  poll: 300,
  pause: [5, 100] as const,
  avoid: 300,
};

const bearer = token({ seconds: 3600 });

async function append(session: string, events: object[], how: { attempt: number; sequence: number } | undefined) {
  const headers: Record<string, string> = { "Content-Type": "application/json", Authorization: `Bearer ${bearer}` };
  if (how) {
    headers["Wakeline-Publisher"] = headers["Wakeline-Activity"] = "model";
    headers["Wakeline-Attempt"] = String(how.attempt);
    headers["Wakeline-Sequence"] = String(how.sequence);
  }
  const path = `${keyed}/v1/sessions/${session}/events`;
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify({ events }) });
  expect(answer.status, await answer.text()).toBe(200);
}

function anything(random: Random): object {
  const message = { id: `m${random.between(1, 3)}` };
  switch (random.between(0, 5)) {
    case 0:
      return { topic: "answer", data: `${random.between(0, 99)} `, message: { ...message, op: "text" } };
    case 1:
      return { topic: "steps", data: random.between(0, 99), message: { ...message, op: "list" } };
    case 2: {
      const data = { [random.pick(["a", "b"])]: random.pick([null, 1, { c: random.between(0, 9) }]) };
      return { topic: "form", data, message: { ...message, op: "json-merge" } };
    }
    case 3:
      return { topic: "state", data: random.between(0, 99), key: random.pick(["x", "y"]) };
    default:
      return { topic: "note", data: "x".repeat(random.pick([1, 100, 3_000])) };
  }
}

/** Publish in batches, some of them by attempts of which each supersedes the one before, and close the session. */
async function story(session: string, random: Random, first: () => void) {
  let attempt = 1;
  let sequence = 0;
  for (let batch = random.between(2, 6); batch > 0; batch -= 1) {
    const events = Array.from({ length: random.between(1, 30) }, () => anything(random));
    if (random.chance(0.6)) {
      if (random.chance(0.4)) {
        attempt += 1;
        sequence = 0;
      }
      await append(session, events, { attempt, sequence });
      sequence += events.length;
    } else await append(session, events, undefined);
    first();
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 60)));
  }
  await request(keyed, "POST", `/v1/sessions/${session}/close`, {}, bearer);
}

const content = (view: View) => ({
  messages: view.messages.map(({ topic, id, value }) => [topic, id, value]).sort(),
  keyed: view.keyed.map(({ topic, key, data }) => [topic, key, data]).sort(),
  events: view.events.map(({ offset }) => offset),
});

/** The offsets that a reader gets which comes later than others of its client. */
function lateReader(client: Client, session: string, after: number): number[] {
  const got: number[] = [];
  setTimeout(async () => {
    for await (const event of client.session(session).events()) got.push(event.offset);
  }, after);
  return got;
}

/** One schedule of faults: a reader of the events and a view, each through its own connections. */
async function schedule(seed: number): Promise<void> {
  const random = new Random(seed);
  const session = fresh("f");
  let left = random.between(1, 8);
  const faults: Fault[] = [];
  const proxy = await faultProxy(keyed, () => {
    if (left === 0 || random.chance(0.3)) return undefined;
    left -= 1;
    const chosen = fault(random);
    faults.push(chosen);
    return chosen;
  });
  const transport = random.pick<Transport>(["auto", "auto", "websocket", "sse", "long-poll"]);
  const fetchToken = () => token({ seconds: 3600 });
  const options = { url: proxy.url, token: fetchToken, transport, timing: TIMING };
  const clients = [connect(options), connect(options), connect({ url: keyed, token: fetchToken })];
  try {
    let begun = () => undefined as unknown;
    const first = new Promise((resolve) => {
      begun = () => resolve(undefined);
    });
    const telling = story(session, new Random(seed + 1), begun);
    await first;
    // Readers of one client share their connections; those of two do not.
    const shared = random.chance(0.5);
    const view = clients[shared ? 0 : 1]?.session(session).view(() => undefined) as View;
    const got: number[] = [];
    const events = clients[0]?.session(session).events();
    const late = shared ? lateReader(clients[0] as Client, session, random.between(0, 200)) : [];
    const ends = Date.now() + PATIENCE;
    const hanging = setTimeout(() => events?.close(), PATIENCE);
    for await (const event of events ?? []) got.push(event.offset);
    clearTimeout(hanging);
    await telling;
    const { next_offset: end } = await request(keyed, "GET", `/v1/sessions/${session}`, undefined, bearer);
    expect(got).toEqual(Array.from({ length: end }, (_, n) => n));
    expect(events?.state).toMatchObject({ status: "ended", reason: "closed" });
    if (shared) await until(() => late.length >= end, "the late reader's end", ends - Date.now());
    if (shared) expect(late).toEqual(got);
    await until(() => view.state.status === "ended", "the view's end", ends - Date.now());
    const whole = clients[2]?.session(session).view(() => undefined) as View;
    await until(() => whole.state.status === "ended", "the end without faults", PATIENCE);
    expect(content(view)).toEqual(content(whole));
  } catch (error) {
    throw new Error(`seed ${seed}, ${transport}, ${JSON.stringify(faults)}`, { cause: error });
  } finally {
    for (const made of clients) made.close();
    await proxy.close();
  }
}

test(`every event once, in order, to the end, through ${SCHEDULES} schedules of faults`, {
  timeout: 3_600_000,
}, async () => {
  console.info(`seed ${SEED}`);
  let next = SEED;
  const run = async () => {
    while (next < SEED + SCHEDULES) {
      next += 1;
      await schedule(next);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
});

test("an answer that is held comes after those of later connections", async () => {
  let held = true;
  const proxy = await faultProxy(keyed, () => {
    const fault = held ? ({ kind: "hold", ms: 6_000 } as const) : undefined;
    held = false;
    return fault;
  });
  const came: string[] = [];
  const ask = async (name: string) => {
    expect((await fetch(`${proxy.url}/healthz`)).status).toBe(200);
    came.push(name);
  };
  try {
    const first = ask("first");
    await until(() => proxy.had.length === 1);
    await Promise.all([first, ask("second")]);
    expect(came).toEqual(["second", "first"]);
  } finally {
    await proxy.close();
  }
});

test("a refusal with Retry-After is waited for", async () => {
  const session = fresh();
  await publish(keyed, session).catch(() => undefined);
  await append(session, [{ topic: "n", data: 1 }], undefined);
  const body = JSON.stringify({ error: { code: "limit_reached", message: "busy", hint: "" } });
  let times = 1;
  const proxy = await faultProxy(keyed, () => {
    times -= 1;
    return times < 0 ? undefined : { kind: "answer", status: 503, headers: "Retry-After: 1", body };
  });
  const client = connect({ url: proxy.url, token: () => token(), timing: TIMING });
  try {
    const begun = Date.now();
    const events = client.session(session).events();
    expect((await events.next()).value?.data).toBe(1);
    expect(Date.now() - begun).toBeGreaterThan(990);
  } finally {
    client.close();
    await proxy.close();
  }
});
