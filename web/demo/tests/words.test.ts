import { expect, it } from "vitest";
import { sameLines } from "../src/compare.ts";
import { gatewayUrl } from "../src/device.ts";
import { counterParts, plural, seconds, statusText } from "../src/format.ts";

it("writes the counter", () => {
  const parts = counterParts({ sent: 4812, missing: 0, duplicate: 0 });
  expect(parts.join(" · ")).toBe("sent 4,812 · missing 0 · duplicate 0");
});

it("writes numbers, times and statuses", () => {
  expect(plural(1, "event")).toBe("1 event");
  expect(plural(1200, "event")).toBe("1,200 events");
  expect(seconds(3900)).toBe("3 s");
  expect(seconds(75_000)).toBe("1 min 15 s");
  expect(statusText("timed_out")).toBe("timed out");
});

it("reaches the gateway by the device's own host name", () => {
  expect(gatewayUrl("http://127.0.0.1:7777", "localhost")).toBe("http://localhost:7777");
  expect(gatewayUrl("https://wakeline.example/", "localhost")).toBe("https://wakeline.example");
});

it("compares copies line by line", () => {
  expect(
    sameLines([
      ["a", "b"],
      ["a", "b"],
    ]),
  ).toBe(true);
  expect(sameLines([["a", "b"], ["a"]])).toBe(false);
  expect(sameLines([["a"], ["b"]])).toBe(false);
});
