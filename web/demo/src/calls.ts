/** What a device sends to the gateway. */

const AGAIN_AFTER = 500;
const MOST_ATTEMPTS = 40;

type Send = (url: string, how: RequestInit) => Promise<Pick<Response, "status">>;

export interface Call {
  readonly method: "POST" | "PUT";
  readonly path: string;
  readonly body: unknown;
}

/** The answer to a question. The same answer again is the same answer, so that it can be repeated. */
export function answerCall(session: string, question: string, payload: string, device: string): Call {
  const path = `/v1/sessions/${encodeURIComponent(session)}/requests/${encodeURIComponent(question)}`;
  return { method: "POST", path, body: { payload, device } };
}

/** What was shown on a device, so that nobody is notified of it. */
export function seenCall(session: string, device: string, cursor: string): Call {
  const path = `/v1/sessions/${encodeURIComponent(session)}/devices/${encodeURIComponent(device)}`;
  return { method: "PUT", path, body: { seen: cursor } };
}

/**
 * Sends until the gateway answers, which may just have been killed; whether it did. A refusal is an answer: another
 * device was faster, and the log tells which.
 */
export async function deliver(
  url: string,
  { method, path, body }: Call,
  online: () => boolean,
  { send = fetch as Send, pause = AGAIN_AFTER } = {},
): Promise<boolean> {
  const headers = { "Content-Type": "application/json" };
  for (let attempt = 0; attempt < MOST_ATTEMPTS && online(); attempt += 1) {
    try {
      const { status } = await send(url + path, { method, headers, body: JSON.stringify(body) });
      if (status < 500 && status !== 429) return true;
    } catch {
      // The gateway is down.
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return false;
}
