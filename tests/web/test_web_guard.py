"""Other sites, other names for this machine, and headers of every answer."""

import asyncio

import pytest

from ultrasam.web.guard import HEADERS, Guard


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"secret"})


def ask(headers, path="/api/info", method="GET", guard=None):
    """Return status, headers and body of the guard's answer."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http", "method": method, "path": path, "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }  # fmt: skip
    asyncio.run((guard or Guard(application))(scope, receive, send))
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], names, sent[1]["body"]


HOST = ("host", "127.0.0.1:8000")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.1"])
def test_this_machine_is_answered(host):
    status, headers, body = ask([("host", host)])
    assert (status, body) == (200, b"secret")
    assert set(HEADERS) <= set(headers)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "evil.example")],
        [("host", "evil.example:8000")],
        [("host", "127.0.0.1.evil.example:8000")],
        [("host", "localhost.evil.example")],
        [("host", "192.168.1.5:8000")],
        [("host", "")],
        [HOST, ("host", "evil.example")],
        [HOST, ("origin", "https://evil.example")],
        [HOST, ("origin", "null")],
        [HOST, ("origin", "http://127.0.0.1:9000")],
        [HOST, ("origin", "https://127.0.0.1:8000")],
        [HOST, ("origin", "http://localhost:8000")],
        [HOST, ("sec-fetch-site", "cross-site")],
        [HOST, ("sec-fetch-site", "same-site")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_others_are_refused(headers, method):
    status, names, body = ask(headers, method=method)
    assert status == 403 and b"secret" not in body and b'"error"' in body
    assert set(HEADERS) <= set(names)


def test_the_page_itself_sends_what_is_allowed():
    headers = [HOST, ("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")]
    assert ask(headers, method="POST")[0] == 200


def test_a_link_from_elsewhere_may_lead_to_the_page_only():
    link = [HOST, ("sec-fetch-site", "cross-site")]
    assert ask(link, path="/")[0] == 200
    assert ask(link, path="/", method="POST")[0] == 403
    assert ask(link, path="/static/app.js")[0] == 403


def test_a_server_for_other_machines_answers_to_addresses_but_not_to_any_name():
    guard = Guard(application, ["0.0.0.0", "scanner", "proxy.example"], any_address=True)
    for host in ("192.168.1.5:8000", "[fe80::1]:8000", "scanner:8000", "proxy.example"):
        assert ask([("host", host)], guard=guard)[0] == 200
    assert ask([("host", "evil.example")], guard=guard)[0] == 403


def test_a_reverse_proxy_with_https_is_known_by_its_name():
    guard = Guard(application, proxied=["Proxy.example"])
    secure = [("host", "proxy.example"), ("origin", "https://proxy.example")]
    assert ask(secure, method="POST", guard=guard)[0] == 200
    assert ask(secure, method="POST")[0] == 403
    assert ask([("host", "proxy.example"), ("origin", "https://evil.example")], method="POST", guard=guard)[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("content-length", "65536")], 200),
        ([("content-length", "65537")], 413),
        ([("content-length", "1e3")], 413),
        ([("transfer-encoding", "chunked")], 411),
    ],
)
def test_only_files_may_be_long(headers, status):
    assert ask([HOST, *headers], path="/api/studies/key/frames/0/edits", method="POST")[0] == status
    assert ask([HOST, *headers], path="/api/studies", method="POST")[0] == 200


def test_websockets_are_closed():
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(application)({"type": "websocket", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
