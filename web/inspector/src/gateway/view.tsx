/** The gateway that serves this page: what it delivers, how fast, and what it has to do. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { count, span } from "../format.ts";
import { readiness, textOf } from "../gateway.ts";
import { AsJson, Failure } from "../parts.tsx";
import { usePolled } from "../polling.ts";
import { Chart } from "./chart.tsx";
import { parseMetrics, quantileOf, rateOf, type Scrape, sumOf } from "./metrics.ts";

const EVERY_MS = 2000;
const KEPT = 150;

/** A figure for each time between two scrapes. */
interface Moment {
  readonly at: number;
  readonly values: Readonly<Record<string, number | undefined>>;
}

export function GatewayView() {
  const scrape = usePolled(async () => parseMetrics(await textOf("/metrics"), Date.now()), EVERY_MS, "metrics");
  const ready = usePolled(readiness, EVERY_MS, "ready");
  const moments = useSignal<readonly Moment[]>([]);
  const before = useSignal<Scrape | undefined>(undefined);
  const now = scrape.data.value;
  useEffect(() => {
    if (!now || now === before.peek()) return;
    const last = before.peek();
    before.value = now;
    if (last) moments.value = [...moments.peek(), momentOf(last, now)].slice(-KEPT);
  }, [now]);

  const { status, log, temporal, erasure, tasks } = ready.data.value ?? {};
  return (
    <>
      <div class="bar">
        <h1>Gateway</h1>
        {ready.error.value ? (
          <span class="badge quiet">unknown</span>
        ) : (
          status && <span class={status === "ready" ? "badge good" : "badge bad"}>{status}</span>
        )}
        <AsJson />
      </div>
      <Failure error={scrape.error.value ?? ready.error.value} />
      {status && !ready.error.value && (
        <p class="soft">
          Log: {log}. Temporal: {temporal}. Erasure: {erasure}.{tasks && ` Failing: ${tasks.join(", ")}.`}
        </p>
      )}
      {now && <Figures now={now} />}
      {now && <Charts moments={moments.value} />}
    </>
  );
}

const FIGURES: readonly (readonly [name: string, label: string])[] = [
  ["wakeline_devices_live", "live devices"],
  ["wakeline_devices_catching_up", "catching up"],
  ["wakeline_connections_open", "connections"],
  ["wakeline_runs_followed", "runs followed"],
  ["wakeline_shards_owned", "leases of 16"],
  ["wakeline_inputs_pending", "inputs without an outcome"],
];

function Figures({ now }: { now: Scrape }) {
  return (
    <dl class="figures">
      {FIGURES.map(([name, label]) => (
        <div key={name} class="card">
          <dt class="soft">{label}</dt>
          <dd>{count(sumOf(now, name) ?? 0)}</dd>
        </div>
      ))}
    </dl>
  );
}

function Charts({ moments }: { moments: readonly Moment[] }) {
  const times = moments.map(({ at }) => at / 1000);
  const line = (label: string, key: string, colour: string) => ({
    label,
    colour,
    values: moments.map(({ values }) => values[key] ?? null),
  });
  const seconds = (value: number) => span(value * 1000);
  return (
    <div class="charts">
      <Chart
        title="Events a second"
        times={times}
        least={10}
        show={(value) => count(Math.round(value))}
        lines={[line("delivered", "deliveries", "accent"), line("durable", "events", "good")]}
      />
      <Chart
        title="From publish to device"
        times={times}
        least={0.001}
        show={seconds}
        lines={[line("p50", "delivery50", "accent"), line("p99", "delivery99", "warm")]}
      />
      <Chart
        title="Of that, in the engine"
        times={times}
        least={0.001}
        show={seconds}
        lines={[line("p50", "append50", "accent"), line("p99", "append99", "warm")]}
      />
    </div>
  );
}

function momentOf(before: Scrape, now: Scrape): Moment {
  const quantile = (name: string, part: number) => quantileOf(before, now, name, part);
  return {
    at: now.at,
    values: {
      deliveries: rateOf(before, now, "wakeline_deliveries_total"),
      events: rateOf(before, now, "wakeline_events_total"),
      delivery50: quantile("wakeline_delivery_seconds", 0.5),
      delivery99: quantile("wakeline_delivery_seconds", 0.99),
      append50: quantile("wakeline_append_seconds", 0.5),
      append99: quantile("wakeline_append_seconds", 0.99),
    },
  };
}
