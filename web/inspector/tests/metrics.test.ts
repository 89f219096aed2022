import { expect, it } from "vitest";
import { minuteOf, parseMetrics, quantileOf, rateOf, sumOf } from "../src/gateway/metrics.ts";

const histogram = (low: number, high: number, all: number) =>
  `# HELP x y\nt_bucket{le="0.1"} ${low}\nt_bucket{le="0.5"} ${high}\nt_bucket{le="+Inf"} ${all}\n`;

it("sums samples over their labels", () => {
  const scrape = parseMetrics('a_total{code="x y"} 2.0\na_total{code="z"} 3.0\na_total_created 9.0\n', 0);
  expect([sumOf(scrape, "a_total"), sumOf(scrape, "b")]).toEqual([5, undefined]);
});

it("gives the rate between two scrapes, and none after a restart", () => {
  const before = parseMetrics("a_total 10.0\n", 1000);
  expect(rateOf(before, parseMetrics("a_total 30.0\n", 3000), "a_total")).toBe(10);
  expect(rateOf(before, parseMetrics("a_total 1.0\n", 3000), "a_total")).toBe(0);
  expect(rateOf(undefined, before, "a_total")).toBeUndefined();
});

it("gives quantiles of what came between two scrapes", () => {
  const before = parseMetrics(histogram(100, 100, 100), 0);
  const now = parseMetrics(histogram(150, 200, 200), 1);
  expect(quantileOf(before, now, "t", 0.5)).toBeCloseTo(0.1);
  expect(quantileOf(before, now, "t", 0.75)).toBeCloseTo(0.3);
  expect(quantileOf(before, parseMetrics(histogram(100, 100, 101), 1), "t", 0.99)).toBe(0.5);
  expect(quantileOf(now, now, "t", 0.5)).toBeUndefined();
});

it("has room for a minute, also with one value or none", () => {
  expect(minuteOf(undefined, undefined, 1000)).toEqual([940, 1000]);
  expect(minuteOf(500, 500, 1000)).toEqual([440, 500]);
  expect(minuteOf(100, 500, 1000)).toEqual([100, 500]);
});
