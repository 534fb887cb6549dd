"""What no client should send: an answer for each, and the next request is served."""

import json
import random
import socket
from pathlib import Path

import pytest
from test_openai import GREEDY

BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"[" * 5000,
    b'{"a":' * 3000,
    b'{"prompt": NaN}',
    b'{"max_tokens": 1e999}',
    b'{"seed": ' + b"9" * 4000 + b"}",
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "a", "stop": "\\ud800"}',
    b'{"prompt": "a", "session": "\\ud800", "max_tokens": 1}',
    b'{"prompt": "a", "session": "../../etc/passwd", "max_tokens": 1}',
    b'{"prompt": "a", "model": ["model"]}',
    b'{"prompt": [[1, 2], "a", null]}',
    b'{"prompt": [-1]}',
    b'{"prompt": [true]}',
    b'{"messages": [{"role": ["user"], "content": "a"}]}',
    b'{"messages": {"role": "user"}}',
    b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
    b'{"stream": "yes", "prompt": "a"}',
    b'{"stream_options": [], "prompt": "a"}',
    b'{"logit_bias": {"1": 100}, "prompt": "a"}',
    b'{"prompt": "\\u0000", "max_tokens": 1}',
]
PLACES = ["/v1/completions", "/v1/chat/completions", "/v1/completions/", "/v1", "/v1/models/x"]
PLACES += ["/v1/sessions/%ff%00", "/v1/sessions/", "/../../etc/passwd", "/%2e%2e/page.html"]
METHODS = ["POST", "POST", "POST", "GET", "PUT", "DELETE", "BREW"]
TYPES = ["application/json", "application/json", "text/plain", "", "application/json; charset=x"]


def request(choose, host):
    """One request, wrong in one way or several; and whether it has an end."""
    ends = True
    body = choose.choice(BODIES)
    if choose.random() < 0.3:  # a good one with some bytes changed
        good = json.dumps({"model": "model", "prompt": "the", "max_tokens": 2, "stop": ["a"]})
        body = bytearray(good.encode())
        for _ in range(choose.randint(1, 3)):
            body[choose.randrange(len(body))] = choose.randrange(256)
        body = bytes(body)
    kind = f"Content-Type: {choose.choice(TYPES)}\r\n"
    length = f"Content-Length: {len(body)}\r\n"
    odd = choose.random()
    if odd < 0.05:
        return choose.randbytes(200) + b"\r\n\r\n", True
    if odd < 0.1:
        length = f"Content-Length: {choose.choice([-1, 10**9, 'x', len(body) + 50])}\r\n"
        ends = False
    elif odd < 0.15:
        length = "Transfer-Encoding: chunked\r\n"
        body = choose.choice([b"zz\r\n", b"5\r\nab", b"ffffffffff\r\nabc"])
        ends = False
    elif odd < 0.2:
        host = choose.choice(["evil.example", "", "[::"])
    first = f"{choose.choice(METHODS)} {choose.choice(PLACES)} HTTP/1.1\r\n"
    end = "Connection: close\r\n\r\n"
    return (first + f"Host: {host}\r\n" + kind + length + end).encode() + body, ends


def send(address, data, ends):
    """Returns the status; None where the server closed the connection without one."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(data)
        if not ends:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            return None
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def memory(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("count", [400, pytest.param(5000, marks=pytest.mark.slow)])
def test_malformed_requests_harm_nobody(count, server, client, opened):
    host = server.url.removeprefix("http://")
    name, port = host.split(":")
    choose, statuses = random.Random(3), {}
    expected = opened.generate("the", temperature=0, max_tokens=3)
    pid = server.process.pid
    for number in range(count):
        status = send((name, int(port)), *request(choose, host))
        statuses[status] = statuses.get(status, 0) + 1
        if number == count // 4:
            before, opened_before = memory(pid), descriptors(pid)
        if number % 100 == 0:
            made = client.completions.create(prompt="the", max_tokens=3, **GREEDY)
            assert made.choices[0].text == expected
    assert {400, 404, 405} <= statuses.keys()
    assert 500 not in statuses
    assert statuses.get(None, 0) < 0.1 * count
    assert memory(pid) - before < 8 << 20
    assert descriptors(pid) <= opened_before + 2
