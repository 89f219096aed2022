"""A program's end waits for the SDK's threads, and for nothing else."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import asyncio, atexit, ctypes, gc, sys, threading, time

# Registered first, so called last.
atexit.register(lambda: print("left after", time.monotonic() - began))

from wakeline.exit import end_in_order

class Holder: pass

async def main():
    end_in_order()
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    Holder.future, Holder.futures = future, [future, future]
    gc.collect()
    gc.freeze()
    if len(sys.argv) > 1:
        # Threads outside Python hold references that the collector does not know.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(future))
        threading.Thread(target=release, args=[float(sys.argv[1])], daemon=True).start()

def release(seconds):
    time.sleep(seconds)
    print("released", flush=True)
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(Holder.future))

asyncio.run(main())
began = time.monotonic()
"""


def test_a_program_ends_at_once_when_only_python_holds_futures() -> None:
    # A busy machine may hold one program up for as long as a program waits at most, hardly five of them.
    assert any(_seconds() < 2.5 for _ in range(5))


def test_a_program_waits_for_a_thread_that_holds_a_future() -> None:
    assert _output("0.3")[0] == "released"


def _seconds() -> float:
    (left,) = _output()
    return float(left.removeprefix("left after "))


def _output(*arguments: str) -> list[str]:
    program = [sys.executable, "-c", _PROGRAM, *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
