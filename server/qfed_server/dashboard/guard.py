"""What every answer of the dashboard carries, and which requests get none: the edge towards browsers.

Host     only names of this machine's loopback, and those the operator allows: a page elsewhere whose name was made to
         point here (DNS rebinding) is refused. Readers with the metrics token are no browsers and may use any name.
Origin   a POST comes from our own pages: its Origin is the Host it was sent to.
Headers  a content-security policy without inline script or style, no framing, no caching, no referrer to others.
Body     at most 64 kB.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
LARGEST_BODY = 64_000
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not "no-referrer": with that a browser sends a form's Origin as null
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), usb=()",
    "Cache-Control": "no-store",
}


class Guard:
    """Starlette middleware around the whole dashboard; `machines` lists paths that take any Host."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), machines: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._machines = frozenset(machines)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and put the headers on the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in self._machines and _name(host) not in self._hosts:
            return PlainTextResponse(
                "421: this dashboard answers to localhost only; other names have to be allowed (--allow-host)\n", 421
            )
        if scope["method"] in {"GET", "HEAD"}:
            return None
        if scope["method"] != "POST":
            return PlainTextResponse("405: GET and POST only\n", 405)
        if not _own(headers, host):
            return PlainTextResponse("403: a form is taken from the dashboard's own pages only\n", 403)
        if not headers.get("content-length", "").isdigit() or int(headers["content-length"]) > LARGEST_BODY:
            return PlainTextResponse(f"413: at most {LARGEST_BODY} bytes\n", 413)
        return None


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _own(headers: Headers, host: str) -> bool:
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site") == "same-origin"
    parts = urlsplit(origin)
    return parts.scheme in {"http", "https"} and parts.netloc == host
