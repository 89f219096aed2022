/** Temporal payloads: what they are, and how a codec server decodes them in the browser. */

export interface Payload {
  readonly metadata: Readonly<Record<string, string>>;
  readonly data: string;
}

/** The encoding of a payload, such as `binary/encrypted`. */
export function encodingOf(payload: Payload): string {
  return textOf(payload.metadata.encoding ?? "") || "unknown";
}

/** Decode a payload by a codec server, with what it is then. */
export async function decode(server: string, payload: Payload, namespace: string): Promise<unknown> {
  const answer = await fetch(`${server.replace(/\/+$/, "")}/decode`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Namespace": namespace },
    body: JSON.stringify({ payloads: [payload] }),
  });
  if (!answer.ok) throw new Error(`expected the codec server to answer 200, got ${answer.status}`);
  const { payloads } = (await answer.json()) as { payloads?: Payload[] };
  const [decoded] = payloads ?? [];
  if (!decoded) throw new Error("expected the codec server to answer with a payload, got none");
  return plainOf(decoded);
}

/** The value of a payload that is not encoded: JSON, nothing, or bytes as they are. */
export function plainOf(payload: Payload): unknown {
  const encoding = encodingOf(payload);
  if (encoding === "binary/null") return null;
  if (encoding.startsWith("json/")) return JSON.parse(textOf(payload.data ?? ""));
  return payload;
}

function textOf(base64: string): string {
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)));
  } catch {
    return "";
  }
}
