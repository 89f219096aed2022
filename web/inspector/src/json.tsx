/** A view as the gateway's own JSON: the requests that it is made of, and their answers. */

import { pretty } from "./format.ts";
import { call } from "./gateway.ts";
import { Copy, Failure } from "./parts.tsx";
import { usePolled } from "./polling.ts";
import { type Route, route, to } from "./route.ts";

const session = (name: string, below = ""): string => `/v1/sessions/${encodeURIComponent(name)}${below}`;

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
      const paths = [session(name), session(name, "/events?before=now&limit=1000"), session(name, "/devices")];
      return [...paths, session(name, "/requests")];
    }
    case "outbox":
      return [`/v1/notifications?${query}`];
    case "gateway":
      return ["/readyz", "/metrics"];
    default:
      return [];
  }
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
  const { data, error } = usePolled((signal) => call("GET", path, { signal }), 600_000, path);
  return (
    <article class="card">
      <h2 class="line">
        <code>GET {path}</code>
        <Copy text={() => pretty(data.value)}>Copy</Copy>
      </h2>
      <Failure error={error.value} />
      {data.value !== undefined && <pre>{pretty(data.value)}</pre>}
    </article>
  );
}
