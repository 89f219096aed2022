import type { SessionInfo } from "./wire.ts";

/**
 * Browsers allow six connections to one host. One is left free, so that a stream can open while another one closes.
 */
export const MOST_CONNECTIONS = 5;

/** The sessions known and those just told of, which say it better. One that is no longer told of may still have events. */
export function merge(known: readonly SessionInfo[], told: readonly SessionInfo[]): SessionInfo[] {
  const names = new Set(told.map((info) => info.session));
  return [...known.filter((info) => !names.has(info.session)), ...told];
}

/** Of each kind, the session to show large: the newest that runs, else the newest. Kinds in order of appearance. */
export function prominent(sessions: readonly SessionInfo[]): Map<string, SessionInfo> {
  const chosen = new Map<string, SessionInfo>();
  for (const session of sessions) {
    const current = chosen.get(session.kind);
    if (!current || session.status === "running" || current.status !== "running") chosen.set(session.kind, session);
  }
  return chosen;
}

/**
 * The sessions to be connected to: those shown large, then the others that have not been read to their end, oldest
 * first. What does not fit waits until one of them has ended.
 */
export function toFollow(
  sessions: readonly SessionInfo[],
  finished: (session: string) => boolean,
  most = MOST_CONNECTIONS,
): string[] {
  const large = [...prominent(sessions).values()].map((info) => info.session);
  const rest = sessions.map((info) => info.session).filter((session) => !large.includes(session));
  return [...large, ...rest].filter((session) => !finished(session)).slice(0, most);
}

/** How many events a device has yet to get: the most that any device has seen of each session, less its own. */
export function behind(own: ReadonlyMap<string, number>, all: readonly ReadonlyMap<string, number>[]): number {
  const furthest = new Map<string, number>();
  for (const device of all) {
    for (const [session, next] of device) furthest.set(session, Math.max(next, furthest.get(session) ?? 0));
  }
  let sum = 0;
  for (const [session, next] of furthest) sum += Math.max(0, next - (own.get(session) ?? 0));
  return sum;
}
