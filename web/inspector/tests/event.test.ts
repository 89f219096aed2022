import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";
import { LANGUAGES, programOf } from "../src/event/copies.ts";
import { plainOf } from "../src/event/payload.ts";
import { temporalLink } from "../src/event/temporal.ts";
import { receivers } from "../src/session/receivers.ts";

const HOSTILE = `it's "x" \\ $(touch /tmp/x) </script> ü 👍`;
const URL_ = "http://127.0.0.1:7777";

it("writes a session's name into a shell's command as text", () => {
  const command = programOf("curl", URL_, HOSTILE, "epoch-1", true);
  const [, ...words] = execFileSync("sh", ["-c", `printf '%s\\n' ${command}`], { encoding: "utf8" }).split("\n");
  expect(words[1]).toBe(`${URL_}/v1/sessions/${encodeURIComponent(HOSTILE)}/events?from=epoch-1`);
  expect(command).toContain('-H "Authorization: Bearer $WAKELINE_TOKEN"');
});

it("writes it into JavaScript and Python as text", () => {
  const script = programOf("TypeScript", URL_, HOSTILE, "epoch-1", false);
  const literal = /session\((".*")\);/.exec(script)?.[1] ?? "";
  expect(JSON.parse(literal)).toBe(HOSTILE);
  expect(literal).not.toContain("<");
  expect(programOf("Python", URL_, HOSTILE, "epoch-1", false)).toContain(
    String.raw`client.session("it's \"x\" \\ $(touch /tmp/x) </script> \u00fc \U0001f44d").events(from_="epoch-1")`,
  );
  for (const language of LANGUAGES) expect(programOf(language, URL_, "s", "epoch-1", true)).toContain("epoch-1");
});

const run = {
  workflow_id: "order/1",
  run: "r",
  run_id: "r2",
  namespace: null,
  status: "running",
  drained: true,
  followed: true,
  waiting: null,
  activities: [],
};

it.each([
  ["https://t.example", null, "https://t.example/namespaces/default/workflows/order%2F1/r2"],
  ["https://t.example/", "billing", "https://t.example/namespaces/billing/workflows/order%2F1/r2"],
  ["https://t.example/ui/namespaces/own.acc/", null, "https://t.example/ui/namespaces/own.acc/workflows/order%2F1/r2"],
  ["https://t.example/namespaces/own", "billing", "https://t.example/namespaces/billing/workflows/order%2F1/r2"],
])("links to %s", (ui, namespace, link) => {
  expect(temporalLink(ui, { ...run, namespace })).toBe(link);
});

it("links to no workflow for a standalone activity, and sends it no input", () => {
  const activity = { ...run, run: "a", kind: "activity" as const };
  expect(temporalLink("https://t.example", activity)).toBeUndefined();
  expect(receivers([activity, run, { ...run, run: "ended", status: "completed" }])).toEqual([run]);
});

it("reads payloads that are not encoded", () => {
  const payload = (encoding: string, data: string) => ({ metadata: { encoding: btoa(encoding) }, data: btoa(data) });
  expect(plainOf(payload("json/plain", '{"a": 1}'))).toEqual({ a: 1 });
  expect(plainOf(payload("binary/null", ""))).toBeNull();
  const encrypted = payload("binary/encrypted", "x");
  expect(plainOf(encrypted)).toBe(encrypted);
});
