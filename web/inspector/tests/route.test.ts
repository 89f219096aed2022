import { beforeAll, expect, it, vi } from "vitest";

let parse: typeof import("../src/route.ts").parse;
let to: typeof import("../src/route.ts").to;

beforeAll(async () => {
  vi.stubGlobal("location", { hash: "" });
  vi.stubGlobal("addEventListener", () => undefined);
  ({ parse, to } = await import("../src/route.ts"));
});

it.each(["order-1", "a/b", "a?b=c", "ü %2F #", "x.json", ".."])(
  "a session named %s comes back from its address",
  (name) => {
    const route = parse(to("session", [name], { q: "a&b" }));
    expect([route.view, ...route.parts, route.query.get("q"), route.json]).toEqual(["session", name, "a&b", false]);
  },
);

it("begins with the sessions", () => {
  expect(parse("").view).toBe("sessions");
  expect(parse("#/").view).toBe("sessions");
});

it("shows a view as JSON", () => {
  expect(parse("#/session.json/x.json")).toMatchObject({ view: "session", parts: ["x.json"], json: true });
});

it("takes an escape that is none as it is", () => {
  expect(parse("#/session/100%").parts).toEqual(["100%"]);
});
