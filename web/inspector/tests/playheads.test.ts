import { expect, it } from "vitest";
import { playheadOf } from "../src/session/playheads.ts";

const phone = {
  device: "phone",
  user: "bob",
  delivered: "e-4",
  seen: null,
  lag: 2,
  connected: true,
  last_active: "2026-11-21T05:00:00Z",
};

it("names each transport of a device once", () => {
  const marks = playheadOf({ ...phone, transports: ["sse", "websocket", "sse"] }, 6);
  expect(marks).toEqual([{ label: "bob/phone · sse, websocket −2", offset: 3, connected: true }]);
});

it("marks no device without a position", () => {
  expect(playheadOf({ ...phone, delivered: null, transports: ["sse"] }, 6)).toEqual([]);
});
