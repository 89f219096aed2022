import type { SessionInfo } from "@wakeline/client";
import { expect, it } from "vitest";
import { type SessionPage, stateOf } from "../src/api.ts";
import { SessionList } from "../src/sessions/list.ts";

const made = (at: number, status = "running", events = 1): SessionInfo => ({
  session: `s-${at}`,
  epoch: "e",
  first_offset: 0,
  next_offset: events,
  cursor: `e-${events}`,
  created: new Date(at * 1000).toISOString(),
  closed: false,
  settled: false,
  devices: 0,
  runs: [
    {
      workflow_id: "w",
      run: "r",
      run_id: "r",
      namespace: null,
      status,
      drained: true,
      followed: true,
      waiting: null,
      activities: [],
    },
  ],
});

/** A gateway with some sessions, the newest first. */
function gateway(all: SessionInfo[]) {
  const asked: string[] = [];
  const ask = async (query: Record<string, string | number>): Promise<SessionPage> => {
    asked.push(String(query.after ?? ""));
    const last =
      Number(
        String(query.after ?? "")
          .split("-")
          .at(-1),
      ) || Number.POSITIVE_INFINITY;
    const rest = all.filter(({ session }) => Number(session.slice(2)) < last);
    // With a status, a page ends after so many sessions.
    const page = rest.slice(0, query.status ? 300 : Number(query.limit));
    const sessions = page.filter((one) => !query.status || stateOf(one) === query.status);
    const end = page.at(-1);
    return { sessions, after: end && rest.length > page.length ? `${end.created} ${end.session}` : null };
  };
  return { ask, asked };
}

const down = (from: number, count: number) => Array.from({ length: count }, (_, at) => made(from - at));

it("reads a page at a time", async () => {
  const { ask, asked } = gateway(down(250, 250));
  const list = new SessionList(ask, "", "");
  await list.load();
  expect(list.rows.value).toHaveLength(100);
  await list.load();
  await list.load();
  expect(list.rows.value.map(({ session }) => session)).toEqual(down(250, 250).map(({ session }) => session));
  expect(list.more.value).toBe(false);
  await list.load();
  expect(asked).toHaveLength(3);
});

it("reads on until a status has rows, and asks after twenty pages", async () => {
  const all = down(9000, 9000).map((one, at) => (at === 6500 ? { ...one, runs: made(0, "failed").runs } : one));
  const list = new SessionList(gateway(all).ask, "", "failed");
  await list.load();
  expect([list.rows.value.length, list.more.value]).toEqual([0, true]);
  await list.load();
  expect(list.rows.value.map(({ session }) => session)).toEqual(["s-2500"]);
});

it("drops a row whose session has another status, and keeps what the page did not reach", async () => {
  const all = down(250, 250);
  const list = new SessionList(gateway(all).ask, "", "running");
  await list.load();
  all.unshift(...down(400, 150));
  all[200] = made(200, "completed");
  await list.refresh(0, 20);
  const shown = list.rows.value.map(({ session }) => session);
  expect(shown).toHaveLength(399);
  expect(shown).not.toContain("s-200");
});

it("keeps rows that newer ones push out of the first page, and counts rates", async () => {
  const all = down(150, 150);
  const list = new SessionList(gateway(all).ask, "", "");
  await list.load();
  await list.load();
  all.unshift(made(151), made(152));
  all.sort((one, other) => other.created.localeCompare(one.created));
  all[2] = made(150, "completed", 9);
  await list.refresh(0, 20);
  expect(list.rows.value.map(({ session }) => session)).toEqual(all.map(({ session }) => session));
  expect(list.rows.value[2]).toMatchObject({ state: "completed", rates: [8] });
});

it("reads the sessions when the gateway is back after the first request failed", async () => {
  const { ask } = gateway(down(3, 3));
  let away = true;
  const list = new SessionList((query) => (away ? Promise.reject(new Error("away")) : ask(query)), "", "");
  await list.load();
  expect([list.rows.value.length, list.error.value?.message]).toEqual([0, "away"]);
  await list.refresh(0, 20);
  expect(list.error.value?.message).toBe("away");
  away = false;
  await list.refresh(0, 20);
  expect([list.rows.value.length, list.error.value, list.more.value]).toEqual([3, undefined, false]);
});
