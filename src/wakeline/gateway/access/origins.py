"""Checks the origins and headers of the settings.

Browsers send an origin in one spelling; another spelling in the settings would never match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from wakeline.errors import SettingsInvalidError
from wakeline.gateway.settings import is_loopback

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_HEADER: Final = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_EXAMPLE: Final = (
    "Name each origin whose pages may call, such as https://app.example or http://localhost:3000. "
    "There is no wildcard: these pages act with their visitors' cookies."
)


def check_origins(origins: Iterable[str]) -> frozenset[str]:
    """Return the origins if a browser can send each of them.

    Raises:
        SettingsInvalidError: A browser sends one of them in another spelling or never; the hint shows the right one.
    """
    checked = frozenset(origins)
    for text in checked:
        written = _as_browsers_write(text)
        if written != text:
            hint = _EXAMPLE if written is None else f"Write {written} instead."
            raise SettingsInvalidError(
                f"expected origins as browsers send them in cors_origins, got {text!r}", hint=hint
            )
    return checked


def check_headers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of headers if each is valid.

    Raises:
        SettingsInvalidError: A name is not valid. `*` is not valid either, because browsers refuse it with credentials.
    """
    checked = tuple(names)
    for name in checked:
        if _HEADER.fullmatch(name) is None:
            raise SettingsInvalidError(
                f"expected header names in cors_headers, got {name!r}",
                hint="Name each header, such as X-Request-Id.",
            )
    return checked


def _as_browsers_write(text: str) -> str | None:
    """Return the browser's spelling (scheme, host, port unless default); None if there is none."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "", text.strip()
    address = re.split(r"[/?#]", rest)[0].lower()
    if not scheme:
        scheme = "http" if is_loopback(address.rpartition(":")[0] or address) else "https"
    address = address.removesuffix(_DEFAULT_PORTS.get(scheme.lower(), "/"))
    if not address.isascii():
        try:
            address = address.encode("idna").decode()
        except UnicodeError:
            return None
    origin = f"{scheme.lower()}://{address}"
    return origin if _ORIGIN.fullmatch(origin) and address != "null" else None
