/** The field for a token. */

import { useSignal } from "@preact/signals";
import type { WakelineError } from "@wakeline/client";
import { useEffect, useRef } from "preact/hooks";
import { access, begin, signIn } from "./gateway.ts";
import { Failure } from "./parts.tsx";

export function SignIn({ reason }: { reason: string }) {
  const error = useSignal<Pick<WakelineError, "message" | "hint"> | undefined>(undefined);
  const busy = useSignal(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const submit = async (event: Event) => {
    event.preventDefault();
    const text = field.current?.value.trim() ?? "";
    if (!text || busy.value) return;
    busy.value = true;
    error.value = undefined;
    try {
      await signIn(text);
    } catch (thrown) {
      error.value = thrown as WakelineError;
    } finally {
      busy.value = false;
    }
  };
  return (
    <main class="gate">
      <form class="card" onSubmit={submit}>
        <h1>Sign in</h1>
        {reason && <p class="soft">{reason}</p>}
        <label for="token">Token</label>
        <input id="token" ref={field} type="password" autocomplete="off" spellcheck={false} name="token" />
        <p class="soft">
          A token of this gateway that may <code>read</code>. It is kept in this page's memory and nowhere else: a
          reload asks again. <code>wakeline token</code> makes one.
        </p>
        <button type="submit" class="strong" aria-disabled={busy.value}>
          {busy.value ? "Checking…" : "Sign in"}
        </button>
        <Failure error={error.value} />
      </form>
    </main>
  );
}

export function Offline({ reason }: { reason: string }) {
  return (
    <main class="gate">
      <div class="card">
        <h1>{access.value.status === "checking" ? "Connecting…" : "The gateway does not answer"}</h1>
        {reason && <p>{reason}</p>}
        <button type="button" class="strong" onClick={() => void begin()}>
          Try again
        </button>
      </div>
    </main>
  );
}
