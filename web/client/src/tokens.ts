/** The token in use, and where a fresh one comes from. */

import { WakelineError } from "./errors.ts";

/** A token, or a function that returns a fresh one each time that it is called. */
export type Token = string | (() => string | Promise<string>);

interface Claims {
  readonly sub?: string;
  readonly iat?: number;
  readonly exp?: number;
  readonly wakeline?: { readonly topics?: readonly string[] };
}

export class Tokens {
  readonly #source: Token | undefined;
  #token: string | undefined;
  #asking: Promise<string> | undefined;

  constructor(source: Token | undefined) {
    this.#source = source;
    if (typeof source === "string") this.#token = source;
  }

  /** The token to send; `undefined` where a cookie, or nothing, is sent in its place. */
  async get(): Promise<string | undefined> {
    return this.#token ?? (this.#source ? this.renew() : undefined);
  }

  /** Ask for a fresh token; concurrent callers share one call. */
  renew(): Promise<string> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  /** Discard a token that was refused; return whether there may be a fresh one. */
  reject(token: string | undefined): boolean {
    if (!this.renewable) return false;
    if (token === this.#token) this.#token = undefined;
    return true;
  }

  /** Whether it is one token that was given as text. */
  get isFixed(): boolean {
    return typeof this.#source === "string";
  }

  get renewable(): boolean {
    return typeof this.#source === "function";
  }

  /** Whether the token in use may be limited to some topics, so that the gateway leaves events out. */
  get mayFilter(): boolean {
    // A cookie's claims cannot be read: its token may be limited.
    const found = this.#token === undefined ? undefined : claims(this.#token);
    return !found || found.wakeline?.topics !== undefined;
  }

  /** Milliseconds after which the token in use should be renewed. */
  get renewIn(): number | undefined {
    const { iat, exp } = (this.#token && claims(this.#token)) || {};
    // The clock of this device may be wrong; the length of the token's life is not.
    return exp === undefined || !this.renewable ? undefined : 800 * (exp - (iat ?? Date.now() / 1000));
  }

  /** What the tokens of one person with one set of permissions have in common. */
  async identity(): Promise<string | undefined> {
    const token = await this.get();
    const found = token === undefined ? undefined : claims(token);
    return found && JSON.stringify([found.sub, found.wakeline]);
  }

  async #ask(): Promise<string> {
    try {
      const given = await (this.#source as () => string | Promise<string>)();
      if (typeof given !== "string" || !given) throw new Error(`expected a token, got ${JSON.stringify(given)}`);
      this.#token = given;
      return given;
    } catch (error) {
      const message = `the token function failed: ${error instanceof Error ? error.message : String(error)}`;
      const hint = "Check what it calls; the client calls it again.";
      throw new WakelineError({ code: "token_unavailable", message, hint });
    }
  }
}

function claims(token: string): Claims | undefined {
  try {
    const part = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) as Claims;
  } catch {
    return undefined;
  }
}
