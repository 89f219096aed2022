/** Errors: one class, the gateway's codes, and whether a retry can help. */

/** The body of a refusal, PROTOCOL.md §11. */
export interface Refusal {
  readonly code?: string;
  readonly message?: string;
  readonly hint?: string;
  readonly [detail: string]: unknown;
}

/** An error of the gateway, or of the way to it. */
export class WakelineError extends Error {
  override readonly name = "WakelineError";
  /** A stable code: the gateway's, or `unavailable`, `token_unavailable`, `stream_broken`, `closed`. */
  readonly code: string;
  /** What to do about it. */
  readonly hint: string;
  /** The HTTP status; 0 if there was no answer, or if it came in a frame. */
  readonly status: number;
  /** Further fields of the gateway's error, such as `expected`. */
  readonly details: Refusal;
  /** Whether the same call may succeed later; a reading then continues by itself. */
  readonly retry: boolean;
  /** The least number of seconds before a retry. */
  readonly retryAfter: number;

  constructor(refusal: Refusal, status = 0, retryAfter = 0) {
    super(refusal.message ?? `the gateway answered ${status}`);
    this.code = refusal.code ?? (status >= 500 ? "unavailable" : "not_a_gateway");
    this.hint = refusal.hint ?? HINT;
    this.status = status;
    this.details = refusal;
    this.retryAfter = retryAfter;
    this.retry = PASSING.test(this.code) || status >= 500 || status === 408 || status === 429;
  }
}

const HINT = "Check the network, the gateway's URL, and the proxies between.";
/** Codes after which the same call may succeed later; the errors in frames have no status that shows it. */
const PASSING = /unavailable$|^limit_r|^storage_|^internal$|importing$/;

/** Call a function of the page: its defect ends no reading, and is reported like any uncaught error. */
export function guard(call: () => void): void {
  try {
    call();
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

/** The gateway cannot be reached, or the connection broke; `silent` if it stayed open without an answer. */
export function unavailable(reason: string, retryAfter = 0, silent = false): WakelineError {
  const message = `the gateway cannot be reached: ${reason}`;
  return new WakelineError({ code: "unavailable", message, silent }, 0, retryAfter);
}

/** The answer is not the session's stream. */
export function broken(message: string): WakelineError {
  return new WakelineError({ code: "stream_broken", message });
}
