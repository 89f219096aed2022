/** A chart of the last minutes. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock } from "../format.ts";
import { paletteOf } from "../session/colours.ts";
import { minuteOf } from "./metrics.ts";

export interface Line {
  readonly label: string;
  /** The name of its colour. */
  readonly colour: string;
  readonly values: readonly (number | null)[];
}

const second = (at: number): string => clock(new Date(at * 1000).toISOString()).slice(0, 8);

export function Chart({
  title,
  times,
  lines,
  least,
  show,
}: {
  title: string;
  times: readonly number[];
  lines: readonly Line[];
  /** The least value that the axis has room for. */
  least: number;
  show: (value: number) => string;
}) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const data = [[...times], ...lines.map(({ values }) => [...values])] as uPlot.AlignedData;

  useEffect(() => {
    const { current } = box;
    if (!current) return;
    const make = () => {
      plot.current?.destroy();
      const palette = paletteOf(current);
      const axis = {
        stroke: palette.of("soft"),
        grid: { stroke: palette.of("line"), width: 1 },
        ticks: { show: false },
      };
      plot.current = new uPlot(
        {
          width: Math.max(200, current.clientWidth),
          height: 180,
          legend: { show: false },
          cursor: { show: false },
          series: [{}, ...lines.map(({ colour }) => ({ stroke: palette.of(colour), width: 2, spanGaps: true }))],
          axes: [
            { ...axis, size: 26, space: 80, values: (_, ticks) => ticks.map(second) },
            { ...axis, size: 64, values: (_, ticks) => ticks.map(show) },
          ],
          scales: {
            // uPlot itself would show a day for one value.
            x: { range: ({ data: [at] }) => minuteOf(at[0], at.at(-1), Date.now() / 1000) },
            y: { range: (_, __, most) => [0, Math.max(most ?? 0, least) * 1.1] },
          },
        },
        data,
        current,
      );
    };
    make();
    const observer = new ResizeObserver(() => {
      plot.current?.setSize({ width: Math.max(200, current.clientWidth), height: 180 });
    });
    observer.observe(current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    return () => {
      observer.disconnect();
      dark.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(data));

  return (
    <section class="card chart" aria-label={title}>
      <h2>{title}</h2>
      <ul class="line legend">
        {lines.map(({ label, colour, values }) => {
          const last = values.at(-1);
          return (
            <li key={label}>
              <span class={`key ${colour}`} aria-hidden="true" /> {label}{" "}
              <strong>{last === null || last === undefined ? "–" : show(last)}</strong>
            </li>
          );
        })}
      </ul>
      <div ref={box} aria-hidden="true" />
    </section>
  );
}
