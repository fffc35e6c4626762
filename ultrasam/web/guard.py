"""Who may talk to the server: no other site, no other name for this machine, no header left out."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Pictures of patients stay in no cache on a disk.
    "cache-control": "no-store",
}
UPLOADS = "/api/studies"
MOST_BYTES = 64 * 1024
_OTHER_SITE = (403, "Requests from other sites are refused; open the address that the server printed.")
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Guard:
    """ASGI middleware around the application.

    A site that has its own name resolved to this machine (DNS rebinding) still sends that name as Host, and a page of
    another site sends its Origin: both are refused before anything is read. Bodies are small, but that of a file.

    Args:
        app: the application.
        hosts: names that the server answers to besides "localhost".
        any_address: also answer to every numeric address, for a server that other machines reach.
        proxied: further names, by which a reverse proxy may be reached that speaks HTTPS.
    """

    def __init__(
        self, app: App, hosts: Iterable[str] = (), any_address: bool = False, proxied: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._proxied = {host.lower() for host in proxied}
        self._hosts = {host.lower().strip("[]") for host in (*_LOCAL, *hosts)} | self._proxied
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and sentence of a request that is refused, None where it is not."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._knows(_host_name(hosts[0])):
            return 403, "This server does not answer to that host name; open the address that it printed."
        own = [f"{scope.get('scheme', 'http')}://{hosts[0].lower()}"]
        if _host_name(hosts[0]) in self._proxied:
            own.append(f"https://{hosts[0].lower()}")
        if any(origin.lower() not in own for origin in headers.get("origin", [])):
            return _OTHER_SITE
        # Links may lead here from anywhere; nothing else may.
        site = headers.get("sec-fetch-site", ["none"])[0]
        if site not in ("none", "same-origin") and (scope["path"] != "/" or scope["method"] != "GET"):
            return _OTHER_SITE
        return None if scope["path"] == UPLOADS else _too_large(headers)

    def _knows(self, name: str) -> bool:
        if name in self._hosts:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _host_name(host: str) -> str:
    """Return the name in a Host header without port and brackets, in lower case."""
    host = host.lower().strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _too_large(headers: Mapping[str, list[str]]) -> tuple[int, str] | None:
    """Return the refusal of a body that no edit has, None where there is no such body."""
    if "transfer-encoding" in headers:
        return 411, "The request must state its length."
    length = headers.get("content-length", ["0"])[0]
    if not length.isdigit() or int(length) > MOST_BYTES:
        return 413, f"The request is too long; at most {MOST_BYTES} bytes are read here."
    return None


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = b'{"error": "' + sentence.encode() + b'"}'
    head = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    head += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
