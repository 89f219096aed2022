/** The feed as a WebSocket: many sessions on one connection, PROTOCOL.md §5. */

import { type Refusal, unavailable, WakelineError } from "./errors.ts";
import type { Http } from "./http.ts";
import type { Source } from "./live.ts";
import type { PresenceChange, WireEvent } from "./wire.ts";

interface Frame {
  readonly type: string;
  readonly session?: string;
  readonly events?: readonly WireEvent[];
  readonly cursor?: string;
  readonly error?: Refusal;
  readonly event?: PresenceChange["event"];
  readonly user?: string;
  readonly device?: string;
}

const MOST_SESSIONS = 1000;
const IDLE_MS = 2_000;
/** Close codes after which another WebSocket would fare no better. */
const HOPELESS = new Set([1002, 1003, 1007, 1009, 4400]);

export class FeedSocket {
  /** Whether it was silent, or spoke another protocol: another transport may do better. */
  faulty = false;
  readonly #http: Http;
  readonly #socket: WebSocket;
  readonly #sources = new Map<string, Source>();
  /** Sessions that were left, until the gateway confirms; a session is subscribed once at a time. */
  readonly #leaving = new Set<string>();
  readonly #opened: () => void;
  readonly #closed: () => void;
  #isReady = false;
  #over = false;
  #token: string | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  #idle: ReturnType<typeof setTimeout> | undefined;

  /** Connect; `opened` is called when the gateway has accepted the token, and `closed` at the end. */
  constructor(
    http: Http,
    device: string | undefined,
    token: string | undefined,
    opened: () => void,
    closed: () => void,
  ) {
    this.#http = http;
    this.#token = token;
    this.#opened = opened;
    this.#closed = closed;
    const query = device === undefined ? "" : `?device=${encodeURIComponent(device)}`;
    const socket = new WebSocket(`${http.url.replace(/^http/, "ws")}/v1/feed${query}`);
    this.#socket = socket;
    socket.onopen = () => token !== undefined && this.#send({ type: "token", token });
    socket.onmessage = ({ data }) => this.#take(String(data));
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    socket.onerror = () => undefined;
    this.#listen();
  }

  /** Whether a session may be subscribed: no other source reads it, and there is room. */
  takes(session: string): boolean {
    return !this.#over && !this.#sources.has(session) && this.#sources.size < MOST_SESSIONS;
  }

  /** Fill a source until it is stopped or ends. */
  read(source: Source): void {
    const { session } = source.ask;
    clearTimeout(this.#idle);
    this.#sources.set(session, source);
    source.stop = () => this.#leave(session, source);
    if (this.#isReady && !this.#leaving.has(session)) this.#subscribe(source);
  }

  /** Make sure that the connection works, soon. */
  check(): void {
    if (this.#over || !this.#isReady) return;
    clearTimeout(this.#watch);
    this.#ping();
  }

  close(): void {
    this.#end(unavailable("the connection was closed"));
  }

  #subscribe({ ask, cursor }: Source): void {
    const { session, topics, until, presence } = ask;
    this.#send({ type: "subscribe", session, from: cursor, topics, until, presence });
  }

  #leave(session: string, source: Source): void {
    if (this.#sources.get(session) !== source) return;
    this.#sources.delete(session);
    if (this.#isReady && !this.#leaving.has(session)) {
      this.#leaving.add(session);
      this.#send({ type: "unsubscribe", session });
    }
    this.#restIfIdle();
  }

  #restIfIdle(): void {
    clearTimeout(this.#idle);
    if (this.#sources.size === 0) this.#idle = setTimeout(() => this.close(), IDLE_MS);
  }

  #take(text: string): void {
    if (this.#over) return;
    let frame: Frame;
    try {
      frame = JSON.parse(text) as Frame;
    } catch {
      this.#silent("it sent a frame without JSON");
      return;
    }
    this.#listen();
    const { type, session } = frame;
    if (session !== undefined) this.#ofSession(frame, session);
    else if (type === (this.#token === undefined ? "ready" : "token")) this.#granted();
    else if (type === "error" && !this.#isReady) this.#refused(new WakelineError(frame.error ?? {}, 401));
    // A token that was refused later: the connection lasts until the last one ends, and then a fresh one is asked for.
  }

  #granted(): void {
    const { renewIn } = this.#http.tokens;
    clearTimeout(this.#renewal);
    if (renewIn !== undefined) {
      this.#renewal = setTimeout(() => void this.#renew(), Math.min(Math.max(renewIn, 1_000), 2 ** 31 - 1));
    }
    if (this.#isReady) return;
    this.#isReady = true;
    this.#opened();
    for (const source of this.#sources.values()) this.#subscribe(source);
    this.#restIfIdle();
  }

  async #renew(): Promise<void> {
    try {
      this.#token = await this.#http.tokens.renew();
      if (!this.#over) this.#send({ type: "token", token: this.#token });
    } catch {
      if (!this.#over) this.#renewal = setTimeout(() => void this.#renew(), 5_000);
    }
  }

  #refused(error: WakelineError): void {
    const retry = error.status === 401 && this.#http.tokens.reject(this.#token);
    this.#end(retry ? undefined : error);
  }

  #ofSession(frame: Frame, session: string): void {
    const { type, cursor, events, error } = frame;
    if (this.#leaving.has(session)) {
      // Events that were on their way: the reader has left, and reads them again if it returns. The gateway confirms,
      // or refuses because the session ended before.
      if (type !== "unsubscribed" && error?.code !== "request_invalid") return;
      this.#leaving.delete(session);
      const next = this.#sources.get(session);
      if (next) this.#subscribe(next);
      return;
    }
    const source = this.#sources.get(session);
    if (!source) return;
    if (type === "subscribed") source.opened();
    else if (type === "events" && events && cursor) source.events(events, cursor);
    else if (type === "presence") source.presence(frame as PresenceChange);
    else if (type === "error" && error) {
      // After `subscribed` the gateway ends the session as well, in its next frame, and the page that the reader requests
      // then has the true status.
      if (!source.isOpen) this.#ended(source, new WakelineError(error));
    } else if (type === "end") this.#ended(source);
  }

  #ended(source: Source, error?: WakelineError): void {
    this.#sources.delete(source.ask.session);
    source.over(error);
    if (!this.#over) this.#restIfIdle();
  }

  /** Wait for what comes next, for a while. */
  #listen(): void {
    clearTimeout(this.#watch);
    if (this.#isReady) this.#watch = setTimeout(() => this.#ping(), this.#http.timing.quiet);
    else this.#watch = setTimeout(() => this.#silent("it did not answer in time"), this.#http.timing.connect);
  }

  #ping(): void {
    this.#send({ type: "ping" });
    this.#watch = setTimeout(() => this.#silent("the connection is silent"), this.#http.timing.pong);
  }

  #silent(reason: string): void {
    this.faulty = true;
    this.#end(unavailable(reason, 0, true));
  }

  #lost(code: number, reason: string): void {
    if (code === 4401) {
      const renewable = this.#http.tokens.reject(this.#token);
      // The page that follows reports a token that cannot be renewed.
      this.#end(renewable || this.#isReady ? undefined : unavailable(reason || "the token was refused"));
      return;
    }
    // A browser does not report why a handshake failed.
    this.faulty = HOPELESS.has(code) || !this.#isReady;
    this.#end(unavailable(`the connection was closed (${code}${reason && `: ${reason}`})`, code === 4429 ? 10 : 0));
  }

  /** Release everything; without an error the readers go on at once. */
  #end(error: WakelineError | undefined): void {
    if (this.#over) return;
    this.#over = true;
    for (const timer of [this.#watch, this.#renewal, this.#idle]) clearTimeout(timer);
    const socket = this.#socket;
    // The close of a dead connection may never be confirmed: do not wait for it.
    socket.onmessage = socket.onclose = socket.onopen = null;
    try {
      socket.close(1000);
    } catch {
      // It was not open.
    }
    this.#closed();
    const sources = [...this.#sources.values()];
    this.#sources.clear();
    for (const source of sources) source.over(error);
  }

  #send(frame: object): void {
    if (this.#socket.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }
}
