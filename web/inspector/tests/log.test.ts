import type { Client, PageOptions, SessionEvent } from "@wakeline/client";
import { expect, it, vi } from "vitest";
import { SessionLog } from "../src/session/log.ts";
import { Player } from "../src/session/player.ts";
import { logOf } from "./support.ts";

const LONG = 12_000;
const long = logOf(...Array.from({ length: LONG }, () => ({})));

/** The offset that a cursor, or a time, stands for. */
function offsetOf(events: readonly SessionEvent[], from: string): number {
  if (!from.startsWith("time:")) return Number(from.split("-")[1]);
  const found = events.findIndex(({ time }) => Date.parse(time) >= Date.parse(from.slice(5)));
  return found < 0 ? events.length : found;
}

/** A gateway with one session, whose live reading ends with the events that it has. */
function gateway(events: readonly SessionEvent[]) {
  const asked: PageOptions[] = [];
  const way: { broken: boolean; refusal?: Error } = { broken: false };
  const session = {
    onState: () => () => undefined,
    describe: async () => {
      if (way.refusal) throw way.refusal;
      return { epoch: "epoch", first_offset: 0, next_offset: events.length };
    },
    async page(options: PageOptions) {
      if (way.broken) throw new Error("the gateway is away");
      asked.push(options);
      const { from, before, limit = 0 } = options;
      const end =
        before === undefined ? Math.min(events.length, offsetOf(events, from ?? "") + limit) : offsetOf(events, before);
      const begin = before === undefined ? offsetOf(events, from ?? "") : Math.max(0, end - limit);
      const place = { from: `epoch-${begin}`, cursor: `epoch-${end}`, previous: begin ? `epoch-${begin}` : null };
      return { events: events.slice(begin, end), up_to_date: end === events.length, ...place };
    },
    async *events({ from }: { from: string }) {
      const begin = from.startsWith("tail:")
        ? events.length - Number(from.slice(5))
        : from === "beginning"
          ? 0
          : offsetOf(events, from);
      yield* events.slice(begin);
    },
  };
  return { asked, way, client: { session: () => session } as unknown as Client };
}

async function followed(events: readonly SessionEvent[]) {
  const { asked, way, client } = gateway(events);
  const log = new SessionLog(client, "s");
  log.follow();
  await vi.waitFor(() => expect(log.events.at(-1)?.offset).toBe(events.length - 1), 60_000);
  return { log, asked, way };
}

async function sought(log: SessionLog, to: number | string): Promise<number | undefined> {
  let offset: number | undefined;
  await log.seek(to, (found) => {
    offset = found;
  });
  return offset;
}

const ends = (log: SessionLog) => [log.events[0]?.offset, log.events.at(-1)?.offset];

it("reads the part around an offset, and goes on to both sides of it", async () => {
  const { log } = await followed(long);
  expect([ends(log), log.hasEarlier, log.hasLater]).toEqual([[7000, 11_999], true, false]);
  expect(await sought(log, 1500)).toBe(1500);
  expect([ends(log), log.hasEarlier, log.hasLater]).toEqual([[500, 6499], true, true]);
  expect(await log.earlier()).toBe(true);
  expect([ends(log), log.hasEarlier]).toEqual([[0, 6499], false]);
  expect(await log.earlier()).toBe(false);
  while (log.hasLater) expect(await log.later()).toBe(true);
  expect([ends(log), log.live.value]).toEqual([[0, 11_999], true]);
});

it("asks once for events that several want at a time", async () => {
  const { log, asked } = await followed(long);
  await sought(log, 1500);
  const before = asked.length;
  expect(await Promise.all([log.later(), log.later(), log.earlier(), log.earlier()])).toEqual([true, true, true, true]);
  expect(asked.length).toBe(before + 2);
  expect(log.events.map(({ offset }) => offset)).toEqual(Array.from({ length: 7500 }, (_, at) => at));
});

it("shows the last event for a place after the end, and the first one for a time before the beginning", async () => {
  const { log } = await followed(long);
  expect(await sought(log, 1_000_000)).toBe(11_999);
  expect(await sought(log, "time:2031-01-01T00:00:00Z")).toBe(11_999);
  expect(log.live.value).toBe(true);
  expect(await sought(log, "time:1999-01-01T00:00:00Z")).toBe(0);
  expect(await sought(log, 1_000_000)).toBe(11_999);
  expect([ends(log), log.live.value]).toEqual([[11_000, 11_999], true]);
  expect(await sought(log, "time:1999-01-01T00:00:00Z")).toBe(0);
  expect(await sought(log, "time:2031-01-01T00:00:00Z")).toBe(11_999);
});

it("finds a time among the events that are held without a request", async () => {
  const { log, asked } = await followed(long);
  expect(await sought(log, `time:${long[9000]?.time}`)).toBe(9000);
  expect(asked).toEqual([]);
});

it("keeps what it holds if a part cannot be read", async () => {
  const { log, way } = await followed(long);
  way.broken = true;
  expect(await sought(log, 100)).toBeUndefined();
  expect([ends(log), log.error.value?.message]).toEqual([[7000, 11_999], "the gateway is away"]);
  const player = new Player(log);
  player.at(11_999);
  player.toggle();
  await vi.waitFor(() => expect(player.playing.value).toBe(false), 60_000);
  way.broken = false;
  expect(await sought(log, 100)).toBe(100);
  expect(log.error.value).toBeUndefined();
});

it("shows no error any more once the earlier events came", async () => {
  const { log, way } = await followed(long);
  way.broken = true;
  await log.earlier();
  expect(log.error.value?.message).toBe("the gateway is away");
  way.broken = false;
  await log.earlier();
  expect([ends(log), log.error.value]).toEqual([[6000, 11_999], undefined]);
});

it("holds no more than a bounded number of events", async () => {
  const { log } = await followed(logOf(...Array.from({ length: 30_000 }, () => ({}))));
  while (log.hasEarlier) await log.earlier();
  expect([ends(log), log.live.value]).toEqual([[0, 19_999], false]);
  await log.later();
  expect([ends(log), log.hasEarlier]).toEqual([[1000, 20_999], true]);
});

it("steps beyond the part that is held", async () => {
  const { log } = await followed(long);
  const player = new Player(log);
  await player.step(-4_999);
  await player.step(-1);
  expect([player.head.value, ends(log)]).toEqual([6_999, [6_000, 11_999]]);
  await player.seek(100);
  player.at(5_099);
  await player.step(1);
  expect([player.head.value, ends(log)]).toEqual([5_100, [0, 6_099]]);
});

it("replays on beyond the part that is held, to the end of the log", async () => {
  vi.useFakeTimers();
  const time = "2026-11-21T05:00:00Z";
  const { log } = await followed(logOf(...Array.from({ length: LONG }, () => ({ time }))));
  const player = new Player(log);
  await player.seek(1500);
  player.toggle();
  await vi.advanceTimersByTimeAsync(10_000);
  expect([player.head.value, player.playing.value]).toEqual([undefined, false]);
  expect([ends(log), log.live.value]).toEqual([[500, 11_999], true]);
  vi.useRealTimers();
});

it.each([{ retry: true }, { status: 401 }, { status: 404 }])(
  "reads the log when a first failure with %j is over",
  async (refusal) => {
    vi.useFakeTimers();
    const { way, client } = gateway(long);
    way.refusal = Object.assign(new Error("not now"), refusal);
    const log = new SessionLog(client, "s");
    log.follow();
    await vi.advanceTimersByTimeAsync(5_000);
    expect([log.events.length, log.error.value?.message, log.isRead]).toEqual([0, "not now", false]);
    delete way.refusal;
    await vi.advanceTimersByTimeAsync(5_000);
    expect([ends(log), log.error.value]).toEqual([[7000, 11_999], undefined]);
    vi.useRealTimers();
  },
);

it("reads the log again at the reader's wish after a refusal", async () => {
  const { way, client } = gateway(long);
  way.refusal = new Error("not allowed");
  const log = new SessionLog(client, "s");
  log.follow();
  await vi.waitFor(() => expect(log.error.value?.message).toBe("not allowed"), 60_000);
  delete way.refusal;
  new Player(log).toEnd();
  await vi.waitFor(() => expect(ends(log)).toEqual([7000, 11_999]), 60_000);
});
