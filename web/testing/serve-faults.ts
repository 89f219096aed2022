/**
 * Fault proxies as a program, for tests in a browser: `node serve-faults.ts GATEWAY`.
 *
 * Each line it reads is `SEED FAULTS`; it opens a proxy whose first connections fail, and prints its URL. A line with a
 * URL closes that proxy.
 */

import { createInterface } from "node:readline";
import { type FaultProxy, fault, faultProxy } from "./proxy.ts";
import { Random } from "./random.ts";

const gateway = process.argv[2] ?? "";
const proxies = new Map<string, FaultProxy>();

async function open(seed: number, faults: number): Promise<void> {
  const random = new Random(seed);
  let left = faults;
  const proxy = await faultProxy(gateway, () => {
    if (left === 0 || random.chance(0.3)) return undefined;
    left -= 1;
    const chosen = fault(random);
    // A page of another origin reads the status only if it may.
    if (chosen.kind === "answer") return { ...chosen, headers: `${chosen.headers}\r\nAccess-Control-Allow-Origin: *` };
    return chosen;
  });
  proxies.set(proxy.url, proxy);
  console.log(proxy.url);
}

for await (const line of createInterface(process.stdin)) {
  const proxy = proxies.get(line);
  if (proxy) {
    proxies.delete(line);
    await proxy.close();
  } else {
    const [seed, faults] = line.split(" ").map(Number);
    await open(seed ?? 0, faults ?? 0);
  }
}
