import { expect, it } from "vitest";
import { filterOf } from "../src/session/filter.ts";
import { logOf } from "./support.ts";

const events = logOf(
  { topic: "status", data: { state: "packed", parcel: { weight: 3 } } },
  { topic: "delta", data: "Hello there", activity: "write", attempt: 2 },
  { topic: "$run.closed", data: { status: "failed" } },
  { topic: "status", data: { state: "shipped" } },
);

it.each([
  ["", [0, 1, 2, 3]],
  ["topic:status", [0, 3]],
  ["topic:sta", []],
  ["topic:s*", [0, 3]],
  ["-topic:$*", [0, 1, 3]],
  ["topic:status data.state~PACK", [0]],
  ["data.parcel.weight>2", [0]],
  ["attempt>=2", [1]],
  ["attempt<1", []],
  ["offset>=1 offset<=2", [1, 2]],
  ["time>2026-11-21T05:00:01Z", [2, 3]],
  ["failed", [2]],
  ['"hello there"', [1]],
  ['data~"hello there"', [1]],
  ["size>15", [0, 2, 3]],
  ["data.toString:x", []],
  ["topic:[s", []],
  ["topic:", []],
])("%s", (text, found) => {
  expect(events.filter(filterOf(text)).map(({ offset }) => offset)).toEqual(found);
});
