/** A publisher's way to the gateway: a channel of a WebSocket, or requests where there is none. */

import { unavailable, WakelineError } from "../errors.ts";
import { type Http, sessionPath } from "../http.ts";

/** Who publishes, and what for. */
export interface Identity {
  readonly session: string;
  readonly publisher: string;
  readonly attempt: number;
  readonly run?: string | undefined;
  readonly activity?: string | undefined;
  readonly supersede?: boolean | undefined;
  readonly workflow?: string | undefined;
  readonly namespace?: string | undefined;
}

export interface Opened {
  readonly next_sequence: number;
  readonly earlier_events: number;
  readonly epoch: string;
}

/** One open publisher; after an error it is of no use, and another one is opened. */
export interface Channel {
  /** How many appends may be unanswered. */
  readonly depth: number;
  open(epoch: string | undefined): Promise<Opened>;
  /** Append events, given as JSON; resolves when they are durable. */
  append(sequence: number, bodies: readonly string[]): Promise<void>;
  close(): void;
}

export class HttpChannel implements Channel {
  readonly depth = 1;
  readonly #http: Http;
  readonly #who: Identity;

  constructor(http: Http, who: Identity) {
    this.#http = http;
    this.#who = who;
  }

  open(epoch: string | undefined): Promise<Opened> {
    const { session, publisher, ...body } = this.#who;
    return this.#http.call("PUT", sessionPath(session, "publishers", publisher), { body: { ...body, epoch } });
  }

  async append(sequence: number, bodies: readonly string[]): Promise<void> {
    const { session, publisher, attempt, run, activity, supersede } = this.#who;
    const headers: Record<string, string> = {
      "Wakeline-Publisher": publisher,
      "Wakeline-Attempt": String(attempt),
      "Wakeline-Sequence": String(sequence),
    };
    if (run !== undefined) headers["Wakeline-Run"] = encodeURIComponent(run);
    if (activity !== undefined) headers["Wakeline-Activity"] = encodeURIComponent(activity);
    if (supersede !== undefined) headers["Wakeline-Supersede"] = String(supersede);
    const body = `{"events":[${bodies.join(",")}]}`;
    await this.#http.call("POST", sessionPath(session, "events"), { headers, body });
  }

  close(): void {
    // Nothing is open.
  }
}

interface Frame {
  readonly type: string;
  readonly next_sequence?: number;
  readonly error?: { readonly code?: string };
}

interface Waiting {
  /** For an append: the sequence number after it. */
  readonly end?: number;
  resolve(frame: Frame): void;
  reject(error: WakelineError): void;
}

/** A WebSocket of its own, with one channel on it. */
export class SocketChannel implements Channel {
  readonly depth = 8;
  readonly #http: Http;
  readonly #who: Identity;
  #socket: WebSocket | undefined;
  #waiting: Waiting[] = [];
  #broken: WakelineError | undefined;
  #watch: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;

  constructor(http: Http, who: Identity) {
    this.#http = http;
    this.#who = who;
  }

  async open(epoch: string | undefined): Promise<Opened> {
    const token = await this.#http.tokens.get();
    await this.#connect(token);
    return (await this.#ask({ type: "open", channel: 1, ...this.#who, epoch })) as unknown as Opened;
  }

  async append(sequence: number, bodies: readonly string[]): Promise<void> {
    const frame = `{"type":"append","channel":1,"sequence":${sequence},"events":[${bodies.join(",")}]}`;
    await this.#ask(frame, sequence + bodies.length);
  }

  close(): void {
    this.#fail(unavailable("the publisher was closed"));
  }

  #connect(token: string | undefined): Promise<Frame> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`${this.#http.url.replace(/^http/, "ws")}/v1/publish`);
      this.#socket = socket;
      const first = { resolve, reject };
      this.#waiting.push(first);
      this.#arm();
      socket.onopen = () => token !== undefined && this.#send({ type: "token", token });
      socket.onmessage = ({ data }) => {
        for (const line of String(data).split("\n")) if (line) this.#take(JSON.parse(line) as Frame, token);
      };
      socket.onclose = ({ code, reason }) => {
        if (code === 4401) this.#http.tokens.reject(token);
        const expired = code === 4401 && this.#http.tokens.renewable;
        this.#fail(
          code === 4401 && !expired
            ? new WakelineError({ code: "token_invalid", message: reason || "the token was refused" }, 401)
            : unavailable(`the connection was closed (${code}${reason && `: ${reason}`})`),
        );
      };
      socket.onerror = () => undefined;
    });
  }

  #take(frame: Frame, token: string | undefined): void {
    this.#arm();
    switch (frame.type) {
      case "ready":
        // With a token, the connection is ready when that was accepted.
        if (token === undefined) this.#waiting.shift()?.resolve(frame);
        break;
      case "token":
        if (!this.#renewal) this.#waiting.shift()?.resolve(frame);
        this.#renewLater();
        break;
      case "opened":
        this.#waiting.shift()?.resolve(frame);
        break;
      case "appended":
        // One answer may be that of several appends.
        while ((this.#waiting[0]?.end ?? Number.POSITIVE_INFINITY) <= (frame.next_sequence ?? 0)) {
          this.#waiting.shift()?.resolve(frame);
        }
        break;
      case "error": {
        const code = frame.error?.code ?? "";
        const error = new WakelineError(frame.error ?? {}, STATUS[code] ?? 400);
        if (error.status === 401 && this.#http.tokens.reject(token)) this.#fail(unavailable("the token has expired"));
        else this.#fail(error);
      }
    }
  }

  #renewLater(): void {
    const { renewIn } = this.#http.tokens;
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(
      () => {
        this.#http.tokens.renew().then(
          (token) => this.#send({ type: "token", token }),
          () => this.#renewLater(),
        );
      },
      Math.min(Math.max(renewIn ?? 2 ** 31 - 1, 1_000), 2 ** 31 - 1),
    );
    (this.#renewal as { unref?: () => void }).unref?.();
  }

  #ask(frame: object | string, end?: number): Promise<Frame> {
    return new Promise((resolve, reject) => {
      if (this.#broken) {
        reject(this.#broken);
        return;
      }
      this.#waiting.push({ resolve, reject, ...(end !== undefined && { end }) });
      this.#send(frame);
      this.#arm();
    });
  }

  #send(frame: object | string): void {
    if (this.#socket?.readyState === 1) this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** While an answer is due, a silent connection is given up. */
  #arm(): void {
    clearTimeout(this.#watch);
    if (this.#waiting.length === 0) return;
    this.#watch = setTimeout(() => this.#fail(unavailable("it did not answer in time")), this.#http.timing.connect);
  }

  #fail(error: WakelineError): void {
    if (this.#broken) return;
    this.#broken = error;
    clearTimeout(this.#watch);
    clearTimeout(this.#renewal);
    const socket = this.#socket;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      try {
        socket.close(1000);
      } catch {
        // It was not open.
      }
    }
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

/** Frames have no status: those of the codes that a publisher tells apart. */
const STATUS: Readonly<Record<string, number>> = {
  token_missing: 401,
  token_invalid: 401,
  token_expired: 401,
  publisher_taken: 403,
  not_allowed: 403,
  session_not_found: 404,
  limit_reached: 429,
};
