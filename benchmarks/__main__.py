"""`make bench`: Wakeline, the usual relay and the limit of the machine, measured side by side in one run."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Load, LoadError
from benchmarks.phase import Phase
from benchmarks.processes import LOAD_CORE, StartError
from benchmarks.report import Results, print_tables, write_json
from benchmarks.systems import SYSTEMS, SendLoop, System

LATENCY_RATES = (10, 50)  # events a second
TARGET_LOAD = 0.75  # of the server's core, while the price of a delivery is measured
PACED_WINDOW = 2  # events on their way at once: a device that is read late must not make the kernel join two writes
SATURATED_WINDOW = 8


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    devices: tuple[int, ...]
    rounds: int
    latency_seconds: float
    price_seconds: float
    saturated_seconds: float


FULL = Plan((100, 1000), 3, 8.0, 5.0, 3.0)
QUICK = Plan((100, 1000), 1, 3.0, 2.0, 1.5)


def measure(system: System, plan: Plan, pace: float | None, say: Say) -> tuple[dict[str, Phase], float]:
    """Runs all phases against one freshly started system."""
    load: Load | None = None
    phases: dict[str, Phase] = {}
    try:
        load = Load(system.start())
        load.publish_first()
        load.connect(system.devices, system.server.port, system.request)
        load.synchronise()
        for rate in LATENCY_RATES:
            say(f"latency at {rate} events/s")
            phases[f"latency_{rate}"] = load.run(plan.latency_seconds, system.cpu, rate=rate)
        if pace is None:
            say("finding the pace")
            pace = find_pace(load, system, phases[f"latency_{LATENCY_RATES[-1]}"])
        say(f"price of a delivery at {pace:.0f} events/s")
        phases["price"] = load.run(plan.price_seconds, system.cpu, rate=pace, in_flight=1, window=PACED_WINDOW)
        say("saturated")
        phases["saturated"] = load.run(
            plan.saturated_seconds, system.cpu, in_flight=SATURATED_WINDOW, window=SATURATED_WINDOW
        )
    except (LoadError, OSError) as error:
        raise LoadError(f"{error}{system.last_words()}") from error
    finally:
        if load is not None:
            load.close()
        system.stop()
    return phases, pace


def find_pace(load: Load, system: System, seen: Phase) -> float:
    """Events a second that load the server's core to three quarters: guessed from what was seen, corrected twice."""
    pace = TARGET_LOAD / seen.event_cpu
    for _ in range(2):
        tried = load.run(1.0, system.cpu, rate=pace, in_flight=1, window=PACED_WINDOW)
        pace = TARGET_LOAD / tried.event_cpu
    return pace


class Say:
    """Tells how far the run is."""

    def __init__(self, steps: int) -> None:
        self._steps, self._step, self._what, self._started = steps, 0, "", time.monotonic()

    def begin(self, what: str) -> None:
        self._step += 1
        self._what = what
        self("starting")

    def __call__(self, doing: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        where = f"[{minutes}:{seconds:02d}] {self._step}/{self._steps} {self._what}"
        print(f"{where}: {doing}", file=sys.stderr, flush=True)


def run(plan: Plan, only: list[str]) -> Results:
    results = Results()
    systems = [system for system in SYSTEMS if not only or system.key in only]
    paces: dict[tuple[str, int], float] = {}
    say = Say(plan.rounds * len(plan.devices) * len(systems))
    with tempfile.TemporaryDirectory(prefix="wakeline-bench-") as folder:
        SendLoop.prepare(Path(folder))
        for number in range(plan.rounds):
            for devices in plan.devices:
                for kind in systems:
                    say.begin(f"round {number + 1}, {devices} devices, {kind.title}")
                    with tempfile.TemporaryDirectory(dir=folder) as own:
                        system = kind(Path(own), devices)
                        try:
                            phases, pace = measure(system, plan, paces.get((kind.key, devices)), say)
                        except (StartError, LoadError, OSError) as error:
                            say(f"failed: {error}")
                            results.fail(kind, devices, error)
                            continue
                    paces[kind.key, devices] = pace
                    results.add(kind, devices, number, phases)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: under two minutes, coarse figures")
    parser.add_argument("--rounds", type=int, help="how often each system is measured")
    parser.add_argument("--only", nargs="*", default=[], help="systems: " + " ".join(kind.key for kind in SYSTEMS))
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = Plan(plan.devices, arguments.rounds, plan.latency_seconds, plan.price_seconds, plan.saturated_seconds)
    # A device is one file on either side, and in the relay one more.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, LOAD_CORE)
    results = run(plan, arguments.only)
    print_tables(results)
    print(f"\nwritten to {write_json(results, Path(__file__).parent / 'results' / 'latest.json')}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
