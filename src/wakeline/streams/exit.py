"""Programs that have read a stream come to their end.

When Python ends, it lets no thread but the main one go on, and the SDK's runtime waits for its threads before it goes. One
that is about to hand over the answer of a call never does, and the program hangs for ever. Readers leave many such
calls: those that are cancelled when a reader is done are answered as well. https://github.com/temporalio/sdk-python/issues/300
"""

from __future__ import annotations

import ctypes
import weakref

from temporalio.client import Client
from temporalio.runtime import Runtime

_kept: weakref.WeakSet[Runtime] = weakref.WeakSet()


def keep_runtime(client: Client) -> None:
    """Keep the runtime of a client until the process is gone, so that nothing waits for its threads before.

    What the runtime would export at its very end, such as the metrics of the last second, is not exported.
    """
    runtime = client.service_client.config.runtime or Runtime.default()
    if runtime not in _kept:
        _kept.add(runtime)
        # One reference too many: Python's last collection does not touch it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
