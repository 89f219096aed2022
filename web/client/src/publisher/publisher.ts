/** Publishes from Node straight into a session: each event once, in order. */

import { guard, WakelineError } from "../errors.ts";
import { type Fetch, Http } from "../http.ts";
import { TIMING, type Timing } from "../timing.ts";
import { type Token, Tokens } from "../tokens.ts";
import { HttpChannel, type Identity, SocketChannel } from "./channel.ts";
import type { NewEvent, PublishDroppedError } from "./errors.ts";
import { Sender } from "./sender.ts";

export interface PublisherOptions {
  /** The gateway's URL; `WAKELINE_URL` in the environment by default. */
  readonly url?: string;
  /** The token, or a function that returns one; `WAKELINE_TOKEN` in the environment by default. */
  readonly token?: Token;
  /** The session's name. */
  readonly session: string;
  /** A name for this source of events, 1 to 256 visible ASCII characters; unique by default. */
  readonly publisher?: string;
  /** The attempt, from 1; the gateway refuses earlier attempts from then on. */
  readonly attempt?: number;
  readonly run?: string;
  readonly activity?: string;
  /** The workflow whose output it publishes, which the gateway follows into the session if the token may. */
  readonly workflow?: string;
  readonly namespace?: string;
  /** Whether the events of earlier attempts no longer count; by default if there is an `activity`. */
  readonly supersede?: boolean;
  /** Go on after the events of the last attempt: supersede nothing. `resumed` is their number. */
  readonly resume?: boolean;
  /** The most events in one append. */
  readonly maxBatch?: number;
  /** The most events that may wait; `publish` waits for room. They take at most 64 MiB. */
  readonly maxBuffer?: number;
  /** Milliseconds for which delivery is retried before events are dropped and reported; 10 minutes by default. */
  readonly maxRetry?: number;
  /** Called with events that were not delivered; without it the next `publish`, `flush` or `close` throws it. */
  readonly onDropped?: (error: PublishDroppedError) => void;
  readonly timing?: Partial<Timing>;
  readonly fetch?: Fetch;
}

/** How one event is published. */
export interface PublishOptions {
  /** The thing whose latest state the event is. */
  readonly key?: string;
  readonly message?: NewEvent["message"];
  /** Whom to notify of it, PROTOCOL.md §2. */
  readonly notify?: unknown;
}

/** How a message grows. */
export type Append = "text" | "list" | "json-merge";

const BUFFER_CHARACTERS = 64 * 1024 * 1024;

/** A publisher of one session; the first event is sent at once, and those that come meanwhile are the next batch. */
export class SessionPublisher {
  readonly identity: Identity;
  readonly #sender: Sender;
  readonly #maxBuffer: number;
  readonly #onDropped: PublisherOptions["onDropped"];
  readonly #resume: boolean;
  #reports: PublishDroppedError[] = [];
  #watchers: (() => void)[] = [];
  #closed = false;

  constructor(options: PublisherOptions) {
    const environment = globalThis.process?.env ?? {};
    const url = options.url ?? environment.WAKELINE_URL ?? "http://127.0.0.1:7777";
    const token = options.token ?? environment.WAKELINE_TOKEN;
    const { session, attempt = 1, run, activity, workflow, namespace, resume = false } = options;
    const publisher = options.publisher ?? crypto.randomUUID();
    if (!/^[\x21-\x7e]{1,256}$/.test(publisher)) {
      throw new TypeError(`expected a publisher of 1 to 256 visible ASCII characters, got ${publisher}`);
    }
    const supersede = resume ? false : options.supersede;
    this.identity = { session, publisher, attempt, run, activity, supersede, workflow, namespace };
    const timing = { ...TIMING, ...options.timing };
    const http = new Http(url, new Tokens(token || undefined), timing, options);
    const dial = () =>
      typeof WebSocket === "undefined" ? new HttpChannel(http, this.identity) : new SocketChannel(http, this.identity);
    this.#maxBuffer = options.maxBuffer ?? 10_000;
    this.#onDropped = options.onDropped;
    this.#resume = resume;
    const limits = { maxBatch: options.maxBatch ?? 500, maxRetry: options.maxRetry ?? 600_000, pause: timing.pause };
    this.#sender = new Sender(
      dial,
      limits,
      (error) => this.#report(error),
      () => this.#tell(),
    );
  }

  /** The number of this attempt's events that are durable in the session. */
  get acknowledged(): number {
    return this.#sender.acknowledged;
  }

  /** The number of earlier attempts' events in the session, once it is open; 0 without `resume`. */
  get resumed(): number {
    return this.#resume ? this.#sender.earlier : 0;
  }

  /** Publish an event; resolves when it is in the buffer. `flush` waits until it is durable. */
  async publish(topic: string, data: unknown = null, options: PublishOptions = {}): Promise<void> {
    this.#check();
    const event: NewEvent = { topic, data, ...options };
    const body = JSON.stringify(event);
    const { pending } = this.#sender;
    if (pending >= this.#maxBuffer || (pending && this.#sender.bytes + body.length > BUFFER_CHARACTERS)) {
      await this.#until(() => this.#hasRoom(body.length));
      this.#check();
    }
    this.#sender.add({ event, body });
  }

  /** A handle on one topic; with `append`, its messages grow in this way. */
  topic(name: string, { append }: { append?: Append } = {}) {
    return {
      publish: (data: unknown, options?: PublishOptions) => this.publish(name, data, options),
      message: (id: string) => new GrowingMessage(this, name, id, append ?? "text"),
    };
  }

  /** Wait until all events that were published so far are durable. */
  async flush(): Promise<void> {
    this.#check();
    await this.#until(() => this.#sender.pending === 0 || this.#sender.ended !== undefined);
    this.#check();
  }

  /** Make all events durable, then stop; harmless when repeated. */
  async close(): Promise<void> {
    if (this.#closed) return;
    try {
      await this.flush();
    } finally {
      this.#closed = true;
      this.#sender.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #hasRoom(size: number): boolean {
    const { pending, bytes, ended } = this.#sender;
    return !!ended || pending === 0 || (pending < this.#maxBuffer && bytes + size <= BUFFER_CHARACTERS);
  }

  #until(condition: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const watcher = () => {
        if (condition()) resolve();
        else this.#watchers.push(watcher);
      };
      watcher();
    });
  }

  #tell(): void {
    for (const watcher of this.#watchers.splice(0)) watcher();
  }

  #report(error: PublishDroppedError): void {
    const dropped = this.#onDropped;
    if (dropped) guard(() => dropped(error));
    else this.#reports.push(error);
    this.#tell();
  }

  #check(): void {
    const error = this.#reports.shift() ?? this.#sender.ended;
    if (error) throw error;
    if (this.#closed) {
      throw new WakelineError({ code: "publisher_misused", message: "expected an open publisher, got a closed one" });
    }
  }
}

/** A message that grows. */
export class GrowingMessage {
  readonly topic: string;
  readonly id: string;
  readonly #publisher: SessionPublisher;
  readonly #op: Append;
  #half = "";

  constructor(publisher: SessionPublisher, topic: string, id: string, op: Append) {
    this.#publisher = publisher;
    this.topic = topic;
    this.id = id;
    this.#op = op;
  }

  /** Add a piece: text, an item, or members. */
  async append(piece: unknown): Promise<void> {
    if (this.#op !== "text" || typeof piece !== "string") return this.#send(this.#op, piece);
    // UTF-8 cannot hold half a surrogate pair: it waits for its other half.
    const text = this.#half + piece;
    const cut = /[\ud800-\udbff]$/.test(text) ? text.length - 1 : text.length;
    this.#half = text.slice(cut);
    if (cut) await this.#send("text", text.slice(0, cut));
  }

  /** Replace the value. */
  set(value: unknown): Promise<void> {
    this.#half = "";
    return this.#send("set", value);
  }

  /** Nothing follows. */
  async complete(): Promise<void> {
    const rest = this.#half;
    this.#half = "";
    if (rest) await this.#send("text", rest, true);
    else await this.#send("none", null, true);
  }

  #send(op: string, data: unknown, complete?: true): Promise<void> {
    const message = { id: this.id, op, ...(complete && { complete }) };
    return this.#publisher.publish(this.topic, data, { message });
  }
}
