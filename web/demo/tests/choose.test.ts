import { describe, expect, it } from "vitest";
import { merge, prominent, toFollow } from "../src/choose.ts";
import type { SessionInfo, Status } from "../src/wire.ts";

function info(session: string, status: Status = "running"): SessionInfo {
  const kind = session.split("-")[0] ?? "";
  return { session, kind, title: kind, status };
}

const none = () => false;

describe("the session to show large", () => {
  const shown = (...sessions: SessionInfo[]) => [...prominent(sessions).values()].map((it) => it.session);

  it("is the newest of its kind", () => {
    expect(shown(info("order-1", "completed"), info("agent-1"), info("order-2", "failed"))).toEqual([
      "order-2",
      "agent-1",
    ]);
  });

  it("is one that runs before a newer one that has ended", () => {
    expect(shown(info("order-1"), info("order-2", "completed"))).toEqual(["order-1"]);
  });
});

describe("the sessions to follow", () => {
  it("are those shown large, then what was not read to its end, oldest first", () => {
    const sessions = [info("order-1", "completed"), info("order-2", "failed"), info("order-3"), info("agent-1")];
    expect(toFollow(sessions, none)).toEqual(["order-3", "agent-1", "order-1", "order-2"]);
    expect(toFollow(sessions, (session) => session === "order-1")).toEqual(["order-3", "agent-1", "order-2"]);
  });

  it("are no more than the browser allows", () => {
    const sessions = Array.from({ length: 20 }, (_, index) => info(`order-${index}`, "completed"));
    expect(toFollow(sessions, none)).toEqual(["order-19", "order-0", "order-1", "order-2", "order-3"]);
  });
});

it("remembers sessions that are no longer told of", () => {
  const merged = merge([info("order-1"), info("order-2")], [info("order-2", "failed"), info("order-3")]);
  expect(merged.map((it) => `${it.session} ${it.status}`)).toEqual([
    "order-1 running",
    "order-2 failed",
    "order-3 running",
  ]);
});
