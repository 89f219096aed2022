/** Where the reader is in a session's log: at its end as it grows, or at an event from which it is replayed. */

import { computed, signal } from "@preact/signals";
import type { SessionEvent } from "@wakeline/client";
import type { SessionLog } from "./log.ts";

/** Longer silences are cut short. */
const LONGEST_PAUSE_MS = 1500;

export class Player {
  /** The offset of the last event that is shown; none: all of them, and those that come. */
  readonly head = signal<number | undefined>(undefined);
  readonly playing = signal(false);
  readonly speed = signal(1);
  /** The number of events that are shown. */
  readonly count = computed(() => {
    const { events } = this.#log;
    void this.#log.version.value;
    return this.head.value === undefined ? events.length : indexAfter(events, this.head.value);
  });
  readonly #log: SessionLog;
  /** Grows whenever the replay goes on from another place, so that an answer that was for the place before is ignored. */
  #turn = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(log: SessionLog) {
    this.#log = log;
  }

  /** Show the events up to an offset. */
  at(offset: number): void {
    this.head.value = offset;
    if (this.playing.peek()) this.#next();
  }

  /** Show the session as it was after an event, or at a time (`time:…`); what is not held is read. */
  async seek(to: number | string): Promise<void> {
    await this.#log.seek(to, (found) => this.at(found));
  }

  /** Show all events, and those that come. */
  toEnd(): void {
    this.stop();
    this.head.value = undefined;
    if (!this.#log.live.peek() || this.#log.error.peek()) this.#log.follow();
  }

  /** Replay from where the reader is; from the beginning, if that is the end. */
  toggle(): void {
    if (this.playing.peek()) {
      this.stop();
      return;
    }
    const { events } = this.#log;
    const last = events.at(-1)?.offset ?? 0;
    const head = this.head.peek();
    if (head === undefined || (head >= last && !this.#log.hasLater)) this.head.value = (events[0]?.offset ?? 0) - 1;
    this.playing.value = true;
    this.#next();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#turn += 1;
    this.playing.value = false;
  }

  /** Go some events on or back; beyond those that are held, more are read. */
  async step(by: number): Promise<void> {
    const to = this.#place() + by;
    if (to < 0 && this.#log.hasEarlier) await this.#log.earlier();
    else if (to >= this.#log.events.length && this.#log.hasLater) await this.#log.later();
    const { events } = this.#log;
    const event = events[Math.max(0, Math.min(events.length - 1, this.#place() + by))];
    if (event) this.at(event.offset);
  }

  /** The index of the last event that is shown. */
  #place(): number {
    return this.count.peek() - 1;
  }

  #next(): void {
    clearTimeout(this.#timer);
    this.#turn += 1;
    const { events } = this.#log;
    const at = this.count.peek();
    const next = events[at];
    if (!next) {
      void this.#goOn();
      return;
    }
    const before = events[at - 1] ?? next;
    const pause = Math.min(LONGEST_PAUSE_MS, Math.max(0, Date.parse(next.time) - Date.parse(before.time)));
    const wait = pause / this.speed.peek();
    // Events of one moment are shown at once.
    let last = at;
    while (wait < 16 && last + 1 < events.length && last - at < 50) {
      const following = events[last + 1];
      if (!following || Date.parse(following.time) - Date.parse(next.time) > 16 * this.speed.peek()) break;
      last += 1;
    }
    this.#timer = setTimeout(
      () => {
        this.head.value = (events[last] ?? next).offset;
        this.#next();
      },
      Math.max(16, wait),
    );
  }

  /** The events that are held were replayed: go on with those that follow, if there are some. */
  async #goOn(): Promise<void> {
    const turn = this.#turn;
    if (!this.#log.hasLater) this.toEnd();
    else if (await this.#log.later()) {
      if (turn === this.#turn) this.#next();
    } else if (turn === this.#turn) this.stop();
  }
}

/** The number of events up to an offset. */
export function indexAfter(events: readonly SessionEvent[], offset: number): number {
  let low = 0;
  let high = events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((events[middle]?.offset ?? 0) <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
