import { expect, it } from "vitest";
import { Chat, type Entry } from "../src/session/chat.ts";
import { logOf } from "./support.ts";

const piece = (data: string, attempt: number) => ({
  topic: "answer",
  data,
  run: "r",
  activity: "write",
  attempt,
  message: { id: "m", op: "text" },
});
const events = logOf(
  { topic: "$run.started", run: "r", data: { workflow_type: "Chat" } },
  piece("Dear cust", 1),
  { topic: "status", key: "order", data: "packed" },
  { topic: "$attempt.superseded", run: "r", activity: "write", attempt: 2, data: { attempt: 2, offsets: [[1, 1]] } },
  piece("Dear ", 2),
  piece("customer", 2),
  { topic: "status", key: "order", data: "shipped" },
  { topic: "$run.closed", run: "r", data: { status: "failed", failure: { message: "no paper" } } },
);

const said = (entries: readonly Entry[]) =>
  entries.map((entry) =>
    entry.kind === "note" || entry.kind === "speech"
      ? entry.text
      : entry.kind === "message"
        ? entry.message.value
        : entry.event.data,
  );

it("shows at each place what a reader had seen there", () => {
  const chat = new Chat();
  expect(said(chat.entries(events, 2))).toEqual(["Chat began", "Dear cust"]);
  expect(said(chat.entries(events, 4))).toEqual(["Chat began", "packed"]);
  expect(said(chat.entries(events, 8))).toEqual(["Chat began", "Dear customer", "shipped", "The run failed: no paper"]);
  expect(said(chat.entries(events, 2))).toEqual(["Chat began", "Dear cust"]);
  expect(said(chat.entries([], 0))).toEqual([]);
});

it("joins pieces of one text", () => {
  const pieces = logOf(
    { topic: "delta", data: { text: "Dear " } },
    { topic: "delta", data: { text: "you" } },
    { topic: "log", data: "a line" },
    { topic: "log", data: "another" },
    { topic: "delta", data: { text: "!" } },
    { topic: "delta", data: { text: "x", more: 1 } },
  );
  expect(said(new Chat().entries(pieces, 6))).toEqual(["Dear you", "a line", "another", "!", { text: "x", more: 1 }]);
});
