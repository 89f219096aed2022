import type { SessionEvent } from "@wakeline/client";

const START = Date.parse("2026-11-21T05:00:00Z");

/** Events as a session has them, a second apart. */
export function logOf(...made: Partial<SessionEvent>[]): SessionEvent[] {
  return made.map((one, offset) => ({
    offset,
    topic: "n",
    data: null,
    time: new Date(START + 1000 * offset).toISOString(),
    cursor: `epoch-${offset + 1}`,
    ...one,
  }));
}
