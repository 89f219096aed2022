/** The outbox: notifications that are pending, were sent, or failed for good. */

import { useSignal } from "@preact/signals";
import type { WakelineError } from "@wakeline/client";
import { sessionPath } from "../api.ts";
import { ago } from "../format.ts";
import { call } from "../gateway.ts";
import { useKeys } from "../keys.ts";
import { AsJson, Badge, Failure } from "../parts.tsx";
import { usePolled } from "../polling.ts";
import { change, route, to } from "../route.ts";

interface Notification {
  readonly id: string;
  readonly session: string;
  readonly user: string;
  readonly channel: string;
  readonly state: string;
  readonly created: string;
  readonly next_attempt: string | null;
  readonly count: number;
  readonly attempts: readonly { readonly time: string; readonly outcome: string }[];
}

interface Page {
  readonly notifications: readonly Notification[];
  readonly after: string | null;
}

const STATES = ["pending", "dead", "delivered", "cancelled"];

export function OutboxView() {
  const { query } = route.value;
  const state = query.get("state") ?? "";
  const session = query.get("session") ?? "";
  const chosen = useSignal(-1);
  const error = useSignal<WakelineError | undefined>(undefined);
  const asked = { state: state || undefined, session: session || undefined };
  const polled = usePolled((signal) => readAll(asked, signal), 3000, `${state}\n${session}`);
  const found = polled.data.value?.notifications ?? [];
  const act = async (work: () => Promise<unknown>) => {
    error.value = undefined;
    try {
      await work();
      polled.refresh();
    } catch (thrown) {
      error.value = thrown as WakelineError;
    }
  };
  useKeys({
    j: () => {
      chosen.value = Math.min(found.length - 1, chosen.value + 1);
    },
    k: () => {
      chosen.value = Math.max(0, chosen.value - 1);
    },
  });
  return (
    <>
      <div class="bar">
        <h1>Outbox</h1>
        <input
          type="search"
          data-search
          aria-label="Only notifications of this session"
          placeholder="Session  ( / )"
          defaultValue={session}
          onChange={(event) => change({ session: event.currentTarget.value })}
        />
        <label class="line">
          <span class="soft">State</span>
          <select
            aria-label="Only notifications in this state"
            value={state}
            onChange={(event) => change({ state: event.currentTarget.value })}
          >
            <option value="">all</option>
            {STATES.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <button
          type="button"
          onClick={() =>
            void act(() => call("POST", "/v1/notifications/retry", { query: { ...asked, state: "dead" } }))
          }
        >
          Retry the dead ones
        </button>
        <AsJson />
      </div>
      <Failure error={error.value ?? polled.error.value} />
      <section class="card wide" aria-label="Notifications">
        {found.length === 0 && !polled.error.value && (
          <p class="soft">{polled.data.value ? "No notification." : "Reading…"}</p>
        )}
        {found.length > 0 && (
          <table class="outbox">
            <thead>
              <tr>
                <th scope="col">Session</th>
                <th scope="col">User</th>
                <th scope="col">Channel</th>
                <th scope="col">State</th>
                <th scope="col" class="number">
                  Events
                </th>
                <th scope="col">Created</th>
                <th scope="col">Last attempt</th>
                <th scope="col">
                  <span class="heard">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {found.map((one, at) => (
                <tr
                  key={`${one.session}\n${one.id}`}
                  class={at === chosen.value ? "chosen" : ""}
                  data-notification={one.id}
                >
                  <th scope="row">
                    <a href={to("session", [one.session])}>
                      <bdi>{one.session}</bdi>
                    </a>
                  </th>
                  <td>
                    <bdi>{one.user}</bdi>
                  </td>
                  <td>{one.channel}</td>
                  <td>
                    <Badge state={one.state} />
                  </td>
                  <td class="number" title={`${one.count} ${one.count === 1 ? "event" : "events"}`}>
                    {one.count}
                  </td>
                  <td title={one.created}>{ago(one.created)}</td>
                  <td>
                    <bdi>{one.attempts.at(-1)?.outcome ?? "–"}</bdi>
                  </td>
                  <td>
                    <button type="button" onClick={() => void act(() => call("POST", pathOf(one)))}>
                      Send again
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        {polled.data.value?.after && <p class="soft">There are more: search for a session.</p>}
      </section>
    </>
  );
}

function pathOf({ session, id }: Notification): string {
  return sessionPath(session, "notifications", id, "retry");
}

/** The first notifications; a page may be empty, and others follow it. */
async function readAll(query: Record<string, string | undefined>, signal: AbortSignal): Promise<Page> {
  const found: Notification[] = [];
  let after: string | undefined;
  for (let pages = 0; pages < 20 && found.length < 200; pages += 1) {
    const page = await call<Page>("GET", "/v1/notifications", { query: { ...query, after }, signal });
    found.push(...page.notifications);
    after = page.after ?? undefined;
    if (after === undefined) break;
  }
  return { notifications: found, after: after ?? null };
}
