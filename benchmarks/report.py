"""What the run found: tables to read, and a file to compare with the next run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.phase import Phase
from benchmarks.processes import ALL_CORES
from benchmarks.systems import System

LEAST_SHARE_OF_LIMIT = 0.7
MOST_SHARE_OF_RELAY = 0.5
NOISE = 0.3  # of a core
COMPARED_DEVICES = 1000  # where the latency target is judged

Cell = tuple[str, int]  # system, devices


@dataclass
class Results:
    """The phases of every system, number of devices and round."""

    titles: dict[str, str] = field(default_factory=dict)
    rounds: dict[Cell, dict[int, dict[str, Phase]]] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)

    def add(self, kind: type[System], devices: int, number: int, phases: dict[str, Phase]) -> None:
        self.titles[kind.key] = kind.title
        self.rounds.setdefault((kind.key, devices), {})[number] = phases

    def fail(self, kind: type[System], devices: int, error: Exception) -> None:
        self.titles[kind.key] = kind.title
        self.failures[kind.key, devices] = str(error)

    def values(self, cell: Cell, phase: str, figure: Callable[[Phase], float]) -> list[float]:
        return [figure(phases[phase]) for phases in self.rounds.get(cell, {}).values()]

    def ratios(self, over: Cell, under: Cell, phase: str, figure: Callable[[Phase], float]) -> list[float]:
        """The ratio of two systems, round by round: what disturbs the machine in a round disturbs both."""
        left, right = self.rounds.get(over, {}), self.rounds.get(under, {})
        return [figure(left[number][phase]) / figure(right[number][phase]) for number in left if number in right]


def spread(values: list[float], form: str) -> str:
    """The median, and the smallest and largest of all rounds."""
    if not values:
        return "-"
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} [{min(values):{form}}–{max(values):{form}}]"


def table(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = ["  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)) for row in [heads, *rows]]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def print_tables(results: Results) -> None:
    server, load = ALL_CORES[0], ALL_CORES[-1]
    print(
        f"\nServers on core {server}; the load (publisher and all devices, one process) on core {load}; Redis on any."
    )
    print("Medians of all rounds, [smallest–largest]. What each column means: benchmarks/README.md")
    print(quiet(results))
    for devices in sorted({devices for _, devices in results.rounds}):
        keys = [key for key in results.titles if (key, devices) in results.rounds]
        print(f"\n{devices} devices: from publish to device, milliseconds")
        print(latency_table(results, keys, devices))
        print(f"\n{devices} devices: what a delivery costs the server's core")
        print(price_table(results, keys, devices))
    print("\nWhat one event costs the server's core: to take it in, and for each device")
    for line in costs(results):
        print("  " + line)
    print("\nTargets")
    for line in targets(results):
        print("  " + line)
    print("\nDid every device get every event, in order?")
    for line in integrity(results):
        print("  " + line)
    for (key, devices), message in results.failures.items():
        print(f"\nNOT MEASURED: {results.titles[key]}, {devices} devices: {message}")


def quiet(results: Results) -> str:
    """Tells whether something else kept the cores busy, which spoils latencies first."""
    phases = [phase for rounds in results.rounds.values() for one in rounds.values() for phase in one.values()]
    used = sorted(phase.others_cpu / phase.seconds for phase in phases)
    if not used:
        return ""
    verdict = "quiet" if used[-1] < NOISE else "NOT QUIET: run it again when nothing else does"
    return f"What else ran took {statistics.median(used):.2f} of a core, at most {used[-1]:.2f}: {verdict}."


def latency_table(results: Results, keys: list[str], devices: int) -> str:
    phases = [name for name in next(iter(results.rounds[keys[0], devices].values())) if name.startswith("latency")]
    heads = ["system"]
    for name in phases:
        rate = name.removeprefix("latency_")
        heads += [f"p50 at {rate}/s", f"p99 at {rate}/s", f"core at {rate}/s"]
    rows = []
    for key in keys:
        row = [results.titles[key]]
        for name in phases:
            row.append(spread(results.values((key, devices), name, lambda phase: phase.p50), ".2f"))
            row.append(spread(results.values((key, devices), name, lambda phase: phase.p99), ".2f"))
            loads = results.values((key, devices), name, lambda phase: phase.server_load)
            row.append(format(statistics.median(loads), ".0%"))
        rows.append(row)
    return table(heads, rows)


def price_table(results: Results, keys: list[str], devices: int) -> str:
    heads = ["system", "deliveries/CPU-s, paced", "core", "events/s", "writes each"]
    heads += ["saturated: deliveries/s", "deliveries/CPU-s", "writes/CPU-s", "beside, CPU-s/s"]
    figures: list[tuple[str, Callable[[Phase], float], str]] = [
        ("price", lambda phase: phase.per_cpu_second, ",.0f"),
        ("price", lambda phase: phase.server_load, ".0%"),
        ("price", lambda phase: phase.published / phase.seconds, ",.0f"),
        ("price", lambda phase: phase.writes_each, ".2f"),
        ("saturated", lambda phase: phase.delivered / phase.seconds, ",.0f"),
        ("saturated", lambda phase: phase.per_cpu_second, ",.0f"),
        ("saturated", lambda phase: phase.writes / phase.server_cpu, ",.0f"),
        ("saturated", lambda phase: phase.beside_cpu / phase.seconds, ".2f"),
    ]
    rows = []
    for key in keys:
        row = [results.titles[key]]
        for name, figure, form in figures:
            values = results.values((key, devices), name, figure)
            row.append(spread(values, form) if len(row) == 1 else format(statistics.median(values), form))
        rows.append(row)
    return table(heads, rows)


def costs(results: Results) -> list[str]:
    """Splits the price of an event with the help of two numbers of devices: one equation each, two unknowns."""
    sizes = sorted({devices for _, devices in results.rounds})
    few, many = sizes[0], sizes[-1]
    lines = []
    for key, title in results.titles.items():
        small, large = results.rounds.get((key, few), {}), results.rounds.get((key, many), {})
        pairs = [(small[number]["price"], large[number]["price"]) for number in small if number in large]
        if few == many or not pairs:
            continue
        each = [(right.event_cpu - left.event_cpu) / (many - few) for left, right in pairs]
        once = [left.event_cpu - few * cost for (left, _), cost in zip(pairs, each, strict=True)]
        # A little below nothing is noise; far below, a device costs more the more there are.
        if statistics.median(once) < -0.3 * few * statistics.median(each):
            lines.append(f"{title:40} grows faster than the number of devices")
            continue
        lines.append(
            f"{title:40} {spread([max(0.0, cost) * 1e6 for cost in once], '.0f')} µs an event,"
            f" {spread([cost * 1e6 for cost in each], '.2f')} µs a device"
        )
    return lines or ["not told: it takes two numbers of devices"]


def targets(results: Results) -> list[str]:
    lines = []
    for devices in sorted({devices for _, devices in results.rounds}):
        for key in ("limit", "python_limit"):
            for phase, how in (("price", "an event a write"), ("saturated", "as it batches when saturated")):
                shares = results.ratios(("wakeline", devices), (key, devices), phase, lambda p: p.per_cpu_second)
                if shares:
                    verdict = "met" if statistics.median(shares) >= LEAST_SHARE_OF_LIMIT else "MISSED"
                    lines.append(
                        f"{verdict:6} deliveries per CPU-second at {devices} devices, {how}, Wakeline to"
                        f" {results.titles[key]!r}: {spread(shares, '.2f')}, target at least {LEAST_SHARE_OF_LIMIT}"
                    )
    mine = ("wakeline", COMPARED_DEVICES)
    for key in ("relay", "shared_relay"):
        for name in [name for name in next(iter(results.rounds.get(mine, {0: {}}).values())) if "latency" in name]:
            shares = results.ratios(mine, (key, COMPARED_DEVICES), name, lambda phase: phase.p50)
            if shares:
                verdict = "met" if statistics.median(shares) <= MOST_SHARE_OF_RELAY else "MISSED"
                what = f"p50 at {COMPARED_DEVICES} devices and {name.removeprefix('latency_')} events/s"
                lines.append(
                    f"{verdict:6} {what}, Wakeline to {results.titles[key]!r}: {spread(shares, '.2f')},"
                    f" target at most {MOST_SHARE_OF_RELAY}"
                )
    return lines or ["not judged: Wakeline and what it is compared with must both be measured"]


def integrity(results: Results) -> list[str]:
    lines = []
    for (key, devices), rounds in results.rounds.items():
        phases = [phase for one in rounds.values() for phase in one.values()]
        lost, twice = sum(phase.missing for phase in phases), sum(phase.duplicates for phase in phases)
        breaks = sum(phase.breaks for phase in phases)
        verdict = "yes" if not lost + twice + breaks else "NO "
        expected = sum(phase.published for phase in phases) * devices
        lines.append(
            f"{verdict} {results.titles[key]}, {devices} devices: {expected:,} deliveries due, {lost:,} missing,"
            f" {twice:,} twice, {breaks:,} breaks in the order of offsets"
        )
    return lines


def write_json(results: Results, path: Path) -> Path:
    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    packages = ("wakeline", "aiohttp", "uvloop", "fastapi", "starlette", "uvicorn", "httptools", "redis", "hiredis")
    content = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": len(ALL_CORES), "kernel": platform.release(), "load": os.getloadavg()},
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "targets": targets(results),
        "failures": {f"{key}, {devices}": message for (key, devices), message in results.failures.items()},
        "rounds": [
            {"system": key, "devices": devices, "round": number, "phases": {n: asdict(p) for n, p in phases.items()}}
            for (key, devices), rounds in results.rounds.items()
            for number, phases in rounds.items()
        ],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
