"""Who may talk to the server, and what else it refuses."""

from __future__ import annotations

import socket

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from braggscope.app.dashboard.security import settings
from braggscope.core.errors import InputError

TOKEN = "a-token-of-more-than-16-letters"


def test_without_a_token_only_loopback_names_are_answered(finished):
    server = finished("nanobeam", scan=False)
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example"):
        answer = httpx.get(f"{server.url}/api/v1/status", headers={"Host": host})
        assert answer.status_code == 421, host
    assert httpx.get(f"{server.url}/api/v1/status", headers={"Host": f"localhost:{server.port}"}).status_code == 200


def test_a_token_is_asked_for_everywhere(finished):
    server = finished("nanobeam", scan=False, token=TOKEN)
    for path in ("/", "/api/v1/status", "/static/style.css", "/api/v1/openapi.json"):
        assert httpx.get(f"{server.url}{path}").status_code == 401, path
        assert httpx.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
        assert httpx.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{server.port}/api/v1/updates").close()
    with connect(f"ws://127.0.0.1:{server.port}/api/v1/updates?token={TOKEN}") as one:
        assert one.recv(5)


def test_the_address_with_the_token_sets_a_cookie_and_leaves_it(finished):
    server = finished("nanobeam", scan=False, token=TOKEN)
    with httpx.Client(base_url=server.url) as client:
        answer = client.get(f"/?token={TOKEN}")
        assert (
            answer.status_code == 307 and "HttpOnly" in answer.headers["set-cookie"] and "token" not in answer.headers["location"]
        )
        assert client.get("/api/v1/status").status_code == 200


def test_pages_of_other_sites_and_large_bodies_are_refused(finished):
    server = finished("nanobeam", scan=False)
    url = f"{server.url}/api/v1/control"
    assert httpx.post(url, json={}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.post(url, content=b"x" * 100_000).status_code == 413
    assert httpx.post(url, content=iter([b"{}"])).status_code == 411
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: lots\r\n\r\n")
        assert b" 4" in raw.recv(100)


def test_every_answer_forbids_what_comes_from_elsewhere(finished):
    headers = httpx.get(finished("nanobeam", scan=False).url).headers
    assert "default-src 'self'" in headers["content-security-policy"] and headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/bokeh/../../../__init__.py", "/static//etc/passwd"]
)
def test_no_file_outside_the_page_is_served(finished, path):
    server = finished("nanobeam", scan=False)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in raw.recv(100)


def test_another_address_than_loopback_gets_a_token(monkeypatch):
    assert "BRAGGSCOPE_TOKEN" not in settings("127.0.0.1", 0, None)
    assert len(settings("0.0.0.0", 0, None)["BRAGGSCOPE_TOKEN"]) >= 32
    with pytest.raises(InputError, match="at least 16 characters"):
        settings("0.0.0.0", 0, "short")
    with pytest.raises(InputError, match="between 0 and 65535"):
        settings("127.0.0.1", 70000, None)
