import { expect, it } from "vitest";
import { supersedersIn, tapeOf } from "../src/session/tape.ts";
import { logOf } from "./support.ts";

const events = logOf(
  { topic: "$run.started", run: "r", data: { workflow_type: "Order", workflow_id: "order-1" } },
  { topic: "delta", run: "r", activity: "write", attempt: 1 },
  { topic: "delta", run: "r", activity: "write", attempt: 1 },
  { topic: "$activity.retrying", run: "r", data: { activity: "write", attempt: 2 } },
  { topic: "$activity.retrying", run: "r", data: { activity: "write", attempt: 2, over: true } },
  { topic: "$attempt.superseded", run: "r", activity: "write", attempt: 2, data: { attempt: 2, offsets: [[1, 2]] } },
  { topic: "delta", run: "r", activity: "write", attempt: 2 },
  { topic: "$run.started", run: "child", data: { workflow_type: "Research", workflow_id: "research-1" } },
  { topic: "$run.waiting", run: "r", data: { for: "input" } },
  { topic: "$input.requested", run: "r", data: { id: "q", message: "Pay?" } },
  { topic: "$input.resolved", run: "r", data: { request: "q", status: "resolved" } },
  { topic: "$run.waiting", run: "r", data: { for: null } },
  { topic: "$run.closed", run: "r", data: { status: "completed" } },
  { topic: "note" },
);

const bars = (title: string) =>
  tapeOf(events)
    .lanes.find((lane) => lane.title === title)
    ?.bars.map(({ label, from, to }) => [label, from.offset, to?.offset]);

it("has a lane for each run, with its activities below it", () => {
  expect(tapeOf(events).lanes.map(({ title }) => title)).toEqual([
    "Order order-1",
    "write",
    "Research research-1",
    "input",
    "session",
  ]);
});

it("shows the life of a run, its waits and its end", () => {
  expect(bars("Order order-1")).toEqual([
    ["running", 0, 12],
    ["waits for input", 8, 11],
    ["completed", 12, 12],
  ]);
  expect(bars("Research research-1")).toEqual([["running", 7, undefined]]);
});

it("shows attempts, and the time between them", () => {
  expect(bars("write")).toEqual([
    ["attempt 1", 1, 2],
    ["attempt 2 is to come", 3, 4],
    ["attempt 2", 6, 6],
  ]);
});

it("shows how long people were asked", () => {
  expect(bars("input")).toEqual([["Pay?", 9, 10]]);
});

it("knows what superseded an event", () => {
  const by = supersedersIn(events);
  expect([0, 1, 2, 3, 6].map((offset) => by(offset)?.offset)).toEqual([undefined, 5, 5, undefined, undefined]);
  expect(tapeOf(events).lanes[1]?.ticks.map(({ gone }) => gone)).toEqual([true, true, false, false, false, false]);
});

it("is empty without events", () => {
  expect(tapeOf([]).lanes).toEqual([]);
});
