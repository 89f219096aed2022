import type { Client, Events } from "@wakeline/client";
import { emptyView, fold, type SessionView } from "./fold.ts";
import type { WireEvent } from "./wire.ts";

/** `lost`: the connection broke, or cannot be made, and the client is on its way back. */
export type Link = "opening" | "open" | "lost" | "done";

/** One session on one device: the events in order, what they add up to, and the reading that brings more. */
export class Feed {
  readonly session: string;
  /** The events as JSON, to compare. */
  readonly raw: string[] = [];
  view: SessionView = emptyView;
  finished = false;
  #reading: Events | undefined;
  #cursor = "beginning";

  constructor(session: string) {
    this.session = session;
  }

  get connected(): boolean {
    return this.#reading !== undefined;
  }

  get link(): Link | undefined {
    switch (this.#reading?.state.status) {
      case undefined:
        return undefined;
      case "connecting":
        return "opening";
      case "catching up":
      case "live":
        return "open";
      case "offline":
      case "refused":
        return "lost";
      default:
        return "done";
    }
  }

  connect(client: Client, received: (event: WireEvent) => void, changed: () => void): void {
    if (this.#reading || this.finished) return;
    const handle = client.session(this.session);
    const reading = handle.events({ from: this.#cursor, until: "settled" });
    this.#reading = reading;
    const unwatch = handle.onState(changed);
    void this.#read(reading, received).finally(() => {
      unwatch();
      // A device that was switched off has ended its reading before the session's end.
      if (this.#reading !== reading) return;
      this.#reading = undefined;
      this.finished = reading.state.status === "ended";
      changed();
    });
  }

  disconnect(): void {
    const reading = this.#reading;
    this.#reading = undefined;
    reading?.close();
  }

  async #read(reading: Events, received: (event: WireEvent) => void): Promise<void> {
    try {
      for await (const { cursor, ...event } of reading) {
        if (this.#reading !== reading) return;
        this.#cursor = cursor;
        this.raw.push(JSON.stringify(event));
        this.view = fold(this.view, event);
        received(event);
      }
    } catch {
      // The session is gone: the demo's state names other ones.
    }
  }
}
