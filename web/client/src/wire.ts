/** What comes over the wire, as PROTOCOL.md defines it. */

/** One operation of a message that grows. */
export type Op = readonly [op: string, data: unknown];

export interface Part {
  readonly first: number;
  readonly last: number;
  readonly events: number;
  readonly time?: string;
  readonly run?: string;
  readonly activity?: string;
  readonly attempt?: number;
  readonly complete?: boolean;
  readonly ops?: readonly Op[];
  readonly event?: WireEvent;
}

export interface WireEvent {
  readonly offset: number;
  readonly topic: string;
  readonly data?: unknown;
  /** A Temporal payload that is not JSON, in place of `data`. */
  readonly payload?: { readonly metadata: Readonly<Record<string, string>>; readonly data: string };
  readonly time: string;
  readonly run?: string;
  readonly activity?: string;
  readonly attempt?: number;
  readonly key?: string;
  readonly message?: { readonly id: string; readonly op: string; readonly complete?: boolean };
  readonly notify?: unknown;
  readonly compact?: {
    readonly first: number;
    readonly last: number;
    readonly events: number;
    readonly parts?: readonly Part[];
  };
}

/** An event of a session, and the cursor to resume after it. */
export interface SessionEvent extends WireEvent {
  readonly cursor: string;
}

export interface WirePage {
  readonly events: readonly WireEvent[];
  readonly from?: string;
  readonly cursor: string;
  readonly previous?: string | null;
  readonly up_to_date: boolean;
  readonly settled: boolean;
  readonly closed: boolean;
}

/** A device that is connected. */
export interface Device {
  readonly user: string;
  readonly device: string;
}

/** A device that joined or left. */
export interface PresenceChange extends Device {
  readonly event: "join" | "leave";
}

export interface Run {
  /** `activity` for a standalone activity, whose id is then in `workflow_id`; absent for a workflow. */
  readonly kind?: "activity";
  readonly workflow_id: string;
  readonly run: string;
  readonly run_id: string;
  readonly namespace: string | null;
  readonly status: string;
  readonly drained: boolean;
  readonly followed: boolean;
  /** The data of its last `$run.waiting`. */
  readonly waiting: Readonly<Record<string, unknown>> | null;
  /** The activities that are being retried, are paused or have stalled. */
  readonly activities: readonly { readonly activity: string; readonly state: string; readonly attempt: number }[];
}

/** `GET /v1/sessions/{session}`. */
export interface SessionInfo {
  readonly session: string;
  readonly epoch: string;
  readonly first_offset: number;
  readonly next_offset: number;
  readonly cursor: string;
  readonly created: string;
  readonly closed: boolean;
  readonly settled: boolean;
  readonly devices: number;
  readonly runs: readonly Run[];
}
