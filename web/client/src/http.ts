/** Requests to one gateway, with the token; each refusal is thrown as a `WakelineError`. */

import { type Refusal, unavailable, WakelineError } from "./errors.ts";
import type { Timing } from "./timing.ts";
import type { Tokens } from "./tokens.ts";

export interface Call {
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for which the request lets the gateway wait. */
  readonly wait?: number;
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** The path of a session, or of a resource below it. */
export function sessionPath(...parts: string[]): string {
  return `/v1/sessions/${parts.map(segment).join("/")}`;
}

function segment(text: string): string {
  return text === "." || text === ".." ? text.replaceAll(".", "%2E") : encodeURIComponent(text);
}

/** An answer whose body is read piece by piece; a silent connection is given up. */
export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly pieces: AsyncGenerator<string, void, void>;
}

export class Http {
  readonly url: string;
  readonly tokens: Tokens;
  readonly timing: Timing;
  readonly fetch: Fetch;
  readonly #credentials: RequestCredentials | undefined;
  /** Whether the gateway is silent, perhaps because the connections that a browser keeps for it are dead. */
  #silent: boolean | Promise<boolean> = false;

  constructor(
    url: string,
    tokens: Tokens,
    timing: Timing,
    how: { fetch?: Fetch | undefined; credentials?: RequestCredentials | undefined } = {},
  ) {
    this.url = url.replace(/\/+$/, "");
    this.tokens = tokens;
    this.timing = timing;
    this.fetch = how.fetch ?? ((to, init) => fetch(to, init));
    this.#credentials = how.credentials;
  }

  /** Send a request and return the answer's JSON; `undefined` for one without a body. */
  async call<T>(method: string, path: string, how: Call = {}): Promise<T> {
    const answer = await this.open(method, path, how);
    const text = await textOf(answer);
    return (text ? parse(text, answer.status) : undefined) as T;
  }

  /**
   * Send a request, once again with a fresh token if the last one has expired, and return its answer once the head is
   * there; the caller reads the body to its end.
   */
  async open(method: string, path: string, how: Call): Promise<Answer> {
    const send = async (token: string | undefined) => {
      const answer = await this.#send(method, path, how, token);
      if (answer.status < 400) return answer;
      throw refused(await textOf(answer), answer);
    };
    const token = await this.tokens.get();
    try {
      return await send(token);
    } catch (error) {
      if (!(error instanceof WakelineError) || error.status !== 401 || !this.tokens.reject(token)) throw error;
      return send(await this.tokens.get());
    }
  }

  /** Note that a connection was silent: those that a browser keeps for the next requests may be dead, too. */
  doubt(): void {
    this.#silent ||= true;
  }

  async #send(method: string, path: string, how: Call, token?: string): Promise<Raw> {
    const url = new URL(this.url + path);
    for (const [name, value] of Object.entries(how.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = { Accept: "application/json", ...how.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    const init: RequestInit = { method, headers };
    if (how.body !== undefined) {
      headers["Content-Type"] ??= "application/json";
      init.body = typeof how.body === "string" ? how.body : JSON.stringify(how.body);
    }
    if (this.#credentials) init.credentials = this.#credentials;
    const limit = new Limit(how.signal);
    init.signal = limit.signal;
    try {
      if (token && this.#silent) {
        if (this.#silent === true) {
          const loaded = import("./reach.ts");
          this.#silent = loaded.then(
            ({ isSilent }) => isSilent(this),
            () => false,
          );
        }
        this.#silent = await limit.within(this.#silent, this.timing.silence);
        if (this.#silent) throw unavailable("it did not answer in time", 0, true);
      }
      const response = await limit.within(this.fetch(url.href, init), this.timing.connect + (how.wait ?? 0));
      return {
        status: response.status,
        type: response.headers.get("content-type") ?? "",
        after: Number(response.headers.get("retry-after")) || 0,
        pieces: pieces(response, limit, this.timing),
      };
    } catch (error) {
      limit.end();
      throw lost(error);
    }
  }
}

interface Raw extends Answer {
  readonly after: number;
}

/** A request's abort signal, the caller's and that of its time-outs; one wait at a time. */
class Limit {
  readonly #controller = new AbortController();
  readonly signal = this.#controller.signal;
  readonly #outer: AbortSignal | undefined;
  readonly #abort = () => this.#stop("the request was aborted");
  #fail: (error: WakelineError) => void = () => undefined;

  constructor(outer: AbortSignal | undefined) {
    this.#outer = outer;
    outer?.addEventListener("abort", this.#abort);
    if (outer?.aborted) this.#abort();
  }

  within<T>(work: Promise<T>, ms: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#stop("it did not answer in time", true), ms);
      this.#fail = reject;
      work.finally(() => clearTimeout(timer)).then(resolve, reject);
      if (this.signal.aborted) this.#abort();
    });
  }

  /** End the request; one that was read to its end is not aborted, so that its connection is used again. */
  end(whole = false): void {
    this.#outer?.removeEventListener("abort", this.#abort);
    if (!whole) this.#controller.abort();
  }

  #stop(reason: string, silent = false): void {
    // Some browsers leave a read of a dead connection pending when its request is aborted: reject the wait as well.
    this.#fail(unavailable(reason, 0, silent));
    this.#controller.abort();
  }
}

async function* pieces(response: Response, limit: Limit, timing: Timing): AsyncGenerator<string, void, void> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let whole = !reader;
  try {
    while (reader) {
      const { done, value } = await limit.within(reader.read(), timing.silence);
      whole = done;
      if (done) break;
      yield decoder.decode(value, { stream: true });
    }
  } catch (error) {
    throw lost(error);
  } finally {
    limit.end(whole);
  }
}

async function textOf(answer: Answer): Promise<string> {
  let text = "";
  for await (const piece of answer.pieces) text += piece;
  return text;
}

function parse(text: string, status: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A proxy cut the answer short, or answered in the gateway's place.
    throw unavailable(`expected JSON, got ${status} with ${JSON.stringify(text.slice(0, 80))}`);
  }
}

function refused(text: string, { status, after }: Raw): WakelineError {
  let error: Refusal = { message: `expected JSON, got ${status}` };
  try {
    error = (JSON.parse(text) as { error?: Refusal }).error ?? error;
  } catch {
    // A proxy's own page.
  }
  return new WakelineError(error, status, after);
}

/** Return what ended a request, or a part of the client that could not be loaded, as an error of the client. */
export function lost(error: unknown): WakelineError {
  return error instanceof WakelineError ? error : unavailable(error instanceof Error ? error.message : String(error));
}
