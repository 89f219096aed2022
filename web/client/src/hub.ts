/** Which transport a source uses, and the connections of this page. */

import { unavailable, type WakelineError } from "./errors.ts";
import { type Http, lost, sessionPath } from "./http.ts";
import { type Ask, type Hub, type Listener, Source } from "./live.ts";
import { FeedSocket } from "./socket.ts";

/** How events come: one of these, or `auto`, the best that the network lets through. */
export type Transport = "auto" | "websocket" | "sse" | "long-poll";

const LADDER = ["websocket", "sse", "long-poll"] as const;
const LONGEST_AVOID_MS = 600_000;
export class LocalHub implements Hub {
  readonly #http: Http;
  readonly #fixed: number | undefined;
  readonly #sources = new Map<string, Source>();
  readonly #sockets = new Set<FeedSocket>();
  #level = 0;
  #failures = 0;
  #probe: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(http: Http, transport: Transport) {
    this.#http = http;
    this.#fixed = transport === "auto" ? undefined : LADDER.indexOf(transport);
    if (this.#fixed === undefined && typeof WebSocket === "undefined") this.#level = 1;
  }

  join(ask: Ask, cursor: string, listener: Listener): () => void {
    const key = JSON.stringify([ask.session, ask.topics, ask.until, ask.presence]);
    let source = this.#sources.get(key);
    if (!source) {
      const made = new Source(ask, cursor, () => {
        if (this.#sources.get(key) === made) this.#sources.delete(key);
      });
      source = made;
      this.#sources.set(key, source);
      this.#start(source);
    }
    return source.join(cursor, listener);
  }

  check(): void {
    for (const source of [...this.#sources.values()]) source.check();
    for (const socket of [...this.#sockets]) socket.check();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#probe);
    this.#end();
  }

  /** End every connection, for example because the page is put away; readers come back by themselves. */
  drop(): void {
    this.#end(unavailable("the page was put away"));
  }

  #end(error?: WakelineError): void {
    for (const source of [...this.#sources.values()]) source.over(error);
    for (const socket of [...this.#sockets]) socket.close();
  }

  #start(source: Source): void {
    const level = this.#fixed ?? this.#level;
    if (level === 0) void this.#overSocket(source);
    else void this.#overHttp(source, level);
  }

  async #overSocket(source: Source): Promise<void> {
    let stopped = false;
    source.stop = () => {
      stopped = true;
    };
    try {
      const token = await this.#http.tokens.get();
      if (stopped || source.ended) return;
      const { session, device } = source.ask;
      const free = [...this.#sockets].find((socket) => socket.takes(session));
      (free ?? this.#open(token, device)).read(source);
    } catch (error) {
      source.over(lost(error));
    }
  }

  #open(token: string | undefined, device: string | undefined): FeedSocket {
    const opened = () => {
      this.#failures = 0;
      // What was read in another way while no WebSocket worked moves to this one.
      if (this.#level && this.#fixed === undefined) {
        this.#level = 0;
        for (const source of [...this.#sources.values()]) source.over();
      }
    };
    const socket = new FeedSocket(this.#http, device, token, opened, () => {
      this.#sockets.delete(socket);
      if (socket.faulty && !this.#closed) this.#fallBack(0);
    });
    this.#sockets.add(socket);
    return socket;
  }

  async #overHttp(source: Source, level: number): Promise<void> {
    try {
      // Most networks let WebSockets through: the others load this part.
      const { fill } = await import("./stream.ts");
      await fill(this.#http, sessionPath(source.ask.session, "events"), source, level === 1);
      source.over();
    } catch (thrown) {
      const error = lost(thrown);
      if (level === 1 && error.details.silent) this.#fallBack(1);
      source.over(error);
    }
  }

  /** Avoid a transport that failed although requests pass, and try a WebSocket beside it after a while. */
  #fallBack(failed: number): void {
    if (this.#fixed !== undefined) return;
    this.#level = Math.max(this.#level, failed + 1);
    this.#failures += 1;
    clearTimeout(this.#probe);
    if (typeof WebSocket === "undefined") return;
    const pause = Math.min(this.#http.timing.avoid * 2 ** (this.#failures - 1), LONGEST_AVOID_MS);
    this.#probe = setTimeout(() => void this.#climb(), pause);
  }

  async #climb(): Promise<void> {
    const [source] = this.#sources.values();
    if (!source) this.#level = 0;
    // A token that cannot be had now is a matter of the readers.
    else this.#open(await this.#http.tokens.get().catch(() => undefined), source.ask.device);
  }
}
