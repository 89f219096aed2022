/** Sends one publisher's events: in batches, each event under its sequence number, until it is durable. */

import { unavailable, WakelineError } from "../errors.ts";
import { Alarm, Backoff } from "../timing.ts";
import type { Channel } from "./channel.ts";
import { type NewEvent, PublishDroppedError } from "./errors.ts";

/** An event that waits, and its size as JSON. */
export interface Entry {
  readonly event: NewEvent;
  readonly body: string;
}

interface Batch {
  sequence: number;
  entries: Entry[];
}

export interface Limits {
  readonly maxBatch: number;
  /** Milliseconds. */
  readonly maxRetry: number;
  readonly pause: readonly [number, number];
}

const BATCH_CHARACTERS = 2 * 1024 * 1024;
/** After one of these the gateway accepts no more events of the attempt. */
const ENDS: ReadonlySet<string> = new Set(["attempt_fenced", "session_closed", "session_deleted"]);
/** Refusals that are about the publisher, not about one of its events. */
const OF_THE_PUBLISHER: ReadonlySet<number> = new Set([401, 403, 404]);

export class Sender {
  /** The number of this attempt's events that are durable. */
  acknowledged = 0;
  /** The number of earlier attempts' events that count. */
  earlier = 0;
  /** The error after which nothing can be published any more. */
  ended: PublishDroppedError | undefined;
  readonly #dial: () => Channel;
  readonly #limits: Limits;
  readonly #report: (error: PublishDroppedError) => void;
  readonly #changed: () => void;
  readonly #alarm = new Alarm();
  readonly #backoff: Backoff;
  readonly #waiting: Entry[] = [];
  readonly #flying: Batch[] = [];
  #bytes = 0;
  /** How many of the batches in `#flying` were sent on this channel. */
  #sent = 0;
  /** Send one batch at a time, to learn which of them is refused. */
  #careful = false;
  #sequence = 0;
  /** Whether the publisher is not open yet, so that a refusal is about it. */
  #opening = false;
  #epoch: string | undefined;
  #failing: number | undefined;
  #closed = false;
  #wake: (() => void) | undefined;

  /** Begin to send; `changed` is called whenever events have left the sender. */
  constructor(dial: () => Channel, limits: Limits, report: (error: PublishDroppedError) => void, changed: () => void) {
    this.#dial = dial;
    this.#limits = limits;
    this.#report = report;
    this.#changed = changed;
    this.#backoff = new Backoff(limits.pause);
    void this.#run();
  }

  /** The number of events that are not durable yet. */
  get pending(): number {
    return this.#waiting.length + this.#flying.reduce((sum, { entries }) => sum + entries.length, 0);
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(entry: Entry): void {
    this.#waiting.push(entry);
    this.#bytes += entry.body.length;
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#alarm.ring();
    this.#wake?.();
  }

  async #run(): Promise<void> {
    while (!this.#closed && !this.ended) {
      const channel = this.#dial();
      try {
        await this.#serve(channel);
      } catch (error) {
        channel.close();
        await this.#failed(error instanceof WakelineError ? error : unavailable(String(error)));
      }
      channel.close();
    }
  }

  /** Open the publisher, learn what has arrived, and send until something fails. */
  async #serve(channel: Channel): Promise<void> {
    this.#opening = true;
    const opened = await channel.open(this.#epoch);
    this.#opening = false;
    this.#epoch = opened.epoch;
    this.earlier = opened.earlier_events;
    this.#reached(opened.next_sequence);
    const [first] = this.#flying;
    // A gateway that was restored from a backup has fewer events than it had acknowledged: the rest goes on after them.
    const behind = (first?.sequence ?? this.#sequence) - opened.next_sequence;
    for (const batch of this.#flying) batch.sequence -= behind;
    this.#sequence -= behind;
    let broken: unknown;
    this.#sent = 0;
    const send = (batch: Batch) => {
      this.#sent += 1;
      const bodies = batch.entries.map(({ body }) => body);
      const answered = channel.append(batch.sequence, bodies).then(
        () => this.#reached(batch.sequence + batch.entries.length),
        (error) => {
          broken ??= error;
        },
      );
      void answered.then(() => this.#wake?.());
    };
    while (!this.#closed && !broken) {
      const depth = this.#careful ? 1 : channel.depth;
      const next = this.#flying[this.#sent];
      if (next && this.#sent < depth) send(next);
      else if (!next && this.#waiting.length && this.#flying.length < depth) send(this.#cut());
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
    if (broken) throw broken;
  }

  #cut(): Batch {
    let size = 0;
    let count = 0;
    for (const { body } of this.#waiting) {
      if (count === this.#limits.maxBatch || (count && size + body.length > BATCH_CHARACTERS)) break;
      size += body.length;
      count += 1;
    }
    const batch = { sequence: this.#sequence, entries: this.#waiting.splice(0, count) };
    this.#sequence += count;
    this.#flying.push(batch);
    return batch;
  }

  /** Everything below a sequence number is durable. */
  #reached(sequence: number): void {
    let moved = false;
    while (this.#flying[0] && this.#flying[0].sequence < sequence) {
      const first = this.#flying[0];
      const done = Math.min(sequence - first.sequence, first.entries.length);
      this.#freed(first.entries.splice(0, done));
      first.sequence += done;
      moved ||= done > 0;
      if (first.entries.length > 0) continue;
      this.#flying.shift();
      this.#sent -= 1;
    }
    if (this.#flying.length === 0) this.#careful = false;
    this.acknowledged = Math.max(this.acknowledged, sequence);
    if (moved) {
      this.#failing = undefined;
      this.#backoff.reset();
      this.#changed();
    }
  }

  #freed(entries: readonly Entry[]): void {
    for (const { body } of entries) this.#bytes -= body.length;
  }

  async #failed(error: WakelineError): Promise<void> {
    if (this.#closed) return;
    if (ENDS.has(error.code)) {
      this.ended = new PublishDroppedError(error, this.#takeAll());
      this.#report(this.ended);
    } else if (error.retry || error.code === "sequence_gap") {
      this.#failing ??= Date.now();
      if (this.pending && Date.now() - this.#failing > this.#limits.maxRetry) this.#drop(error);
      await this.#pause(error);
    } else if (this.#opening || OF_THE_PUBLISHER.has(error.status) || this.pending === 0) {
      this.#drop(error);
      await this.#pause(error);
      // Refused; it is tried again for the next event.
      while (!this.#closed && this.pending === 0) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } else if (this.#sent === 1) this.#divide(error);
    // The refusal may have overtaken the answers of earlier batches: one at a time shows which of them it is about.
    else {
      this.#careful = true;
      await this.#pause(error);
    }
    this.#changed();
  }

  #pause({ retryAfter }: WakelineError): Promise<void> {
    return this.#alarm.sleep(retryAfter * 1000 + this.#backoff.next());
  }

  /** A batch was refused for one of its events: send halves of it until that one is alone. */
  #divide(error: WakelineError): void {
    const entries = this.#flying.flatMap((batch) => batch.entries);
    const [first] = this.#flying;
    this.#flying.length = 0;
    if (!first) return;
    const { sequence } = first;
    const tried = first.entries.length;
    if (tried === 1) {
      const refused = entries.splice(0, 1);
      this.#freed(refused);
      this.#report(
        new PublishDroppedError(
          error,
          refused.map(({ event }) => event),
        ),
      );
    }
    const half = tried > 1 ? entries.splice(0, Math.ceil(tried / 2)) : [];
    if (half.length) this.#flying.push({ sequence, entries: half });
    this.#waiting.unshift(...entries);
    this.#sequence = sequence + half.length;
  }

  #drop(error: WakelineError): void {
    const events = this.#takeAll();
    if (events.length) this.#report(new PublishDroppedError(error, events));
  }

  #takeAll(): NewEvent[] {
    const entries = [...this.#flying.flatMap((batch) => batch.entries), ...this.#waiting];
    this.#flying.length = this.#waiting.length = 0;
    this.#bytes = 0;
    return entries.map(({ event }) => event);
  }
}
