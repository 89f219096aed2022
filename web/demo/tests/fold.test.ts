import { describe, expect, it } from "vitest";
import { emptyView, fold, type SessionView } from "../src/fold.ts";
import type { WireEvent } from "../src/wire.ts";

function event(offset: number, topic: string, data: unknown = {}, more: Partial<WireEvent> = {}): WireEvent {
  return { offset, topic, data, time: "2026-11-21T05:14:43.123Z", ...more };
}

function foldAll(...events: WireEvent[]): SessionView {
  return events.reduce(fold, emptyView);
}

describe("the account of offsets", () => {
  it("is clean when every offset comes once", () => {
    const { ledger } = foldAll(event(0, "a"), event(1, "a"), event(2, "a"));
    expect(ledger).toEqual({ count: 3, next: 3, missing: 0, duplicate: 0 });
  });

  it("counts published events apart from Wakeline's own, so that it agrees with what was sent", () => {
    const view = foldAll(
      event(0, "$run.started"),
      event(1, "a"),
      event(1, "a"),
      event(2, "$run.closed"),
      event(3, "b"),
    );
    expect(view.published).toBe(2);
    expect(view.ledger.count).toBe(5);
  });

  it("counts the offsets that were skipped, also before the first event", () => {
    const { ledger } = foldAll(event(2, "a"), event(6, "a"));
    expect(ledger).toEqual({ count: 2, next: 7, missing: 5, duplicate: 0 });
  });

  it("counts an offset seen twice, and does not tell its content again", () => {
    const { ledger, story } = foldAll(
      event(0, "delta", { text: "one " }),
      event(1, "delta", { text: "two" }),
      event(0, "delta", { text: "one " }),
    );
    expect(ledger).toEqual({ count: 3, next: 2, missing: 0, duplicate: 1 });
    expect(story.text).toBe("one two");
  });

  it("counts a late event as a second fault, not as a healed gap", () => {
    const { ledger } = foldAll(event(0, "a"), event(2, "a"), event(1, "a"));
    expect(ledger).toMatchObject({ missing: 1, duplicate: 1 });
  });

  it("counts what a $gap says can no longer be had", () => {
    const { ledger } = foldAll(event(0, "a"), event(1, "$gap", { missed: 4, first_available: 5, source: "workflow" }));
    expect(ledger).toMatchObject({ next: 2, missing: 4 });
  });
});

describe("the status", () => {
  it("is running until the run is closed", () => {
    expect(foldAll(event(0, "$run.started"), event(1, "a")).status).toBe("running");
  });

  it.each(["completed", "failed", "canceled", "terminated", "timed_out"])("is %s when the run was", (status) => {
    const view = foldAll(event(0, "$run.started"), event(1, "$run.closed", { status }), event(2, "$session.settled"));
    expect(view).toMatchObject({ status, settled: true });
  });

  it("says why", () => {
    const failure = { message: "card declined", type: "CardError" };
    expect(foldAll(event(0, "$run.closed", { status: "failed", failure })).why).toBe("card declined");
    expect(foldAll(event(0, "$run.closed", { status: "terminated", reason: "by hand" })).why).toBe("by hand");
  });

  it("is running again when another run starts in the session", () => {
    const view = foldAll(
      event(0, "$run.closed", { status: "failed", failure: { message: "no" } }),
      event(1, "$session.settled"),
      event(2, "$run.started"),
    );
    expect(view).toMatchObject({ status: "running", why: "", settled: false });
  });

  it("stays as it is when a run continues", () => {
    expect(foldAll(event(0, "$run.started"), event(1, "$run.continued", { reason: "retry" })).status).toBe("running");
  });
});

describe("what a run is doing", () => {
  it("is the last thing that was told, and no part of the story", () => {
    const view = foldAll(event(0, "$run.waiting", { for: "input", signals: ["approve"], updates: [] }));
    expect([view.doing, view.story.others]).toEqual(["waits for approve", []]);
    expect(fold(view, event(1, "$run.waiting", { for: null })).doing).toBe("");
    expect(fold(view, event(1, "$run.closed", { status: "completed" })).doing).toBe("");
  });

  it.each([
    ["$run.waiting", { for: "timer" }, "waits for a timer"],
    ["$run.waiting", { for: "worker", task_queue: "q" }, "waits for a worker"],
    ["$run.waiting", { for: "input" }, "waits for somebody"],
    ["$activity.stalled", { activity_type: "charge", attempt: 1 }, "charge has stalled"],
    ["$activity.retrying", { activity_type: "charge", attempt: 3 }, "charge is tried again (attempt 3)"],
    ["$activity.paused", { activity_type: "charge", attempt: 3 }, "charge is paused"],
    ["$activity.paused", { activity: "1", attempt: 3, over: true }, ""],
    ["$run.waiting", { for: "task_retry", attempt: 3 }, "its code fails and is retried"],
    ["$activity.retrying", { activity: "1", attempt: 3, over: true }, ""],
  ])("%s %j", (topic, data, doing) => {
    expect(foldAll(event(0, topic, data)).doing).toBe(doing);
  });
});
