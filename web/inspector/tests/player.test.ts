import { signal } from "@preact/signals";
import { expect, it, vi } from "vitest";
import type { SessionLog } from "../src/session/log.ts";
import { Player } from "../src/session/player.ts";
import { logOf } from "./support.ts";

const log = {
  events: logOf({}, {}, {}, {}),
  version: signal(1),
  live: signal(true),
  error: signal(undefined),
  hasEarlier: false,
  hasLater: false,
} as unknown as SessionLog;

it("replays from a place in the time that it took, and ends at the end", () => {
  vi.useFakeTimers();
  const player = new Player(log);
  expect(player.count.value).toBe(4);
  player.at(1);
  expect(player.count.value).toBe(2);
  player.toggle();
  vi.advanceTimersByTime(999);
  expect(player.count.value).toBe(2);
  vi.advanceTimersByTime(1);
  expect(player.count.value).toBe(3);
  player.speed.value = 4;
  vi.advanceTimersByTime(1000);
  expect(player.count.value).toBe(4);
  vi.advanceTimersByTime(1000);
  expect([player.head.value, player.playing.value]).toEqual([undefined, false]);
  player.toggle();
  expect(player.count.value).toBe(0);
  player.stop();
});

it("steps", () => {
  const player = new Player(log);
  player.step(-1);
  expect(player.head.value).toBe(2);
  player.step(-9);
  expect(player.head.value).toBe(0);
  player.step(2);
  expect(player.head.value).toBe(2);
});
