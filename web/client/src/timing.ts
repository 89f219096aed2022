/** Time-outs, and the pauses between two attempts. */

/** Time-outs in milliseconds. The defaults suit browsers and phones. */
export interface Timing {
  /** The longest wait for a connection, or for the head of an answer. */
  connect: number;
  /** The longest time without a byte on a connection that should bring some. */
  silence: number;
  /** The time without a frame after which a WebSocket is pinged. */
  quiet: number;
  /** The longest wait for the answer to a ping. */
  pong: number;
  /** How long one long-poll waits for an event. */
  poll: number;
  /** The first and the longest pause before a retry. */
  pause: readonly [number, number];
  /** How long a transport that failed is avoided, at first; the time doubles with each failure. */
  avoid: number;
}

export const TIMING: Timing = {
  connect: 8_000,
  silence: 40_000,
  quiet: 20_000,
  pong: 8_000,
  poll: 20_000,
  pause: [100, 5_000],
  avoid: 30_000,
};

/** Pauses that double with each failure, shortened at random so that many clients do not retry at once. */
export class Backoff {
  failures = 0;
  readonly #range: readonly [number, number];

  constructor(range: readonly [number, number]) {
    this.#range = range;
  }

  next(): number {
    const [first, longest] = this.#range;
    const pause = Math.min(first * 2 ** Math.min(this.failures, 30), longest);
    this.failures += 1;
    return pause * (0.5 + Math.random() / 2);
  }

  reset(): void {
    this.failures = 0;
  }
}

/** Calls that end a pause early: the network is back, the page is shown again. */
export class Alarm {
  readonly #sleepers = new Set<() => void>();

  /** Wait so many milliseconds, until `ring`, or until the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#sleepers.delete(wake);
        signal?.removeEventListener("abort", wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#sleepers.add(wake);
      signal?.addEventListener("abort", wake);
      if (signal?.aborted) wake();
    });
  }

  ring(): void {
    for (const wake of [...this.#sleepers]) wake();
  }
}
