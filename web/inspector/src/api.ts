/** What the gateway answers, as PROTOCOL.md describes it, beside the types of the client. */

import type { SessionInfo } from "@wakeline/client";

export interface SessionPage {
  readonly sessions: readonly SessionInfo[];
  readonly after: string | null;
}

/** What the gateway still knows of an event's publication. */
export interface Publication {
  readonly publisher: string;
  readonly attempt: number | null;
  readonly sequence: number | null;
}

/** How a session stands, in one word: that of its last run, or of the log itself. */
export function stateOf(session: SessionInfo): string {
  const open = session.runs.find(({ status }) => status === "running");
  const last = open ?? session.runs.at(-1);
  if (last) return last.status;
  return session.closed ? "closed" : "open";
}

export function sessionPath(name: string, ...below: string[]): string {
  return ["/v1/sessions", name, ...below].map((part, at) => (at ? segment(part) : part)).join("/");
}

function segment(text: string): string {
  return text === "." || text === ".." ? text.replaceAll(".", "%2E") : encodeURIComponent(text);
}
