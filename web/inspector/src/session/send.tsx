/** Send an input to the session's run, or publish a test event. */

import { useSignal } from "@preact/signals";
import type { SessionInfo, WakelineError } from "@wakeline/client";

import { sessionPath } from "../api.ts";
import { pretty } from "../format.ts";
import { call } from "../gateway.ts";
import { Failure } from "../parts.tsx";
import { receivers } from "./receivers.ts";

const WAIT_SECONDS = 10;

type Kind = "signal" | "update" | "cancel" | "terminate";

export function Send({ name, record }: { name: string; record: SessionInfo | undefined }) {
  return (
    <div class="forms">
      <InputForm name={name} record={record} />
      <EventForm name={name} />
    </div>
  );
}

/** What a form's last try came to. */
function useOutcome() {
  const outcome = useSignal<string | undefined>(undefined);
  const error = useSignal<Pick<WakelineError, "message" | "hint"> | undefined>(undefined);
  const busy = useSignal(false);
  const run = async (act: () => Promise<unknown>) => {
    if (busy.peek()) return;
    busy.value = true;
    outcome.value = error.value = undefined;
    try {
      outcome.value = pretty(await act());
    } catch (thrown) {
      error.value =
        thrown instanceof SyntaxError
          ? { message: `expected JSON: ${thrown.message}`, hint: "Write a text in quotation marks." }
          : (thrown as WakelineError);
    } finally {
      busy.value = false;
    }
  };
  return { outcome, error, busy, run };
}

function InputForm({ name, record }: { name: string; record: SessionInfo | undefined }) {
  const { outcome, error, busy, run } = useOutcome();
  const kind = useSignal<Kind>("signal");
  const named = kind.value === "signal" || kind.value === "update";
  const submit = (event: Event & { currentTarget: HTMLFormElement }) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    void run(async () => {
      const args = named ? JSON.parse(String(fields.get("args") || "[]")) : [];
      const target = String(fields.get("run") ?? "");
      const body = {
        id: newId(),
        kind: kind.peek(),
        ...(named && { name: String(fields.get("name")), args }),
        ...(target && { run: target }),
        wait: WAIT_SECONDS,
      };
      return call("POST", sessionPath(name, "inputs"), { body, wait: WAIT_SECONDS * 1000 });
    });
  };
  const open = receivers(record?.runs ?? []);
  return (
    <form class="card stack" onSubmit={submit}>
      <h2>Input to the run</h2>
      <label>
        Kind{" "}
        <select
          value={kind.value}
          onChange={(event) => {
            kind.value = event.currentTarget.value as Kind;
          }}
        >
          <option value="signal">signal</option>
          <option value="update">update</option>
          <option value="cancel">cancel the run</option>
          <option value="terminate">terminate the run</option>
        </select>
      </label>
      {open.length > 1 && (
        <label>
          Run{" "}
          <select name="run">
            {open.map((one) => (
              <option key={one.run} value={one.run}>
                {one.workflow_id}
              </option>
            ))}
          </select>
        </label>
      )}
      {named && (
        <>
          <label>
            Name <input name="name" required spellcheck={false} />
          </label>
          <label>
            Arguments, as a JSON list
            <textarea name="args" rows={3} spellcheck={false} defaultValue="[]" />
          </label>
        </>
      )}
      <div class="line">
        <button type="submit" class="strong" disabled={busy.value}>
          {busy.value ? "Sending…" : "Send"}
        </button>
        {open.length === 0 && <span class="soft">No run is open.</span>}
      </div>
      <Failure error={error.value} />
      {outcome.value && <pre aria-live="polite">{outcome.value}</pre>}
    </form>
  );
}

function EventForm({ name }: { name: string }) {
  const { outcome, error, busy, run } = useOutcome();
  const submit = (event: Event & { currentTarget: HTMLFormElement }) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    void run(async () => {
      const data = JSON.parse(String(fields.get("data") || "null"));
      const body = { events: [{ topic: String(fields.get("topic")), data }] };
      return call("POST", sessionPath(name, "events"), { body });
    });
  };
  return (
    <form class="card stack" onSubmit={submit}>
      <h2>Test event</h2>
      <label>
        Topic <input name="topic" required spellcheck={false} defaultValue="test" />
      </label>
      <label>
        Data, as JSON
        <textarea name="data" rows={3} spellcheck={false} defaultValue={'{"from": "the inspector"}'} />
      </label>
      <div class="line">
        <button type="submit" class="strong" disabled={busy.value}>
          Publish
        </button>
        <span class="soft">It is in the log for good, and every device gets it.</span>
      </div>
      <Failure error={error.value} />
      {outcome.value && <pre aria-live="polite">{outcome.value}</pre>}
    </form>
  );
}

/** A key that no other input has; pages without HTTPS lack `crypto.randomUUID`. */
function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
