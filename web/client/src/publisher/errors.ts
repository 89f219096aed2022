/** Errors of a publisher. */

import type { Refusal } from "../errors.ts";
import { WakelineError } from "../errors.ts";

/** An event as it is sent. */
export interface NewEvent {
  readonly topic: string;
  readonly data?: unknown;
  readonly key?: string | undefined;
  readonly message?: { readonly id: string; readonly op: string; readonly complete?: true } | undefined;
  readonly notify?: unknown;
}

/**
 * Events were not delivered, and will not be: after a refusal they did not arrive, after a time-out they may have. Its
 * code is that of the reason.
 */
export class PublishDroppedError extends WakelineError {
  /** The events, in order. */
  readonly events: readonly NewEvent[];

  constructor(reason: WakelineError, events: readonly NewEvent[]) {
    const message = `${events.length} events were not delivered: ${reason.message}`;
    super({ ...reason.details, code: reason.code, message, hint: reason.hint } as Refusal, reason.status);
    this.events = events;
    this.cause = reason;
  }
}
