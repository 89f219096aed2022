/** Prometheus's text format, and what two scrapes say about the time between them. */

export interface Scrape {
  readonly at: number;
  /** Samples by their name and labels, as they stand in the text. */
  readonly samples: ReadonlyMap<string, number>;
}

export function parseMetrics(text: string, at: number): Scrape {
  const samples = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const space = line.lastIndexOf(" ");
    samples.set(line.slice(0, space), Number(line.slice(space + 1).replace("+Inf", "Infinity")));
  }
  return { at, samples };
}

/** The sum of a metric's samples, whatever their labels; `undefined` if there is none. */
export function sumOf({ samples }: Scrape, name: string): number | undefined {
  let sum: number | undefined;
  for (const [key, value] of samples) {
    if (key === name || key.startsWith(`${name}{`)) sum = (sum ?? 0) + value;
  }
  return sum;
}

/** How much a counter grew in a second; 0 after a restart, which begins it again. */
export function rateOf(before: Scrape | undefined, now: Scrape, name: string): number | undefined {
  if (!before) return undefined;
  const grown = (sumOf(now, name) ?? 0) - (sumOf(before, name) ?? 0);
  return Math.max(0, grown) / Math.max(0.001, (now.at - before.at) / 1000);
}

/** A quantile, in seconds, of what a histogram has counted between two scrapes; `undefined` if that is nothing. */
export function quantileOf(before: Scrape | undefined, now: Scrape, name: string, part: number): number | undefined {
  const buckets: [number, number][] = [];
  for (const [key, value] of now.samples) {
    const limit = key.startsWith(`${name}_bucket{`) ? /le="([^"]+)"/.exec(key)?.[1] : undefined;
    if (limit === undefined) continue;
    buckets.push([Number(limit.replace("+Inf", "Infinity")), value - (before?.samples.get(key) ?? 0)]);
  }
  buckets.sort((one, other) => one[0] - other[0]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return undefined;
  const wanted = part * total;
  let [least, passed] = [0, 0];
  for (const [limit, count] of buckets) {
    if (count >= wanted) {
      if (limit === Number.POSITIVE_INFINITY) return least;
      // As Prometheus does: evenly within the bucket.
      return least + (limit - least) * ((wanted - passed) / Math.max(1, count - passed));
    }
    [least, passed] = [limit, count];
  }
  return least;
}

/** The seconds that a chart shows of its values: a minute at least, which ends with the last one. */
export function minuteOf(first: number | undefined, last: number | undefined, now: number): [from: number, to: number] {
  const to = last ?? now;
  return [Math.min(first ?? to, to - 60), to];
}
