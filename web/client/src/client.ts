/** A client of one gateway. */

import { WakelineError } from "./errors.ts";
import type { Posted } from "./host.ts";
import { type Call, type Fetch, Http } from "./http.ts";
import { LocalHub, type Transport } from "./hub.ts";
import type { CursorStorage } from "./keeper.ts";
import { LateHub } from "./live.ts";
import type { Parts } from "./reader.ts";
import { Session } from "./session.ts";
import { Alarm, TIMING, type Timing } from "./timing.ts";
import { type Token, Tokens } from "./tokens.ts";
import { listen } from "./wake.ts";

export interface ConnectOptions {
  /** The gateway's URL; by default the page's own origin. */
  readonly url?: string;
  /** A token, or a function that returns a fresh one. Without it the browser's cookie is sent. */
  readonly token?: Token;
  /** This device's id: the gateway keeps its positions, and shows it as present. */
  readonly device?: string;
  /** Where `events({ resume })` keeps cursors. */
  readonly storage?: CursorStorage;
  /** `auto`, the default, is the best that the network lets through. */
  readonly transport?: Transport;
  /** Time-outs in milliseconds; the defaults suit browsers and phones. */
  readonly timing?: Partial<Timing>;
  /** `include` sends the cookie to a gateway of another origin. */
  readonly credentials?: RequestCredentials;
  /**
   * Whether the tabs of this origin use one connection; by default they do if a token says whose it is. Without a token
   * give a name that no two users of a browser have in common.
   */
  readonly share?: boolean | string;
  /** The URL of this package's `worker.js`, if it is not served beside its other files. */
  readonly worker?: string | URL;
  readonly fetch?: Fetch;
}

/** A client of one gateway; connections are made when they are needed. */
export interface Client {
  readonly url: string;
  /** A handle on a session, whether or not it exists. */
  session(name: string): Session;
  /** Any request of PROTOCOL.md, with the token: its answer's JSON, or a `WakelineError`. */
  call<T = unknown>(method: string, path: string, how?: Call): Promise<T>;
  /** Close every connection; readings stop. */
  close(): void;
}

/** Return a client of a gateway. */
export function connect(options: ConnectOptions = {}): Client {
  const { url = globalThis.location?.origin ?? "", token, device, storage, transport = "auto", share = true } = options;
  if (!/^https?:/i.test(url)) throw new TypeError(`expected connect({ url: "http://…" }), got ${url}`);
  if (transport === "websocket" && typeof WebSocket === "undefined") {
    throw new TypeError('expected transport "auto": there is no WebSocket');
  }
  const tokens = new Tokens(token);
  const timing = { ...TIMING, ...options.timing };
  const { credentials, worker } = options;
  const http = new Http(url, tokens, timing, options);
  const local = (asked?: () => Promise<string>) =>
    new LocalHub(asked ? new Http(url, new Tokens(asked), timing, options) : http, transport);
  const shares = share && (token || typeof share === "string") && typeof document === "object";
  const shared = async (lost: () => void) => {
    const whose = typeof share === "string" ? share : await tokens.identity();
    if (!whose) return local();
    const tabs = await import("./tabs.ts").catch(() => undefined);
    const sharing = {
      name: JSON.stringify([http.url, device, transport, whose]),
      config: { url: http.url, timing, transport, tokens: !!token, credentials },
      worker,
      local: (asked?: () => Promise<string>) => local(token ? asked : undefined),
      token: async () => (tokens.renewable ? tokens.renew() : ((await tokens.get()) ?? "")),
      error: ({ refusal, status, retryAfter }: Posted) => new WakelineError(refusal, status, retryAfter),
    };
    return tabs ? tabs.share(sharing, lost) : local();
  };
  const hub = shares ? new LateHub(shared) : local();
  const alarm = new Alarm();
  const page = listen({
    wake() {
      hub.check();
      alarm.ring();
    },
    sleep: () => hub.drop(),
  });
  const closing = new AbortController();
  const parts: Parts = { http, hub, alarm, awake: page.awake, closing: closing.signal };
  const sessions = new Map<string, Session>();
  return {
    url: http.url,
    session(name) {
      const known = sessions.get(name) ?? new Session(parts, name, device, storage);
      sessions.set(name, known);
      return known;
    },
    call: (method, path, how) => http.call(method, path, how),
    close() {
      page.end();
      for (const session of sessions.values()) session.close();
      hub.close();
      closing.abort(new WakelineError({ code: "closed", message: "the client was closed" }));
    },
  };
}
