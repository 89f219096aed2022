"""The check of inputs' arguments against the JSON Schemas of the settings."""

from __future__ import annotations

from typing import Any

import msgspec

from wakeline.errors import SchemaInvalidError, SettingsInvalidError, ValueInvalidError
from wakeline.gateway.inputs.asked import Asked
from wakeline.schemas import Schema


class Arguments:
    """Checks the arguments of inputs that have a schema.

    Args:
        schemas: The schemas of arguments, which are a JSON array, by the names that a token would allow.

    Raises:
        SettingsInvalidError: One is not a valid schema.
    """

    def __init__(self, schemas: dict[str, Any]) -> None:
        self._schemas: dict[str, Schema] = {}
        for name, schema in schemas.items():
            try:
                self._schemas[name] = Schema(schema)
            except SchemaInvalidError as error:
                raise SettingsInvalidError(f"in inputs.schemas.{name}: {error.message}", hint=error.hint) from None

    def check(self, name: str, asked: Asked) -> None:
        """Raise unless the schema of this name, if there is one, allows the arguments of an input.

        Raises:
            ValueInvalidError: It does not.
        """
        if (schema := self._schemas.get(name)) is not None:
            try:
                args = msgspec.json.decode(asked.arguments)
            except msgspec.DecodeError as error:  # JSON may have numbers that nothing can hold
                raise ValueInvalidError(f"expected args to be as their JSON Schema says, got: {error}") from None
            schema.check(args, "args")
