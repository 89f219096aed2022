/** The page's address, which is its state: a view, what it shows, and how. A link is good after a reload or a sign-in. */

import { signal } from "@preact/signals";

export interface Route {
  /** The view's name. */
  readonly view: string;
  /** What it shows, such as a session's name. */
  readonly parts: readonly string[];
  readonly query: URLSearchParams;
  /** Whether it is shown as the gateway's own JSON: `#/sessions.json`. */
  readonly json: boolean;
}

export const route = signal<Route>(parse(location.hash));

addEventListener("hashchange", () => {
  route.value = parse(location.hash);
});

export function parse(hash: string): Route {
  const [path = "", query = ""] = split(hash.replace(/^#?\/?/, ""), "?");
  const [view = "", ...parts] = path.split("/").map(decode);
  const json = view.endsWith(".json");
  return { view: (json ? view.slice(0, -5) : view) || "sessions", parts, query: new URLSearchParams(query), json };
}

/** The address of a view. */
export function to(view: string, parts: readonly string[] = [], query: Record<string, string> = {}): string {
  const text = new URLSearchParams(query).toString();
  return `#/${[view, ...parts.map(encodeURIComponent)].join("/")}${text && `?${text}`}`;
}

/** The address of this view with other parameters; an empty value removes one. */
export function changed(query: Readonly<Record<string, string>>): string {
  const { view, parts, query: before } = route.peek();
  const now = new URLSearchParams(before);
  for (const [name, value] of Object.entries(query)) {
    if (value) now.set(name, value);
    else now.delete(name);
  }
  return to(view, parts, Object.fromEntries(now));
}

/** Change parameters of this view, without an entry in the browser's history. */
export function change(query: Readonly<Record<string, string>>): void {
  const hash = changed(query);
  if (hash === location.hash) return;
  history.replaceState(null, "", hash);
  route.value = parse(hash);
}

export function go(hash: string): void {
  location.hash = hash;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function split(text: string, at: string): [string, string?] {
  const index = text.indexOf(at);
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)];
}
