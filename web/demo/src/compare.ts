import type { Device } from "./device.ts";

/** Compares, byte for byte, what all devices received of each session that all of them read to its end. */
export class Comparison {
  same = 0;
  different = 0;
  #done = new Set<string>();

  update(devices: readonly Pick<Device, "feeds">[]): void {
    for (const session of devices[0]?.feeds.keys() ?? []) {
      const feeds = devices.map((device) => device.feeds.get(session));
      // A finished feed changes no more, so that once is enough.
      if (this.#done.has(session) || !feeds.every((feed) => feed?.finished)) continue;
      this.#done.add(session);
      if (sameLines(feeds.map((feed) => feed?.raw ?? []))) this.same += 1;
      else this.different += 1;
    }
  }
}

export function sameLines(copies: readonly (readonly string[])[]): boolean {
  const [first = [], ...rest] = copies;
  return rest.every((copy) => copy.length === first.length && copy.every((line, index) => line === first[index]));
}
