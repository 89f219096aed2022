import { Connection, type Link, type Source } from "./connection.ts";
import { emptyView, fold, type SessionView } from "./fold.ts";
import type { WireEvent } from "./wire.ts";

/** One session on one device: the raw events in order, what they add up to, and the connection that brings more. */
export class Feed {
  readonly session: string;
  readonly raw: string[] = [];
  view: SessionView = emptyView;
  finished = false;
  #connection: Connection | undefined;
  #cursor = "beginning";

  constructor(session: string) {
    this.session = session;
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }

  get cursor(): string {
    return this.#connection?.cursor ?? this.#cursor;
  }

  get link(): Link | undefined {
    return this.#connection?.link;
  }

  connect(open: (cursor: string) => Source, received: (event: WireEvent) => void, changed: () => void): void {
    if (this.#connection || this.finished) return;
    this.#connection = new Connection(
      {
        open,
        deliver: (data) => {
          const event = JSON.parse(data) as WireEvent;
          this.raw.push(data);
          this.view = fold(this.view, event);
          received(event);
        },
        settled: () => this.view.settled,
        changed: () => {
          if (this.link === "done") {
            this.finished = true;
            this.disconnect();
          }
          changed();
        },
      },
      this.#cursor,
    );
  }

  disconnect(): void {
    this.#cursor = this.cursor;
    this.#connection?.stop();
    this.#connection = undefined;
  }
}
