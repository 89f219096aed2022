/** How far each connection of a device is, live. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { sessionPath } from "../api.ts";
import { count } from "../format.ts";
import { follow } from "../gateway.ts";

interface Sent {
  readonly time: string;
  readonly connections: readonly { readonly transport: string; readonly offset: number }[];
  readonly end: number;
}

const MOST = 200;

export function Trace({ name, user, device, close }: { name: string; user: string; device: string; close(): void }) {
  const lines = useSignal<readonly Sent[]>([]);
  const note = useSignal("");
  useEffect(() => {
    const stop = new AbortController();
    lines.value = [];
    note.value = "";
    const add = (one: Sent) => {
      lines.value = [one, ...lines.value].slice(0, MOST);
    };
    follow(sessionPath(name, "devices", device, "trace"), user ? { user } : {}, add, stop.signal).then(
      () => {
        if (!stop.signal.aborted) note.value = "It has no connection to this gateway.";
      },
      (thrown) => {
        if (!stop.signal.aborted) note.value = thrown instanceof Error ? thrown.message : String(thrown);
      },
    );
    return () => stop.abort();
  }, [name, user, device]);
  return (
    <section aria-label={`Trace of ${device}`} data-trace={device}>
      <header class="line">
        <h3>
          What <bdi>{device}</bdi> is sent
        </h3>
        <button type="button" class="close" onClick={close} aria-label="Close the trace">
          ✕
        </button>
      </header>
      <p class="soft" role="status">
        {note.value}
      </p>
      <ol>
        {lines.value.map((one) => (
          <li key={one.time}>
            <code>{lineOf(one)}</code>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** A line: when, and of each connection how far it is and how many events it has not been sent. */
function lineOf({ time, connections, end }: Sent): string {
  const each = connections.map(({ transport, offset }) => {
    const behind = end - offset;
    return `${transport} at ${count(offset)}${behind > 0 ? `, ${count(behind)} behind` : ""}`;
  });
  return `${time.slice(11, 23)}  ${each.join("; ") || "no connection"}`;
}
