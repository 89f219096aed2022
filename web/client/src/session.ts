/** One session of a gateway. */

import type { Actions, AnswerOptions, InputRequest, Outcome, SendOptions } from "./actions.ts";
import { formatCursor } from "./cursor.ts";
import { guard } from "./errors.ts";
import { Events } from "./events.ts";
import { sessionPath } from "./http.ts";
import type { CursorStorage, Keeper } from "./keeper.ts";
import { isOver, type Parts, Reader, type State } from "./reader.ts";
import { type OnChange, View } from "./view.ts";
import type { Device, SessionInfo, WirePage } from "./wire.ts";

export interface Reading {
  /** Only these topics; `order.*` stands for all that begin so. Wakeline's own come only if they are named. */
  readonly topics?: string | readonly string[];
  /** `settled`: end when no run of the session is open. By default only a closed session ends. */
  readonly until?: "settled";
  /** If neither a session nor a workflow has this name, wait until one has. */
  readonly waitForStart?: boolean;
}

export interface EventsOptions extends Reading {
  /** `beginning` (the default), `now`, a cursor, `tail:N`, `time:T`, or `device`. */
  readonly from?: string;
  /** A name under which the client's storage keeps the cursor, so that a reload goes on where the page was. */
  readonly resume?: string;
  readonly signal?: AbortSignal;
}

export interface PageOptions {
  readonly from?: string;
  /** Read backwards: the last events before `now` or a cursor. */
  readonly before?: string;
  readonly topics?: string | readonly string[];
  readonly limit?: number;
  readonly view?: "compact";
  readonly signal?: AbortSignal;
}

interface OneReading {
  readonly state: State;
  readonly epoch: string | undefined;
  close(): void;
}

export class Session {
  readonly name: string;
  readonly #parts: Parts;
  readonly #device: string | undefined;
  readonly #storage: CursorStorage | undefined;
  readonly #watchers = new Set<(state: State) => void>();
  readonly #readings = new Set<OneReading>();
  #state: State = { status: "stopped" };
  #epoch: string | undefined;
  #actions: Promise<Actions> | undefined;

  constructor(parts: Parts, name: string, device: string | undefined, storage: CursorStorage | undefined) {
    this.#parts = parts;
    this.name = name;
    this.#device = device;
    this.#storage = storage;
  }

  /** The state of the reading that changed last; `stopped` if nothing reads. */
  get state(): State {
    return this.#state;
  }

  /** Call a function with each new state; the returned function ends that. */
  onState(watcher: (state: State) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Every event from a position on, once, in order, across disconnects. */
  events(options: EventsOptions = {}): Events {
    const { from = "beginning", resume, signal } = options;
    const storage = this.#storage;
    let kept: Keeper | undefined;
    let start: () => string | Promise<string> = () => from;
    if (resume !== undefined) {
      if (!storage) throw new TypeError("expected connect({ storage }) of a client that resumes");
      start = async () => {
        const { Keeper } = await import("./keeper.ts");
        kept ??= new Keeper(storage, `wakeline ${this.#parts.http.url} ${this.name} ${resume}`);
        return kept.begin(from);
      };
    }
    const observer = {
      state: (state: State) => {
        kept?.state(state);
        this.#become(state);
      },
      used: (cursor: string) => kept?.keep(cursor),
    };
    return this.#opened(new Events(this.#parts, { ...this.#ask(options), from: start }, observer, signal));
  }

  /**
   * The session's state, kept up to date: messages with their values, the latest event of each key, and every other
   * event, without what a failed attempt published. The callback is called after each change.
   */
  view(changed: OnChange, options: Reading = {}): View {
    const told: OnChange = (view, changes) => {
      if (changes.length === 0) this.#become(view.state);
      changed(view, changes);
    };
    return this.#opened(new View(this.#parts, { ...this.#ask(options), from: () => "beginning" }, told));
  }

  /** Which devices are connected: called whenever one joins or leaves. The returned function ends that. */
  presence(changed: (devices: readonly Device[]) => void): () => void {
    const reader = new Reader(
      this.#parts,
      { session: this.name, topics: ["$session.closed"], from: () => "now", presence: true, device: this.#device },
      {
        events: () => undefined,
        state: () => this.#sweep(),
        presence: (devices) => guard(() => changed(devices)),
      },
    );
    this.#opened(reader);
    return () => reader.close();
  }

  /** End every reading of this session. */
  close(): void {
    for (const reading of this.#readings) reading.close();
  }

  /** Events at once: forwards from a position, or backwards for history views. */
  page(options: PageOptions = {}): Promise<WirePage> {
    const { topics, signal, ...rest } = options;
    return this.#call("GET", ["events"], { query: { ...rest, topics: listed(topics)?.join(",") }, signal });
  }

  /** The session's record: its end, its runs, and whether it is settled or closed. */
  describe(signal?: AbortSignal): Promise<SessionInfo> {
    return this.#call("GET", [], { signal });
  }

  /**
   * Report that this device has shown everything up to an offset (or a cursor), so that its user is not notified of
   * it. Resolves when that is durable; of several calls at a time only the furthest is sent.
   */
  seen(position: number | string, { everywhere = false } = {}): Promise<void> {
    const device = this.#device;
    if (device === undefined) throw new TypeError("expected connect({ device }) of a client that acknowledges");
    let cursor = String(position);
    if (typeof position === "number") {
      this.#sweep();
      const epoch = this.#epoch;
      if (!epoch) throw new TypeError("expected a session that is read, or a cursor");
      cursor = formatCursor({ epoch, offset: position + 1 });
    }
    return this.#acting((actions) => actions.seen(device, cursor, everywhere));
  }

  /** Send an input to the session's run, once; resolves with its outcome, also if the run rejected it. */
  send(name: string, args: readonly unknown[] = [], options: SendOptions = {}): Promise<Outcome> {
    return this.#acting((actions) => actions.send(name, args, options));
  }

  /** Every open request for input. */
  requests(signal?: AbortSignal): Promise<InputRequest[]> {
    return this.#acting((actions) => actions.requests(signal));
  }

  /** Answer a request for input; the first answer counts. */
  answer(request: string, payload?: unknown, options: AnswerOptions = {}): Promise<InputRequest> {
    return this.#acting((actions) => actions.answer(request, payload, options));
  }

  /** Claim a tool for this device, so that no other one runs it for so many seconds. */
  claim(request: string, { lease = 30 } = {}): Promise<InputRequest> {
    return this.#acting((actions) => actions.claim(request, lease));
  }

  #opened<R extends OneReading>(reading: R): R {
    this.#readings.add(reading);
    this.#sweep();
    return reading;
  }

  /** Keep the epoch that was read last, and drop the readings that are over: each holds all that it has read. */
  #sweep(): void {
    for (const reading of this.#readings) {
      this.#epoch = reading.epoch ?? this.#epoch;
      if (isOver(reading.state)) this.#readings.delete(reading);
    }
  }

  #ask({ topics, until, waitForStart }: Reading) {
    return { session: this.name, topics: listed(topics), until, waitForStart, device: this.#device };
  }

  #call<T>(method: string, below: string[], how: Parameters<Parts["http"]["call"]>[2]): Promise<T> {
    return this.#parts.http.call<T>(method, sessionPath(this.name, ...below), how);
  }

  /** Load what writes: most pages read first. */
  async #acting<T>(act: (actions: Actions) => Promise<T>): Promise<T> {
    this.#actions ??= import("./actions.ts").then(
      ({ Actions }) => new Actions(this.#parts, this.#call.bind(this), this.#device),
    );
    try {
      return act(await this.#actions);
    } catch (error) {
      // Where the browser allows it, what failed to load is loaded again.
      this.#actions = undefined;
      throw error;
    }
  }

  #become(state: State): void {
    this.#state = state;
    this.#sweep();
    for (const watcher of [...this.#watchers]) guard(() => watcher(state));
  }
}

function listed(topics: string | readonly string[] | undefined): readonly string[] | undefined {
  return typeof topics === "string" ? topics.split(",") : topics;
}
