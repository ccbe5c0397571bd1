"""Who may talk to the server.

It listens on the loopback address unless it is told otherwise, and then wants a token: in the header `Authorization: Bearer
TOKEN`, in the query of a WebSocket or event stream, or in the cookie that the page's first address (?token=) sets. On
loopback the header Host must name it, so that a page of another site that points its name at this machine gets nothing (DNS
rebinding).
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from braggscope.core.errors import InputError

COOKIE = "braggscope"
LARGEST_BODY = 64 * 1024
LOCAL = ("127.0.0.1", "localhost", "[::1]")
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; connect-src 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def is_loopback(host: str) -> bool:
    """Whether an address to listen at is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def settings(host: str, port: int, token: str | None) -> dict[str, str]:
    """Where to listen, as environment of the server; a token is made up where one is needed and none is given.

    Raises InputError for a port that is none, and a token that could be guessed.
    """
    if not 0 <= port < 65536:
        raise InputError(f"--port must be between 0 and 65535, got {port}")
    if token is not None and len(token) < 16:
        raise InputError("--token must have at least 16 characters")
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    return {"BRAGGSCOPE_HOST": host, "BRAGGSCOPE_PORT": str(port), **({"BRAGGSCOPE_TOKEN": token} if token else {})}


class Guard:
    """Lets through what may talk to the application, and puts the safe headers on what comes back.

    token: None: no token is asked for, but Host must be loopback.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """An ASGI application."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(scope, receive, send, *refused)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = list(HEADERS)
                if self.token is not None and _query(scope).get("token"):
                    extra.append((b"set-cookie", f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/".encode()))
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self.app(scope, receive, guarded if scope["type"] == "http" else send)

    def _refused(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and sentence of a request that is not let through."""
        if self.token is None:
            host = headers.get("host", "").rsplit(":", 1)[0] if not headers.get("host", "").endswith("]") else headers["host"]
            if host not in LOCAL:
                return 421, f"this server answers to {', '.join(LOCAL)} alone; another address needs a token (--host, --token)"
        elif not any(hmac.compare_digest(one.encode(), self.token.encode()) for one in _offered(scope, headers)):
            return 401, "a token is needed: Authorization: Bearer TOKEN, or the page's address with ?token="
        origin = headers.get("origin")
        if origin is not None and origin.split("//", 1)[-1] != headers.get("host"):
            return 403, "requests from pages of other sites are refused"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return 413, f"a request has at most {LARGEST_BODY} bytes"
        if "transfer-encoding" in headers:
            return 411, "a request with a body must say its length"
        return None


def _offered(scope: Mapping[str, Any], headers: Mapping[str, str]) -> list[str]:
    """The tokens that a request shows."""
    found = []
    kind, _, word = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        found.append(word.strip())
    found += _query(scope).get("token", [])
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return found
    return [*found, cookies[COOKIE].value] if COOKIE in cookies else found


def _query(scope: Mapping[str, Any]) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"))


async def _answer(scope: Mapping[str, Any], receive: Any, send: Any, status: int, sentence: str) -> None:
    """Refuse."""
    import json

    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
        return
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
