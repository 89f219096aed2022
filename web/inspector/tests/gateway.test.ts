import { expect, it, vi } from "vitest";

it("asks for another token when the gateway refuses one that has not ended, and then repeats the request", async () => {
  vi.stubGlobal("document", { querySelector: () => null });
  vi.stubGlobal("location", { origin: "http://gateway" });
  const accepted = new Set(["one"]);
  vi.stubGlobal("fetch", async (_url: string, { headers }: { headers: Record<string, string> }) => {
    const known = accepted.has(headers.Authorization?.slice("Bearer ".length) ?? "");
    const error = { code: "token_invalid", message: "the key was replaced", hint: "" };
    return Response.json(known ? { sessions: [] } : { error }, { status: known ? 200 : 401 });
  });
  const { access, call, signIn } = await import("../src/gateway.ts");
  await signIn("one");
  accepted.clear();
  const answer = call("GET", "/v1/sessions");
  await vi.waitFor(() => expect(access.value.status).toBe("asking"), 60_000);
  accepted.add("two");
  await signIn("two");
  expect(await answer).toEqual({ sessions: [] });
  vi.unstubAllGlobals();
});
