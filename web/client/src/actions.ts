/** What a device writes to a session: inputs, answers, positions; loaded with the first of them. */

import type { WakelineError } from "./errors.ts";
import type { Call } from "./http.ts";
import type { Parts } from "./reader.ts";

export interface SendOptions {
  /** What is sent; an update by default. */
  readonly kind?: "signal" | "update" | "cancel" | "terminate" | "start";
  /** The input's key; a new one by default. Give a stored one to send the same input after a reload. */
  readonly id?: string;
  readonly run?: string;
  /** The rule by which an update starts the workflow if no run is open. */
  readonly start?: string;
  /** The offset of the last event that the user has seen; a later one that counts refuses the input. */
  readonly expect?: number;
  /** The longest wait for the outcome in milliseconds; without a limit by default. */
  readonly wait?: number;
  readonly signal?: AbortSignal;
}

export interface Outcome {
  readonly id: string;
  readonly status: "completed" | "rejected" | "accepted";
  readonly result?: unknown;
  readonly failure?: { readonly message: string; readonly type?: string };
}

/** A request for input, PROTOCOL.md §14. */
export interface InputRequest {
  readonly id: string;
  readonly reason: string;
  readonly status: "open" | "resolved" | "cancelled" | "expired";
  readonly kind?: "question" | "tool";
  readonly message?: string;
  readonly choices?: readonly string[];
  readonly response_schema?: unknown;
  readonly expires_at?: string;
  readonly digest?: string;
  readonly tool_call_id?: string;
  readonly metadata?: unknown;
  readonly outcome?: { readonly status: string; readonly payload?: unknown; readonly by?: string };
  /** Whether the run that asked has ended, so that nothing may come of an answer. */
  readonly run_closed?: boolean;
  readonly [field: string]: unknown;
}

export interface RequestPage {
  readonly requests: readonly InputRequest[];
  /** Where the next page begins; null after the last. */
  readonly after: string | null;
}

export interface AnswerOptions {
  /** `cancelled` declines to answer, without a payload. */
  readonly status?: "resolved" | "cancelled";
  /** The digest of what was shown, if the request has one. */
  readonly digest?: string;
  readonly expect?: number;
  readonly signal?: AbortSignal;
}

type Send = <T>(method: string, below: string[], how: Call) => Promise<T>;

const LONGEST_WAIT_MS = 20_000;
const RETRY_MS = 30_000;

export class Actions {
  readonly #parts: Parts;
  readonly #call: Send;
  readonly #device: string | undefined;
  #seen: { next: string; everywhere: boolean; sending: Promise<void> } | undefined;

  constructor(parts: Parts, call: Send, device: string | undefined) {
    this.#parts = parts;
    this.#call = call;
    this.#device = device;
  }

  /** Acknowledge a position; of several calls at a time only the furthest is sent. */
  seen(device: string, cursor: string, everywhere: boolean): Promise<void> {
    if (this.#seen) {
      this.#seen.next = later(this.#seen.next, cursor);
      this.#seen.everywhere ||= everywhere;
      return this.#seen.sending;
    }
    const seen = { next: cursor, everywhere, sending: Promise.resolve() };
    this.#seen = seen;
    seen.sending = (async () => {
      await Promise.resolve();
      try {
        let sent = "";
        let far = false;
        while (sent !== seen.next || far !== seen.everywhere) {
          sent = seen.next;
          far = seen.everywhere;
          const body = { seen: sent, ...(far && { everywhere: true }) };
          await this.#repeat((signal) => this.#call("PUT", ["devices", device], { body, signal }));
        }
      } finally {
        this.#seen = undefined;
      }
    })();
    return seen.sending;
  }

  async requests(signal?: AbortSignal): Promise<InputRequest[]> {
    const found: InputRequest[] = [];
    let after: string | undefined;
    do {
      const page = await this.#call<RequestPage>("GET", ["requests"], { query: { after }, signal });
      found.push(...page.requests);
      after = page.after ?? undefined;
    } while (after !== undefined);
    return found;
  }

  async send(name: string, args: readonly unknown[], options: SendOptions): Promise<Outcome> {
    const { kind = "update", id = newId(), wait, signal, ...rest } = options;
    const asked = { id, kind, name: name || undefined, args: args.length ? args : undefined, ...rest };
    const ends = wait === undefined ? Number.POSITIVE_INFINITY : Date.now() + wait;
    for (;;) {
      const left = Math.max(0, Math.min(LONGEST_WAIT_MS, ends - Date.now()));
      const body = { ...asked, device: this.#device, wait: left / 1000 };
      const call = (signal: AbortSignal) => this.#call<Outcome>("POST", ["inputs"], { body, wait: left, signal });
      const outcome = await this.#repeat(call, signal);
      if (outcome.status !== "accepted" || Date.now() >= ends) return outcome;
    }
  }

  answer(request: string, payload: unknown, options: AnswerOptions): Promise<InputRequest> {
    const { signal, status = "resolved", ...rest } = options;
    const body = { status, ...rest, device: this.#device, ...(status === "resolved" && { payload: payload ?? null }) };
    return this.#repeat((signal) => this.#call("POST", ["requests", request], { body, signal }), signal);
  }

  claim(request: string, lease: number): Promise<InputRequest> {
    const body = { device: this.#device, lease };
    return this.#repeat((signal) => this.#call("POST", ["requests", request, "claim"], { body, signal }));
  }

  /** Make a call that has no second effect until the gateway answers it, for half a minute. */
  async #repeat<T>(call: (signal: AbortSignal) => Promise<T>, asked?: AbortSignal): Promise<T> {
    const { http, alarm, closing } = this.#parts;
    const [first, longest] = http.timing.pause;
    const ends = Date.now() + RETRY_MS;
    const stopping = new AbortController();
    const { signal } = stopping;
    const stop = () => stopping.abort();
    for (const one of [asked, closing]) {
      one?.addEventListener("abort", stop);
      if (one?.aborted) stop();
    }
    try {
      for (let next = first; ; next = Math.min(2 * next, longest)) {
        try {
          return await call(signal);
        } catch (error) {
          const { retry, retryAfter = 0 } = error as Partial<WakelineError>;
          const pause = retryAfter * 1000 + next * (0.5 + Math.random() / 2);
          if (!retry || signal.aborted || Date.now() + pause > ends) throw closing.aborted ? closing.reason : error;
          await alarm.sleep(pause, signal);
        }
      }
    } finally {
      for (const one of [asked, closing]) one?.removeEventListener("abort", stop);
    }
  }
}

/** Of two cursors the one that is further; of different epochs the second. */
function later(one: string, other: string): string {
  const [epoch, offset] = one.split("-");
  const [now, next] = other.split("-");
  return epoch === now && Number(next) < Number(offset) ? one : other;
}

/** A key that no other client makes; pages without HTTPS lack `crypto.randomUUID`. */
function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
