"""The data converter that the settings name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from temporalio.converter import DataConverter, PayloadCodec

from wakeline.errors import SettingsInvalidError


def load_converter(spec: str) -> DataConverter:
    """Return the data converter at `MODULE:ATTRIBUTE`.

    The attribute is a converter, a payload codec, or a function that returns either.

    The working directory is looked in last.

    Raises:
        SettingsInvalidError: There is none.
    """
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise SettingsInvalidError(f"expected MODULE:ATTRIBUTE in data_converter, got {spec!r}")
    if (directory := str(Path.cwd())) not in sys.path:
        sys.path.append(directory)
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
        if callable(found) and not isinstance(found, (DataConverter, PayloadCodec)):
            found = found()
    except Exception as error:
        raise SettingsInvalidError(f"data_converter {spec!r} cannot be loaded: {error!r}") from error
    if isinstance(found, PayloadCodec):
        return DataConverter(payload_codec=found)
    if not isinstance(found, DataConverter):
        raise SettingsInvalidError(
            f"expected a DataConverter or a PayloadCodec at {spec!r} in data_converter, got {type(found).__name__}"
        )
    return found
