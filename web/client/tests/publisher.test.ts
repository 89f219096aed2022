import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { fresh, request, token, until } from "../../testing/gateway.ts";
import { fault, faultProxy } from "../../testing/proxy.ts";
import { firstSeed, Random } from "../../testing/random.ts";
import { fromActivity, PublishDroppedError, type PublisherOptions, SessionPublisher } from "../src/publisher/index.ts";
import { keyed, url } from "./support.ts";

const SCHEDULES = Math.ceil(Number(process.env.WAKELINE_SCHEDULES ?? 100) / 5);
const TIMING = { connect: 500, silence: 700, pause: [5, 100] as const };

afterEach(() => vi.unstubAllGlobals());

function publisher(options: PublisherOptions) {
  const made = new SessionPublisher({ url, ...options });
  onTestFinished(() => made.close().catch(() => undefined));
  return made;
}

async function log(session: string, gateway = url, bearer?: string) {
  const path = `/v1/sessions/${session}/events?limit=10000`;
  const { events } = await request(gateway, "GET", path, undefined, bearer);
  return events as { topic: string; data: unknown; attempt?: number; message?: { complete?: boolean } }[];
}

describe.each(["a WebSocket", "requests"])("over %s", (way) => {
  const without = () => way === "requests" && vi.stubGlobal("WebSocket", undefined);

  test("events are in the session once, in order, and durable after a flush", async () => {
    without();
    const session = fresh();
    const made = publisher({ session });
    for (let n = 0; n < 2_000; n += 1) await made.publish("n", n);
    await made.flush();
    expect(made.acknowledged).toBe(2_000);
    expect((await log(session)).map(({ data }) => data)).toEqual(Array.from({ length: 2_000 }, (_, n) => n));
  });

  test("a later attempt supersedes and fences the earlier one, which then ends", async () => {
    without();
    const session = fresh();
    const who = { session, publisher: "model", activity: "model" };
    const first = publisher({ ...who, attempt: 1 });
    await first.publish("n", "old");
    await first.flush();
    const second = publisher({ ...who, attempt: 2 });
    await second.publish("n", "new");
    await second.flush();
    expect((await log(session)).map(({ topic, attempt }) => [topic, attempt])).toEqual([
      ["n", 1],
      ["$attempt.superseded", 2],
      ["n", 2],
    ]);
    await first.publish("n", "too late").catch(() => undefined);
    const refused = first.flush();
    await expect(refused).rejects.toMatchObject({ code: "attempt_fenced" });
    await expect(first.publish("n", "again")).rejects.toBeInstanceOf(PublishDroppedError);
  });

  test("an attempt that resumes learns what the last one published", async () => {
    without();
    const session = fresh();
    const who = { session, publisher: "model", activity: "model" };
    const first = publisher({ ...who, attempt: 1 });
    for (let n = 0; n < 5; n += 1) await first.publish("n", n);
    await first.close();
    const second = publisher({ ...who, attempt: 2, resume: true });
    await until(() => second.resumed === 5);
    await second.publish("n", 5);
    await second.flush();
    expect((await log(session)).map(({ data }) => data)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test("an event that is refused is reported, and the others arrive", async () => {
    without();
    const session = fresh();
    const dropped: unknown[] = [];
    const made = publisher({ session, onDropped: (error) => dropped.push(...error.events.map(({ data }) => data)) });
    for (let n = 0; n < 40; n += 1) await made.publish(n === 7 || n === 23 ? "$mine" : "n", n);
    await made.flush();
    expect(dropped).toEqual([7, 23]);
    expect((await log(session)).map(({ data }) => data)).toEqual(
      Array.from({ length: 40 }, (_, n) => n).filter((n) => n !== 7 && n !== 23),
    );
  });

  test("a session that was deleted is not created again", async () => {
    without();
    const session = fresh();
    const made = publisher({ session });
    await made.publish("n", 1);
    await made.flush();
    await request(url, "DELETE", `/v1/sessions/${session}`);
    await made.publish("n", 2);
    await expect(made.flush()).rejects.toMatchObject({ code: "session_deleted" });
    await expect(log(session)).rejects.toThrow("404");
  });
});

test("a message grows, and half an emoji waits for its other half", async () => {
  const session = fresh();
  const made = publisher({ session });
  const message = made.topic("answer", { append: "text" }).message("m1");
  for (const piece of ["It is ", "\ud83d", "\ude00 here"]) await message.append(piece);
  await message.complete();
  await made.flush();
  const events = await log(session);
  expect(events.map(({ data }) => data)).toEqual(["It is ", "\ud83d\ude00 here", null]);
  expect(events.at(-1)?.message?.complete).toBe(true);
});

test("publish waits while the buffer is full", async () => {
  const session = fresh();
  const made = publisher({ session, maxBuffer: 10 });
  await Promise.all(Array.from({ length: 200 }, (_, n) => made.publish("n", n)));
  await made.flush();
  expect((await log(session)).length).toBe(200);
});

test("events that cannot be delivered in time are reported with the reason", async () => {
  const made = publisher({ url: "http://127.0.0.1:9", session: fresh(), maxRetry: 200, timing: TIMING });
  await made.publish("n", 1);
  await expect(made.flush()).rejects.toMatchObject({ code: "unavailable", events: [{ topic: "n", data: 1 }] });
  await made.publish("n", 2);
});

test("an activity's attempts are one publisher", () => {
  const info = { activityId: "1", attempt: 3, workflowExecution: { workflowId: "order-1", runId: "r" } };
  expect(fromActivity(info)).toEqual({
    session: "order-1",
    publisher: "r:1",
    attempt: 3,
    run: "r",
    activity: "1",
    workflow: "order-1",
  });
  expect(fromActivity({ ...info, activityId: "é" }).publisher).toMatch(/^r:[0-9a-f]{64}$/);
});

test(`every event once, in order, through ${SCHEDULES} schedules of faults`, { timeout: 3_600_000 }, async () => {
  const seed = firstSeed();
  console.info(`seed ${seed}`);
  const bearer = token({ seconds: 3600 });
  let next = seed;
  const run = async () => {
    while (next < seed + SCHEDULES) {
      next += 1;
      const mine = next;
      const random = new Random(mine);
      const session = fresh("p");
      let left = random.between(1, 6);
      const proxy = await faultProxy(keyed, () => {
        if (left === 0 || random.chance(0.3)) return undefined;
        left -= 1;
        return fault(random);
      });
      const made = new SessionPublisher({
        ...{ url: proxy.url, token: () => token(), session, timing: TIMING },
        onDropped: (error) => expect.fail(`seed ${mine}: ${error.message}`),
      });
      const count = random.between(50, 400);
      for (let n = 0; n < count; n += 1) {
        await made.publish("n", n);
        if (random.chance(0.1)) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await made.close();
      const got = (await log(session, keyed, bearer)).map(({ data }) => data);
      expect(got, `seed ${mine}`).toEqual(Array.from({ length: count }, (_, n) => n));
      await proxy.close();
    }
  };
  await Promise.all(Array.from({ length: 12 }, run));
});
