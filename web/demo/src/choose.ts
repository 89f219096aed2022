import type { SessionInfo } from "./wire.ts";

/** How many sessions a device reads at a time: those that fit its screen. */
export const MOST_SESSIONS = 5;

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
  most = MOST_SESSIONS,
): string[] {
  const large = [...prominent(sessions).values()].map((info) => info.session);
  const rest = sessions.map((info) => info.session).filter((session) => !large.includes(session));
  return [...large, ...rest].filter((session) => !finished(session)).slice(0, most);
}
