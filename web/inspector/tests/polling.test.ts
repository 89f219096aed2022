import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { repeat } from "../src/polling.ts";

const page = { hidden: false };

beforeEach(() => {
  vi.useFakeTimers();
  page.hidden = false;
  vi.stubGlobal("document", page);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("starts again only after the work before has ended", async () => {
  const ends: (() => void)[] = [];
  const stop = repeat(() => new Promise((end) => ends.push(end)), 2000);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(ends).toHaveLength(1);
  ends[0]?.();
  await vi.advanceTimersByTimeAsync(1999);
  expect(ends).toHaveLength(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(ends).toHaveLength(2);
  stop();
  ends[1]?.();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(ends).toHaveLength(2);
});

it("does nothing while the page is hidden", async () => {
  let done = 0;
  page.hidden = true;
  const stop = repeat(async () => {
    done += 1;
  }, 2000);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(done).toBe(0);
  page.hidden = false;
  await vi.advanceTimersByTimeAsync(2000);
  expect(done).toBe(1);
  stop();
});
