/** The devices of a session: where they are, and how far behind. */

import { useSignal } from "@preact/signals";
import type { WakelineError } from "@wakeline/client";
import { useRef } from "preact/hooks";
import { sessionPath } from "../api.ts";
import { ago, count } from "../format.ts";
import { call } from "../gateway.ts";
import { Failure, Spark } from "../parts.tsx";
import type { Polled } from "../polling.ts";
import { Trace } from "./trace.tsx";

export interface DeviceRecord {
  readonly device: string;
  readonly user: string;
  readonly delivered: string | null;
  readonly seen: string | null;
  readonly lag: number;
  readonly connected: boolean;
  readonly transports: readonly string[];
  readonly last_active: string;
}

const TRACED = 24;

type Listed = Polled<{ readonly devices: readonly DeviceRecord[] }>;

export function Devices({ name, polled, end }: { name: string; polled: Listed; end: number }) {
  const devices = polled.data.value?.devices ?? [];
  const traces = useTraces(devices, end);
  const traced = useSignal<DeviceRecord | undefined>(undefined);
  return (
    <section class="card wide" aria-label="Devices">
      <Failure error={polled.error.value} />
      {polled.data.value && !polled.error.value && devices.length === 0 && (
        <p class="soft">No device with an id has read this session.</p>
      )}
      {devices.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">Device</th>
              <th scope="col">User</th>
              <th scope="col">State</th>
              <th scope="col" class="number">
                Delivered
              </th>
              <th scope="col" class="number">
                Seen
              </th>
              <th scope="col" class="number">
                Not seen
              </th>
              <th scope="col">Not delivered</th>
              <th scope="col">Position</th>
            </tr>
          </thead>
          <tbody>
            {devices.map((one) => (
              <Row
                key={nameOf(one)}
                name={name}
                one={one}
                end={end}
                trace={traces.get(nameOf(one)) ?? []}
                done={polled.refresh}
                follow={() => (traced.value = one)}
              />
            ))}
          </tbody>
        </table>
      )}
      {traced.value && (
        <Trace
          name={name}
          user={traced.value.user}
          device={traced.value.device}
          close={() => (traced.value = undefined)}
        />
      )}
    </section>
  );
}

/** How many events each device had not been sent, at each of the last answers. */
function useTraces(devices: readonly DeviceRecord[], end: number): ReadonlyMap<string, readonly number[]> {
  const traces = useRef(new Map<string, number[]>());
  const last = useRef(devices);
  if (last.current !== devices) {
    last.current = devices;
    for (const one of devices) {
      const trace = traces.current.get(nameOf(one)) ?? [];
      trace.push(Math.max(0, end - offsetIn(one.delivered)));
      traces.current.set(nameOf(one), trace.slice(-TRACED));
    }
  }
  return traces.current;
}

function nameOf({ user, device }: DeviceRecord): string {
  return `${user}\n${device}`;
}

interface RowOf {
  readonly name: string;
  readonly one: DeviceRecord;
  readonly end: number;
  readonly trace: readonly number[];
  readonly done: () => void;
  readonly follow: () => void;
}

function Row({ name, one, end, trace, done, follow }: RowOf) {
  const error = useSignal<WakelineError | undefined>(undefined);
  const act = async (work: () => Promise<unknown>) => {
    error.value = undefined;
    try {
      await work();
      done();
    } catch (thrown) {
      error.value = thrown as WakelineError;
    }
  };
  const path = sessionPath(name, "devices", one.device);
  const query = { user: one.user || undefined };
  return (
    <tr data-device={one.device}>
      <th scope="row">
        <bdi>{one.device}</bdi>
      </th>
      <td>
        <bdi>{one.user}</bdi>
      </td>
      <td>
        <span class={one.connected ? "badge good" : "badge quiet"}>
          {one.connected ? one.transports.join(", ") || "connected elsewhere" : `left ${ago(one.last_active)}`}
        </span>
      </td>
      <td class="number">{offsetOf(one.delivered)}</td>
      <td class="number">{offsetOf(one.seen)}</td>
      <td class="number">{count(one.lag)}</td>
      <td>
        <Spark values={trace} label={`${count(trace.at(-1) ?? 0)} events not delivered`} />
      </td>
      <td>
        <form
          class="line"
          onSubmit={(event) => {
            event.preventDefault();
            const offset = Number(new FormData(event.currentTarget).get("offset"));
            void act(async () => {
              const { epoch } = await call<{ epoch: string }>("GET", sessionPath(name));
              return call("PUT", path, { query, body: { seen: `${epoch}-${offset}` } });
            });
          }}
        >
          <input
            name="offset"
            type="number"
            min={0}
            max={end}
            class="seek"
            aria-label={`The next offset that ${one.device} has not seen`}
            required
          />
          <button type="submit" title="Positions only grow: forget the device to begin again">
            Set
          </button>
          <button type="button" onClick={() => void act(() => call("DELETE", path, { query }))}>
            Forget
          </button>
          <button type="button" onClick={follow}>
            Trace
          </button>
        </form>
        <Failure error={error.value} />
      </td>
    </tr>
  );
}

function offsetOf(cursor: string | null): string {
  return cursor === null ? "–" : count(offsetIn(cursor));
}

/** The offset in a cursor of this gateway; 0 for none. */
function offsetIn(cursor: string | null): number {
  return Number(cursor?.split("-")[1] ?? 0);
}
