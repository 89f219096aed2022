"""Which session a workflow names itself."""

from __future__ import annotations

from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.converter import DataConverter

SESSION_MEMO: Final = "wakeline.session"
SESSION_ATTRIBUTE: Final = "WakelineSession"


async def session_of(info: WorkflowExecutionInfo, converter: DataConverter | None) -> str | None:
    """Return the session that a workflow names by its memo or a search attribute, if any."""
    memo = info.memo.fields.get(SESSION_MEMO)
    if memo is not None:
        named = await _decoded(memo, converter or DataConverter.default)
        if named is not None:
            return named
    attribute = info.search_attributes.indexed_fields.get(SESSION_ATTRIBUTE)
    return None if attribute is None else await _decoded(attribute, DataConverter.default)


async def _decoded(payload: Payload, converter: DataConverter) -> str | None:
    try:
        (value,) = await converter.decode([payload])
    except Exception:  # noqa: BLE001 - encrypted, or made by a converter of its own: then it names nothing to us
        return None
    return value if isinstance(value, str) and value else None
