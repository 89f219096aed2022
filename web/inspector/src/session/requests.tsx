/** The open requests for input of a session, with the buttons that answer them. */

import { useSignal } from "@preact/signals";
import type { InputRequest, WakelineError } from "@wakeline/client";
import { useRef } from "preact/hooks";
import { ago } from "../format.ts";
import { client } from "../gateway.ts";
import { Failure } from "../parts.tsx";
import { usePolled } from "../polling.ts";

export function Requests({ name, version }: { name: string; version: number }) {
  // New events may ask or answer; a session is asked at most every second.
  const second = version && Math.floor(Date.now() / 1000);
  const { data, refresh } = usePolled((signal) => client().session(name).requests(signal), 10_000, name, second);
  const open = data.value ?? [];
  if (open.length === 0) return null;
  return (
    <section class="stack" aria-label="Open requests for input">
      {open.map((request) => (
        <Request key={request.id} name={name} request={request} answered={refresh} />
      ))}
    </section>
  );
}

function Request({ name, request, answered }: { name: string; request: InputRequest; answered: () => void }) {
  const error = useSignal<WakelineError | undefined>(undefined);
  const busy = useSignal(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const answer = async (payload: unknown, status: "resolved" | "cancelled" = "resolved") => {
    busy.value = true;
    error.value = undefined;
    try {
      const digest = request.digest === undefined ? {} : { digest: request.digest };
      await client()
        .session(name)
        .answer(request.id, payload, { status, ...digest });
      answered();
    } catch (thrown) {
      error.value = thrown as WakelineError;
    } finally {
      busy.value = false;
    }
  };
  const send = (event: Event) => {
    event.preventDefault();
    try {
      void answer(JSON.parse(field.current?.value ?? ""));
    } catch {
      field.current?.setCustomValidity('JSON, such as {"approved": true} or "yes"');
      field.current?.reportValidity();
    }
  };
  const buttons = (
    <div class="line">
      {request.choices?.map((choice, at) => (
        <button
          key={choice}
          type="button"
          class={at === 0 ? "strong" : undefined}
          disabled={busy.value}
          onClick={() => void answer(choice)}
        >
          <bdi>{choice}</bdi>
        </button>
      ))}
      {!request.choices && (
        <form class="line" onSubmit={send}>
          <textarea
            ref={field}
            rows={1}
            aria-label="Answer as JSON"
            placeholder='{"approved": true}'
            onInput={(event) => event.currentTarget.setCustomValidity("")}
          />
          <button type="submit" class="strong" disabled={busy.value}>
            Answer
          </button>
        </form>
      )}
      <button type="button" disabled={busy.value} onClick={() => void answer(undefined, "cancelled")}>
        Decline
      </button>
    </div>
  );
  return (
    <article class="card request" data-request={request.id}>
      <p>
        <strong>
          <bdi>{request.message ?? request.reason}</bdi>
        </strong>{" "}
        <span class="soft">
          {request.kind === "tool" && "for the tool "}
          <bdi>{request.message === undefined ? "" : request.reason}</bdi>
          {request.expires_at &&
            `, until ${ago(new Date().toISOString(), Date.parse(request.expires_at)).replace(" ago", "")} from now`}
        </span>
      </p>
      {request.kind === "tool" ? <p class="soft">A device runs it, and answers.</p> : buttons}
      <Failure error={error.value} />
    </article>
  );
}
