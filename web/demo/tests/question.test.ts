import { describe, expect, it } from "vitest";
import { emptyView, fold, type SessionView } from "../src/fold.ts";
import { isOpen, onLockScreen } from "../src/question.ts";
import type { Notice } from "../src/wire.ts";

const PAY = { id: "pay", message: "Pay 12 EUR to ACME?", choices: ["approve", "reject"] };

function view(...events: [topic: string, data: unknown][]): SessionView {
  return events.reduce((before, [topic, data], offset) => fold(before, { offset, topic, data, time: "" }), emptyView);
}

describe("a question", () => {
  it("is open until it is answered, and then says by whom and where", () => {
    const open = view(["$input.requested", PAY]);
    expect(isOpen(open.question)).toBe(true);
    const answer = { request: "pay", status: "resolved", payload: "approve", by: "ada", device: "phone" };
    const closed = view(["$input.requested", PAY], ["$input.resolved", answer]);
    expect(isOpen(closed.question)).toBe(false);
    expect(closed.question?.answer).toBe("“approve” by ada from the phone");
  });

  it("may end without an answer", () => {
    const closed = view(["$input.requested", PAY], ["$input.resolved", { request: "pay", status: "expired" }]);
    expect(closed.question?.answer).toBe("expired");
  });

  it("is not closed by the answer to another one", () => {
    const open = view(["$input.requested", PAY], ["$input.resolved", { request: "other", status: "resolved" }]);
    expect(isOpen(open.question)).toBe(true);
  });

  it("is nobody's to answer once its run has ended", () => {
    expect(view(["$input.requested", PAY], ["$run.closed", { status: "terminated" }]).question).toBeUndefined();
  });

  it("has no buttons without choices", () => {
    expect(view(["$input.requested", { id: "form", response_schema: {} }]).question).toBeUndefined();
  });
});

describe("a lock screen", () => {
  const notice = (id: string, time: number, device = "phone"): Notice => ({ device, id, session: "s", text: "", time });

  it("shows what came to its device since it fell asleep, newest first", () => {
    const notices = [notice("before", 9), notice("first", 11), notice("second", 12), notice("other", 12, "laptop")];
    expect(onLockScreen(notices, "phone", 10_000).map((one) => one.id)).toEqual(["second", "first"]);
  });

  it("is empty while its device is awake", () => {
    expect(onLockScreen([notice("first", 11)], "phone", undefined)).toEqual([]);
  });
});
