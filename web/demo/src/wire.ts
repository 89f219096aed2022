/** What comes over the wire: events from the gateway, and the demo's own state. */

export type Ending = "completed" | "failed" | "canceled" | "terminated" | "timed_out";
export type Status = "running" | Ending;

export interface WireEvent {
  readonly offset: number;
  readonly topic: string;
  readonly data?: unknown;
  readonly time: string;
  readonly run?: string;
  readonly activity?: string;
  readonly attempt?: number;
}

export interface SessionInfo {
  readonly session: string;
  readonly title: string;
  readonly kind: string;
  readonly status: Status;
}

export interface Counter {
  readonly sent: number;
  readonly missing: number;
  readonly duplicate: number;
}

/** A push that reached a device; `time` in seconds. */
export interface Notice {
  readonly device: string;
  readonly id: string;
  readonly session: string;
  readonly text: string;
  readonly time: number;
}

export interface DemoState {
  /** Names the run of `wakeline demo`: another one has other sessions. */
  readonly run: string;
  readonly gateway: { readonly url: string; readonly up: boolean; readonly restarts: number };
  readonly counter: Counter;
  /** Newest last. */
  readonly sessions: readonly SessionInfo[];
  readonly devices: readonly { readonly name: string; readonly online: boolean }[];
  /** Newest last. */
  readonly notified: readonly Notice[];
}

/** The members of a JSON object; of anything else, none. */
export function members(data: unknown): Readonly<Record<string, unknown>> {
  return typeof data === "object" && data !== null && !Array.isArray(data) ? (data as Record<string, unknown>) : {};
}

/** The first of the named members that is a non-empty string. */
export function firstString(data: unknown, ...names: string[]): string | undefined {
  const values = members(data);
  for (const name of names) {
    const value = values[name];
    if (typeof value === "string" && value !== "") return value;
  }
  return undefined;
}

/** The first of the named members that is a finite number. */
export function firstNumber(data: unknown, ...names: string[]): number | undefined {
  const values = members(data);
  for (const name of names) {
    const value = values[name];
    if (typeof value === "number" && Number.isFinite(value)) return value;
  }
  return undefined;
}
