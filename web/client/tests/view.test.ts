import { expect, test } from "vitest";
import { fresh, publish, request, until } from "../../testing/gateway.ts";
import { Folded } from "../src/folded.ts";
import type { Change, View } from "../src/index.ts";
import { client, url } from "./support.ts";

const piece = (id: string, op: string, data: unknown, complete?: true) => ({
  topic: "answer",
  data,
  message: { id, op, ...(complete && { complete }) },
});

async function append(session: string, attempt: number, sequence: number, ...events: object[]) {
  const headers = {
    "Content-Type": "application/json",
    "Wakeline-Publisher": "model",
    "Wakeline-Activity": "model",
    "Wakeline-Attempt": String(attempt),
    "Wakeline-Sequence": String(sequence),
  };
  const body = JSON.stringify({ events });
  const answer = await fetch(`${url}/v1/sessions/${session}/events`, { method: "POST", headers, body });
  expect(answer.status, await answer.clone().text()).toBe(200);
}

const values = (view: View) => Object.fromEntries(view.messages.map(({ id, value }) => [id, value]));

test("a view has messages with their values, the latest of each key, and every other event", async () => {
  const name = fresh();
  await publish(
    url,
    name,
    piece("m1", "text", "Hel"),
    { topic: "status", data: "paid", key: "order" },
    piece("m1", "text", "lo"),
    { topic: "note", data: 1 },
    { topic: "status", data: "packed", key: "order" },
    piece("m2", "json-merge", { a: { b: 1 }, c: 2 }),
  );
  const changes: Change[] = [];
  const view = client()
    .session(name)
    .view((_, more) => void changes.push(...more));
  await until(() => view.state.status === "live");
  expect(values(view)).toEqual({ m1: "Hello", m2: { a: { b: 1 }, c: 2 } });
  expect(view.latest("status", "order")?.data).toBe("packed");
  expect(view.events.map(({ data }) => data)).toEqual([1]);
  expect(changes[0]).toEqual({ kind: "reset" });

  await publish(url, name, piece("m1", "text", "!", true), piece("m2", "json-merge", { a: { b: null, d: 3 } }));
  await until(() => view.message("answer", "m1")?.complete);
  expect(values(view)).toEqual({ m1: "Hello!", m2: { a: { d: 3 }, c: 2 } });
  expect(changes.at(-1)).toMatchObject({ kind: "message", message: { id: "m2" } });
});

test.each(["early", "late"])(
  "what a failed attempt published is taken back, for a reader that came %s",
  async (when) => {
    const name = fresh();
    const open = () =>
      client()
        .session(name)
        .view(() => undefined);
    await publish(url, name, piece("m1", "text", "kept "));
    const early = when === "early" ? open() : undefined;
    if (early) await until(() => early.state.status === "live");
    await append(
      name,
      1,
      0,
      piece("m1", "text", "wrong"),
      { topic: "s", data: 1, key: "k" },
      { topic: "note", data: 1 },
    );
    await append(name, 1, 3, piece("m2", "text", "all wrong"));
    const view = early ?? open();
    await until(() => view.message("answer", "m2"));
    expect(values(view)).toEqual({ m1: "kept wrong", m2: "all wrong" });

    await append(name, 2, 0, piece("m1", "text", "right"), { topic: "note", data: 2 });
    await until(() => view.events.at(-1)?.data === 2);
    expect(values(view)).toEqual({ m1: "kept right" });
    expect(view.latest("s", "k")).toBeUndefined();
    expect(view.events.map(({ data }) => data)).toEqual([2]);
  },
);

test("a defect of the page's callback does not end the reading", async () => {
  const name = fresh();
  await publish(url, name, { topic: "n", data: 0 });
  const caught: unknown[] = [];
  const catching = (error: unknown) => void caught.push(error);
  process.on("uncaughtException", catching);
  let calls = 0;
  const view = client()
    .session(name)
    .view(() => {
      calls += 1;
      if (calls === 1) throw new Error("a defect");
    });
  await publish(url, name, { topic: "n", data: 1 });
  await until(() => view.events.length === 2 && caught.length === 1);
  process.off("uncaughtException", catching);
  expect(String(caught[0])).toContain("a defect");
});

test("open requests for input are in the view until they are answered", async () => {
  const name = fresh();
  const session = client({ device: "phone" }).session(name);
  await request(url, "POST", `/v1/sessions/${name}/requests`, { id: "r1", reason: "approval", choices: ["yes", "no"] });
  const view = session.view(() => undefined);
  await until(() => view.requests.has("r1"));
  expect((await session.requests()).map(({ id, choices }) => [id, choices])).toEqual([["r1", ["yes", "no"]]]);
  const answered = await session.answer("r1", "yes");
  expect(answered.outcome).toMatchObject({ status: "resolved", payload: "yes" });
  await until(() => view.requests.size === 0);
  await expect(session.answer("r1", "no")).rejects.toMatchObject({ code: "already_resolved" });
});

test("requests for input are read to the last page", async () => {
  const name = fresh();
  const ids = Array.from({ length: 103 }, (_, number) => `r${String(number).padStart(3, "0")}`);
  for (const id of ids) await request(url, "POST", `/v1/sessions/${name}/requests`, { id, reason: "approval" });
  const open = await client().session(name).requests();
  expect(open.map(({ id }) => id).sort()).toEqual(ids);
});

test("a closed session's view ends and keeps what it has", async () => {
  const name = fresh();
  await publish(url, name, piece("m1", "text", "all"));
  await request(url, "POST", `/v1/sessions/${name}/close`);
  const view = client()
    .session(name)
    .view(() => undefined);
  await until(() => view.state.status === "ended");
  expect(values(view)).toEqual({ m1: "all" });
});

test("each batch of events makes another array, which a page compares", async () => {
  const folded = new Folded();
  const event = (offset: number) => ({ offset, topic: "n", data: offset, time: "", cursor: `e-${offset + 1}` });
  folded.add([event(0), event(1)]);
  const before = folded.events;
  folded.add([event(2)]);
  expect(folded.events).not.toBe(before);
  expect([before.length, folded.events.length]).toEqual([2, 3]);
});
