"""The pages of answer links: each is whole in itself, without scripts or other resources."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Final

import msgspec
from aiohttp import hdrs, web

from wakeline.gateway.sessions import InputRequest, Resolved

_STYLE: Final = """
:root { color-scheme: light dark; --back: #f6f7f9; --card: #fff; --text: #16181d; --dim: #575d69; --line: #d5d9e0;
  --strong: #1a56c4; --on-strong: #fff; --focus: #1a56c4 }
@media (prefers-color-scheme: dark) { :root { --back: #101216; --card: #1a1d23; --text: #eceef2; --dim: #a2a9b6;
  --line: #363c47; --strong: #8ab4ff; --on-strong: #0b1220; --focus: #8ab4ff } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif }
main { width: 100%; max-width: 30rem; padding: 1.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; overflow-wrap: anywhere }
h1 { margin: 0 0 .75rem; font-size: 1.25rem; line-height: 1.35; white-space: pre-wrap }
p { margin: .25rem 0; color: var(--dim) }
p.state { margin: 1rem 0 0; color: var(--text); font-weight: 600 }
form { display: grid; gap: .75rem; margin-top: 1.25rem }
button { min-height: 3rem; padding: .6rem 1rem; font: inherit; font-weight: 600; color: var(--on-strong);
  background: var(--strong); border: 1px solid var(--strong); border-radius: .5rem; cursor: pointer;
  overflow-wrap: anywhere }
button ~ button { color: var(--text); background: none; border-color: var(--line) }
button:hover { filter: brightness(1.1) }
button:focus-visible { outline: 3px solid var(--focus); outline-offset: 3px }
"""
_STYLE_HASH: Final = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # With no-referrer, browsers send the form with `Origin: null`, as another site's page would.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1 dir="auto">{heading}</h1>
{body}
</main>
</body>
</html>
"""


def page(
    heading: str,
    lines: Sequence[str],
    *,
    state: str = "",
    form: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Return a page.

    Args:
        heading: Its heading, as plain text.
        lines: Its lines, as plain text.
        state: A last line with the state of the request.
        form: The HTML of its form.
        status: The status of the answer.
        headers: Further headers.
    """
    parts = [f'<p dir="auto">{escape(line)}</p>' for line in lines]
    if state:
        parts.append(f'<p class="state" role="status" dir="auto">{escape(state)}</p>')
    text = _PAGE.format(
        title="Wakeline: a question for you", style=_STYLE, heading=escape(heading), body="\n".join([*parts, form])
    )
    return web.Response(
        body=text.encode(errors="replace"),
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers={**_HEADERS, **(headers or {})},
    )


def request_page(request: InputRequest, user: str, status: int) -> web.Response:
    """Return the page of a request for input, with a form as long as the user can answer it.

    Args:
        request: The request.
        user: The user of the link.
        status: The status of the answer.
    """
    asked = request.requested
    heading = asked.message or f"Input is requested: {asked.reason}"
    lines = [f"For {user}", f"From {request.session}"]
    if request.resolved is not None:
        return page(heading, lines, state=_outcome(request.resolved), status=status)
    given = next((each for each in request.answers if each.by == user), None)
    if given is not None:
        state = f"You have answered: {_words(given.payload)}. Other people are asked, too."
        return page(heading, lines, state=state, status=status)
    if asked.expires_at is not None:
        lines.append(f"Until {asked.expires_at[:16].replace('T', ' ')} UTC")
    if asked.needs > 1:
        lines.append(f"{asked.needs} people have to give the same answer; {len(request.answers)} answered so far")
    return page(heading, lines, form=_form(asked.choices or []), status=status)


def _form(choices: Sequence[str]) -> str:
    """Return a form with one button for each choice.

    Its values are the numbers of the choices, because browsers change line ends in values.
    """
    buttons = [
        f'<button name="choice" value="{number}" dir="auto">{escape(choice)}</button>'
        for number, choice in enumerate(choices)
    ]
    return '<form method="post">\n' + "\n".join(buttons) + "\n</form>"


def _outcome(resolved: Resolved) -> str:
    match resolved.status:
        case "resolved":
            by = f", by {resolved.by}" if resolved.by else ""
            return f"Answered: {_words(resolved.payload)}{by}"
        case "cancelled":
            return "No answer is needed any more: it was cancelled."
        case "expired":
            return "The time to answer is over."


def _words(payload: object) -> str:
    """Return an answer for people: a choice as it is, anything else as JSON."""
    if not isinstance(payload, msgspec.Raw):
        return "no value"
    value = msgspec.json.decode(payload)
    return value if isinstance(value, str) else bytes(payload).decode(errors="replace")
