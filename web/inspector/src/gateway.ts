/** The gateway that served this page: its client, and the token, which only this page's memory has. */

import { signal } from "@preact/signals";
import { type Call, type Client, connect, type Refusal, WakelineError } from "@wakeline/client";

/** Whether the page may call: it finds out, a token is needed, it may, or the gateway cannot be reached. */
export type Access = { status: "checking" | "open" } | { status: "asking" | "offline"; reason: string };

export const access = signal<Access>({ status: "checking" });

/** What the gateway's settings tell the page. */
export interface Settings {
  readonly temporal_ui?: string | null;
  readonly codec_server?: string | null;
}

export const settings: Settings = JSON.parse(
  document.querySelector<HTMLMetaElement>('meta[name="wakeline-settings"]')?.content ?? "{}",
);

let token: string | undefined;
/** A token that the gateway no longer accepts, although it has not ended by this device's clock. */
let refused: string | undefined;
let made: Client | undefined;
let given: ((token: string) => void) | undefined;
let waiting: Promise<string> | undefined;

/** Find out whether the gateway asks for a token; a cookie counts as one. */
export async function begin(): Promise<void> {
  access.value = { status: "checking" };
  try {
    await check();
    made = connect({ share: false });
    access.value = { status: "open" };
  } catch (error) {
    const { status, message } = error as WakelineError;
    access.value =
      status === 401
        ? { status: "asking", reason: "" }
        : status === 403
          ? { status: "asking", reason: `The cookie's token does not suffice: ${message}.` }
          : { status: "offline", reason: message };
  }
}

/** Use a token from now on. Throws a `WakelineError` if the gateway refuses it. */
export async function signIn(text: string): Promise<void> {
  await check(text);
  refused = undefined;
  token = text;
  // A reading that waits for a fresh token goes on where it was.
  if (given) given(text);
  else {
    made?.close();
    made = connect({ share: false, token: current });
  }
  given = waiting = undefined;
  access.value = { status: "open" };
}

/** Forget the token, and ask for one. */
export function signOut(): void {
  made?.close();
  made = given = waiting = token = undefined;
  access.value = { status: "asking", reason: "" };
}

export function signedIn(): boolean {
  return token !== undefined;
}

/** Whether the page has been let in, so that its views stay while a fresh token is asked for. */
export function connected(): boolean {
  return made !== undefined;
}

export function client(): Client {
  if (!made) throw new WakelineError({ code: "token_missing", message: "expected a signed-in page" }, 401);
  return made;
}

/** Make a request of PROTOCOL.md; a token that is refused, although it has not ended here, is asked for again. */
export async function call<T>(
  method: string,
  path: string,
  how: Pick<Call, "query" | "body" | "signal" | "wait"> = {},
): Promise<T> {
  const sent = token;
  try {
    return await client().call<T>(method, path, how);
  } catch (error) {
    if (sent === undefined || (error as WakelineError).status !== 401) throw error;
    refused = sent;
    return client().call<T>(method, path, how);
  }
}

/** Read a text that is not JSON, such as `/metrics`. */
export async function textOf(path: string): Promise<string> {
  const { answer } = await request(path);
  const text = await answer.text();
  if (answer.ok) return text;
  let refusal = { message: `the gateway answered ${answer.status}` };
  try {
    refusal = JSON.parse(text).error;
  } catch {
    // A proxy's page.
  }
  throw new WakelineError(refusal, answer.status);
}

/** What `/readyz` reports. */
export interface Readiness {
  readonly status: string;
  readonly log: string;
  readonly temporal: string;
  readonly erasure: string;
  readonly tasks?: readonly string[];
}

/** Read `/readyz`: a gateway that is not ready answers 503, with the reason, and that is no failure of the request. */
export async function readiness(): Promise<Readiness> {
  return (await fetch("/readyz")).json();
}

/** Call `told` with each `data` of a stream; resolves when the gateway ends it for another reason than its token. */
export async function follow<T>(
  path: string,
  query: Record<string, string>,
  told: (data: T) => void,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const init = { headers: { Accept: "text/event-stream" }, signal };
    const { answer, sent } = await request(`${path}?${new URLSearchParams(query)}`, init);
    if (!answer.ok || !answer.body) {
      const { error } = (await answer.json()) as { error: Refusal };
      throw new WakelineError(error, answer.status);
    }
    const failed = await read(answer.body, told).catch((error: unknown) => error);
    // The gateway cuts a stream when its token ends: with another token the stream continues.
    if (!signal.aborted && sent !== undefined && (await current()) !== sent) continue;
    if (failed) throw failed;
    return;
  }
}

async function read<T>(body: ReadableStream<Uint8Array<ArrayBuffer>>, told: (data: T) => void): Promise<void> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop() ?? "";
    for (const frame of frames) if (frame.startsWith("data: ")) told(JSON.parse(frame.slice(6)));
  }
}

/** Send a request with a token that has not ended, and return the answer and that token; a cookie is sent by itself. */
async function request(
  path: string,
  init: { headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<{ answer: Response; sent: string | undefined }> {
  for (;;) {
    const sent = token === undefined ? undefined : await current();
    const headers = { ...init.headers, ...(sent !== undefined && { Authorization: `Bearer ${sent}` }) };
    const answer = await fetch(path, { ...init, headers });
    if (answer.status !== 401 || sent === undefined) return { answer, sent };
    // This device's clock may be behind the gateway's, which decides.
    refused = sent;
  }
}

/** The token in use; one that has ended is asked for again, and whoever needs it waits. */
function current(): string | Promise<string> {
  if (token !== undefined && token !== refused && (expiry(token) ?? Number.POSITIVE_INFINITY) > Date.now() + 1000)
    return token;
  waiting ??= new Promise((resolve) => {
    given = resolve;
  });
  access.value = { status: "asking", reason: "The token has expired." };
  return waiting;
}

/** When a token ends, in milliseconds; `undefined` if it cannot be read. */
export function expiry(text: string): number | undefined {
  try {
    const part = (text.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(part)) as { exp?: number };
    return exp === undefined ? undefined : exp * 1000;
  } catch {
    return undefined;
  }
}

async function check(text?: string): Promise<void> {
  const once = connect({ share: false, ...(text !== undefined && { token: text }) });
  try {
    await once.call("GET", "/v1/sessions", { query: { limit: 1 } });
  } finally {
    once.close();
  }
}
