import { expect, it } from "vitest";
import { answerCall, deliver, seenCall } from "../src/calls.ts";

const CALL = answerCall("order-1", "pay", "approve", "phone");

/** A gateway that gives these answers, one a call; "down" is none. */
function gateway(...answers: (number | "down")[]) {
  const urls: string[] = [];
  const send = async (url: string) => {
    urls.push(url);
    const status = answers.shift();
    if (typeof status !== "number") throw new TypeError("fetch failed");
    return { status };
  };
  return { urls, how: { send, pause: 0 } };
}

it("names the device that answers, and what it has seen", () => {
  expect(CALL).toEqual({
    method: "POST",
    path: "/v1/sessions/order-1/requests/pay",
    body: { payload: "approve", device: "phone" },
  });
  expect(seenCall("a/b", "phone", "abc-3")).toEqual({
    method: "PUT",
    path: "/v1/sessions/a%2Fb/devices/phone",
    body: { seen: "abc-3" },
  });
});

it("repeats an answer until the gateway is back", async () => {
  const { urls, how } = gateway("down", 503, 429, 200);
  expect(await deliver("http://localhost:1", CALL, () => true, how)).toBe(true);
  expect(urls).toEqual(Array(4).fill("http://localhost:1/v1/sessions/order-1/requests/pay"));
});

it("takes no for an answer when another device was faster", async () => {
  const { urls, how } = gateway(409);
  expect(await deliver("", CALL, () => true, how)).toBe(true);
  expect(urls.length).toBe(1);
});

it("gives up when its device goes offline", async () => {
  let online = true;
  const { urls, how } = gateway("down", "down");
  const failing = async (url: string) => {
    online = urls.length < 1;
    return how.send(url);
  };
  expect(await deliver("", CALL, () => online, { ...how, send: failing })).toBe(false);
  expect(urls.length).toBe(2);
});
