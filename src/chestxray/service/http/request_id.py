"""The id of the request at hand: one name for it in the answer, in every problem and in the log.

A caller's own id is kept if it consists of hexadecimal digits and hyphens alone, as UUIDs and what
nginx and Envoy make do: nothing that could be a name or a date of birth gets into a log this way.

Does not: trace a request across services.
"""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

HEADER = "X-Request-ID"

_ACCEPTED = re.compile(r"[0-9A-Fa-f-]{8,64}")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set for as long as a request is handled, in its threads too; ``None`` elsewhere."""


def request_id_for(offered: str | None) -> str:
    """The id that a caller ``offered``, if it is one, or a new one."""
    if offered is not None and _ACCEPTED.fullmatch(offered):
        return offered
    return uuid.uuid4().hex
