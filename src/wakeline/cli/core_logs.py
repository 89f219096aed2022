"""The log lines of the Temporal SDK's core, as lines of the gateway's own log.

By itself the core writes to stderr, in a form of its own with colours, which no collector of JSON lines reads.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import structlog
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig

_CLIENT: Final = "temporalio_client"
# The targets of TelemetryFilter, with the level at which the SDK logs them by default, except for the client's.
_OTHERS: Final = "error,temporalio_common=warn,temporalio_sdk_core=warn,temporalio_sdk=warn,temporal_sdk_bridge=warn"
_log = structlog.get_logger(__name__)


def forward_core_logs(level: str) -> None:
    """Send the core's log lines to this process's log, before any Temporal client is made.

    During an outage the client warns of each call that is retried, which would bury the gateway's one line about it. So these
    warnings are debug lines, and the core makes them only if those are logged.

    Args:
        level: The least severe lines to log: `debug`, `info`, `warning` or `error`.
    """
    logger = logging.Logger("temporalio")  # not one of the process's: no other handler repeats its lines
    logger.addHandler(Forwarding())
    client = "warn" if level == "debug" else "error"
    config = LoggingConfig(filter=f"{_OTHERS},{_CLIENT}={client}", forwarding=LogForwardingConfig(logger))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=config)), error_if_already_set=False)


class Forwarding(logging.Handler):
    """Logs the core's records as lines with fields."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; it has the core's entry as `temporal_log`."""
        entry: Any = record.__dict__["temporal_log"]
        is_retry = entry.target.startswith(_CLIENT) and record.levelno <= logging.WARNING
        fields = {name: str(value) for name, value in entry.fields.items() if name not in _TAKEN}
        _log.log(logging.DEBUG if is_retry else record.levelno, entry.message, target=entry.target, **fields)


_TAKEN: Final = ("event", "level", "target", "timestamp")
"""Members of a line that a field of the core must not replace."""
