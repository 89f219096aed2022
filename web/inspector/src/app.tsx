/** The frame of all views. */

import type { ComponentChildren } from "preact";
import { GatewayView } from "./gateway/view.tsx";
import { access, connected, signedIn, signOut } from "./gateway.ts";
import { JsonView } from "./json.tsx";
import { useKeys } from "./keys.ts";
import { OutboxView } from "./outbox/view.tsx";
import { route, to } from "./route.ts";
import { SessionView } from "./session/view.tsx";
import { Sessions } from "./sessions/view.tsx";
import { Offline, SignIn } from "./sign-in.tsx";

const VIEWS: readonly (readonly [view: string, title: string])[] = [
  ["sessions", "Sessions"],
  ["outbox", "Outbox"],
  ["gateway", "Gateway"],
];

export function App() {
  const state = access.value;
  const asking = state.status === "asking";
  if (state.status === "checking") return <main class="gate" aria-busy="true" />;
  if (state.status === "offline") return <Offline reason={state.reason} />;
  return (
    <>
      {connected() && (
        // What was read stays while a fresh token is asked for.
        <div class="page" inert={asking}>
          <Frame>{route.value.json ? <JsonView /> : <View />}</Frame>
        </div>
      )}
      {asking && <SignIn reason={state.reason} />}
    </>
  );
}

function View() {
  switch (route.value.view) {
    case "sessions":
      return <Sessions />;
    case "outbox":
      return <OutboxView />;
    case "gateway":
      return <GatewayView />;
    case "session":
      return <SessionView />;
    default:
      return (
        <p class="empty">
          There is no view <q>{route.value.view}</q>. <a href={to("sessions")}>All sessions</a>
        </p>
      );
  }
}

function Frame({ children }: { children: ComponentChildren }) {
  useKeys({
    "/": () => document.querySelector<HTMLInputElement>("[data-search]")?.focus(),
  });
  const { view } = route.value;
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        Skip to the content
      </button>
      <header class="top">
        <a class="name" href={to("sessions")}>
          <svg viewBox="0 0 24 24" aria-hidden="true">
            <path d="M2 9c4 0 4 3 8 3s4-3 8-3M6 15c4 0 4 3 8 3s4-3 8-3" />
          </svg>
          <span class="word">Wakeline</span>
        </a>
        <nav aria-label="Views">
          {VIEWS.map(([name, title]) => (
            <a
              key={name}
              href={to(name)}
              aria-current={name === view || (name === "sessions" && IN_SESSIONS.has(view)) ? "page" : undefined}
            >
              {title}
            </a>
          ))}
        </nav>
        {signedIn() && (
          <button type="button" class="plain" onClick={signOut}>
            Sign out
          </button>
        )}
      </header>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
    </>
  );
}

/** Views that belong to the list of sessions. */
const IN_SESSIONS: ReadonlySet<string> = new Set(["session", "event", "devices"]);
