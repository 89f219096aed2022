/** A view as the gateway's own answers: the requests that it is made of, and what they return, JSON as a rule. */

import { sessionPath } from "./api.ts";
import { pretty } from "./format.ts";
import { call, readiness, textOf } from "./gateway.ts";
import { Copy, Failure } from "./parts.tsx";
import { usePolled } from "./polling.ts";
import { type Route, route, to } from "./route.ts";

/** The requests of a view. */
export function requestsOf({ view, parts: [name = ""], query }: Route): string[] {
  switch (view) {
    case "sessions": {
      const search = new URLSearchParams({ order: "newest" });
      const text = query.get("q");
      if (text) search.set("contains", text);
      const status = query.get("status");
      if (status) search.set("status", status);
      return [`/v1/sessions?${search}`];
    }
    case "session": {
      const paths = [sessionPath(name), `${sessionPath(name, "events")}?before=now&limit=1000`];
      const chosen = query.get("e") ?? "";
      if (/^\d+$/.test(chosen)) paths.push(sessionPath(name, "events", chosen));
      return [...paths, sessionPath(name, "devices"), sessionPath(name, "requests")];
    }
    case "outbox":
      return [`/v1/notifications?${query}`];
    case "gateway":
      return ["/readyz", "/metrics"];
    default:
      return [];
  }
}

/** Make a request of a view: two answers of the gateway are not JSON, or not only with a status of success. */
function answerTo(path: string, signal: AbortSignal): Promise<unknown> {
  if (path === "/metrics") return textOf(path);
  if (path === "/readyz") return readiness();
  return call("GET", path, { signal });
}

export function JsonView() {
  const now = route.value;
  const paths = requestsOf(now);
  const back = to(now.view, now.parts, Object.fromEntries(now.query));
  return (
    <section class="json" aria-label="JSON">
      <p>
        <a href={back}>Back to the view</a>
      </p>
      {paths.map((path) => (
        <Answer key={path} path={path} />
      ))}
    </section>
  );
}

function Answer({ path }: { path: string }) {
  const { data, error } = usePolled((signal) => answerTo(path, signal), 600_000, path);
  const shown = (): string => (typeof data.value === "string" ? data.value : pretty(data.value));
  return (
    <article class="card">
      <h2 class="line">
        <code>GET {path}</code>
        <Copy text={shown}>Copy</Copy>
      </h2>
      <Failure error={error.value} />
      {data.value !== undefined && <pre>{shown()}</pre>}
    </article>
  );
}
