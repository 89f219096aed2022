/** One EventSource for one session on one device, and what the browser leaves to us: resuming after it gave up. */

export type Link = "opening" | "open" | "lost" | "done";

export interface Source {
  readonly readyState: number;
  onopen: ((event: Event) => unknown) | null;
  onmessage: ((event: MessageEvent<string>) => unknown) | null;
  onerror: ((event: Event) => unknown) | null;
  close(): void;
}

export interface Wiring {
  open(cursor: string): Source;
  deliver(data: string): void;
  /** Whether the end of the session has been seen. */
  settled(): boolean;
  changed(): void;
}

const CLOSED = 2;
const AGAIN_AFTER = 1000;

export class Connection {
  link: Link = "opening";
  #wiring: Wiring;
  #cursor: string;
  #source: Source | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #opened = false;
  #askedForMore = false;

  constructor(wiring: Wiring, cursor: string) {
    this.#wiring = wiring;
    this.#cursor = cursor;
    this.#start();
  }

  get cursor(): string {
    return this.#cursor;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  #start(): void {
    const source = this.#wiring.open(this.#cursor);
    this.#source = source;
    source.onopen = () => {
      this.#opened = true;
      this.#become("open");
    };
    source.onmessage = (event) => {
      // An event that was already on its way when the device went offline does not count as received.
      if (this.#source !== source) return;
      if (event.lastEventId) this.#cursor = event.lastEventId;
      this.#wiring.deliver(event.data);
    };
    source.onerror = () => this.#failed(source);
  }

  #failed(source: Source): void {
    if (this.#source !== source) return;
    const settled = this.#wiring.settled();
    if (source.readyState !== CLOSED) {
      if (settled && !this.#askedForMore) this.#askForMore(source);
      // The browser comes back by itself.
      if (!settled) this.#become(this.#opened ? "lost" : "opening");
      return;
    }
    this.stop();
    if (settled) {
      this.#become("done");
      return;
    }
    this.#become(this.#opened ? "lost" : "opening");
    this.#timer = setTimeout(() => this.#start(), AGAIN_AFTER);
  }

  /**
   * A settled session's stream has ended, and the next answer, 204 No Content, is what ends it for good. That is asked
   * for at once, for the browser would wait a second, and other sessions wait for the connection.
   */
  #askForMore(source: Source): void {
    this.#askedForMore = true;
    source.close();
    this.#start();
  }

  #become(link: Link): void {
    if (this.link === link) return;
    this.link = link;
    this.#wiring.changed();
  }
}
