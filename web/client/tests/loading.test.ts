import { expect, test, vi } from "vitest";
import { fresh, publish, until } from "../../testing/gateway.ts";
import { client, numbers, url } from "./support.ts";

const network = vi.hoisted(() => ({ down: true }));

/** A part that is loaded on demand; while the network is down it cannot be. */
const part = vi.hoisted(() => async (original: () => Promise<object>) => {
  if (network.down) throw new TypeError("Failed to fetch dynamically imported module");
  return original();
});

vi.mock("../src/actions.ts", part);
vi.mock("../src/folded.ts", part);

test("a part of the client that fails to load once is loaded again", async () => {
  const name = fresh();
  await publish(url, name, ...numbers(0, 1));
  const session = client({ timing: { pause: [5, 50] } }).session(name);
  const view = session.view(() => undefined);
  await until(() => view.state.status === "offline");
  await expect(session.requests()).rejects.toThrow();
  network.down = false;
  await until(() => view.events.length === 1);
  expect(await session.requests()).toEqual([]);
});
