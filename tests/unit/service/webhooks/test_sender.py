"""One try, at receivers on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.webhooks import sender
from service.webhooks.addresses import Reach
from service.webhooks.sender import Result, Sender
from tests.support.receivers import (
    Answer,
    Authority,
    endless,
    hang,
    networks,
    raw,
    receiving,
    status,
    trickle,
    trickle_body,
)

LOOPBACK = Reach(listed=networks("127.0.0.0/8,::1"))
BODY = b'{"type":"crashed"}'


def send(url: str, *, seconds: float = 1.0, reach: Reach = LOOPBACK) -> Result:
    return Sender(reach).send(url, BODY, {"webhook-id": "one"}, seconds)


def test_an_event_is_posted() -> None:
    """As one request with the body, its headers and the whole path."""
    with receiving(status(204)) as receiver:
        assert send(receiver.url) == Result("delivered", 204)
    (received,) = receiver.received
    assert (received.path, received.body) == ("/events?from=here", BODY)
    assert received.headers == {
        "Host": f"127.0.0.1:{receiver.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(BODY)),
        "Connection": "close",
        "Accept-Encoding": "identity",
        "User-Agent": "gameserver-webhooks",
        "webhook-id": "one",
    }


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_status_of_2xx_is_a_delivery(code: int) -> None:
    """As Standard Webhooks has it."""
    with receiving(status(code)) as receiver:
        assert send(receiver.url).outcome == "delivered"


@pytest.mark.parametrize("code", [400, 401, 404, 410, 429, 500, 503])
def test_every_other_status_is_refused(code: int) -> None:
    """The status, the answer and Retry-After are in the result."""
    with receiving(status(code, b"no, not now", Retry_After="7")) as receiver:
        assert send(receiver.url) == Result("refused", code, f"The answer was {code}.", "no, not now", "7")


@pytest.mark.parametrize(
    ("before", "result"),
    [
        (b"103 Early Hints\r\nLink: </style.css>; rel=preload", Result("delivered", 204)),
        (b"100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked", Result("delivered", 204)),
        # Nobody asked for another protocol.
        (b"101 Switching Protocols", Result("refused", 101, "The answer was 101.")),
    ],
)
def test_what_comes_before_the_answer_is_not_the_answer(before: bytes, result: Result) -> None:
    """RFC 9110, 15.2."""
    with receiving(raw(b"HTTP/1.1 " + before + b"\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")) as receiver:
        assert send(receiver.url) == result


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(code: int) -> None:
    """Not even to where a webhook might go; least of all to the inside."""
    with receiving() as other, receiving(status(code, Location=other.url)) as receiver:
        result = send(receiver.url)
        assert (result.outcome, result.status) == ("refused", code)
        assert "Redirects are not followed" in result.detail
        assert other.connections == 0


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says: a proxy would resolve the name again."""
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert send(receiver.url).delivered
        assert (proxy.connections, receiver.connections) == (0, 1)


@pytest.mark.parametrize("answer", [hang, trickle], ids=["hangs", "trickles"])
def test_a_try_has_one_deadline(answer: Answer) -> None:
    """Bytes that come now and then do not move it."""
    with receiving(answer) as receiver:
        began = time.monotonic()
        result = send(receiver.url, seconds=0.7)
        assert result.outcome == "timeout"
        assert 0.6 < time.monotonic() - began < 4


def test_a_receiver_that_does_not_take_the_connection_times_out() -> None:
    """A full queue of connections, for one."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        began = time.monotonic()
        assert send(f"http://127.0.0.1:{listening.getsockname()[1]}/", seconds=0.5).outcome == "timeout"
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("answer", [endless, trickle_body], ids=["endless", "trickling"])
def test_a_body_without_an_end_costs_little(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status counts. At most 64 KiB are read, and not for long."""
    monkeypatch.setattr(sender, "BODY_SECONDS", 0.3)
    with receiving(answer) as receiver:
        began = time.monotonic()
        result = send(receiver.url, seconds=10)
        assert (result.outcome, result.status) == ("delivered", 200)
        assert len(result.answer) <= sender.LARGEST_ANSWER
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "data",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"],
    ids=["nothing", "another protocol", "no status", "too many headers"],
)
def test_what_is_no_http_is_no_delivery(data: bytes) -> None:
    """And no error either."""
    with receiving(raw(data)) as receiver:
        assert send(receiver.url).outcome in ("broken", "unreachable")


def test_a_closed_port_is_said() -> None:
    """In plain words."""
    with receiving() as receiver:
        pass
    result = send(receiver.url)
    assert (result.outcome, result.detail) == ("unreachable", "The connection failed: Connection refused.")


# -- addresses ---------------------------------------------------------------------------------------------


def resolving(*addresses: str) -> sender.Resolve:
    """A resolver that knows one name."""
    return lambda host, port: addresses


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["100.64.0.1"],
        ["169.254.169.254"],
        ["fe80::1%lo"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
    ],
    ids=", ".join,
)
def test_no_name_leads_inside(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One address inside is enough to refuse all. Nothing is connected to."""
    monkeypatch.setattr(sender, "_connect", lambda *_: pytest.fail("connected"))
    for scheme in ("https", "http"):
        result = Sender(Reach(), resolving(*addresses)).send(f"{scheme}://shop.example.com/", BODY, {})
        assert result.outcome == "forbidden"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"]
)
def test_no_spelling_of_the_machine_leads_to_it(host: str) -> None:
    """The system's own look-up reads numbers of all kinds; what comes out is checked."""
    with receiving() as receiver:
        result = send(f"http://{host}:{receiver.port}/", reach=Reach())
        assert (result.outcome, receiver.connections) == ("forbidden", 0)


def test_http_leads_only_to_what_the_operator_lists() -> None:
    """Events to all others are encrypted."""
    reach = Reach(listed=networks("127.0.0.1/32"))
    result = Sender(reach, resolving("8.8.8.8")).send("http://shop.example.com/", BODY, {})
    assert (result.outcome, "Only https" in result.detail) == ("forbidden", True)
    with receiving() as receiver:
        assert send(receiver.url, reach=reach).delivered


def test_what_was_checked_is_what_is_connected_to() -> None:
    """A name whose second look-up gives another address is looked up only once (DNS rebinding)."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with receiving() as checked, receiving(host="127.0.0.2", port=checked.port) as other:
        reach = Reach(listed=networks("127.0.0.1/32"))
        url = f"http://shop.example.com:{checked.port}/"
        attacked = Sender(reach, rebinding)
        assert attacked.send(url, BODY, {}).delivered
        assert checked.received[0].headers["Host"] == f"shop.example.com:{checked.port}"
        assert asked == ["shop.example.com"]
        # The next try looks again, and checks again.
        assert attacked.send(url, BODY, {}).outcome == "forbidden"
        assert (checked.connections, other.connections) == (1, 0)


def test_the_next_address_is_tried() -> None:
    """If the first does not answer."""
    with receiving(host="127.0.0.2") as receiver:
        url = f"http://shop.example.com:{receiver.port}/"
        assert Sender(LOOPBACK, resolving("127.0.0.1", "127.0.0.2")).send(url, BODY, {}).delivered


def test_a_name_without_an_address_is_said() -> None:
    """As an outcome of its own."""

    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for resolver in (unknown, resolving()):
        assert Sender(LOOPBACK, resolver).send("https://nowhere.example.com/", BODY, {}).outcome == "unresolved"


def test_a_look_up_that_hangs_ends_with_the_try() -> None:
    """The system's look-up knows no deadline."""

    def slow(host: str, port: int) -> Sequence[str]:
        time.sleep(8)
        return []

    began = time.monotonic()
    assert Sender(LOOPBACK, slow).send("https://slow.example.com/", BODY, {}, 0.3).outcome == "timeout"
    assert time.monotonic() - began < 4


# -- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def test_the_certificate_is_the_hosts(authority: Authority) -> None:
    """By the name in the URL, although the connection is to an address."""
    with receiving(tls=authority.server("shop.example.com"), name="shop.example.com") as receiver:
        found = Sender(LOOPBACK, resolving("127.0.0.1"), authority.client())
        assert found.send(receiver.url, BODY, {}).delivered


def test_an_address_may_have_a_certificate(authority: Authority) -> None:
    """A URL with an address needs one for that address."""
    with receiving(tls=authority.server("127.0.0.1")) as receiver:
        assert Sender(LOOPBACK, tls=authority.client()).send(receiver.url, BODY, {}).delivered


@pytest.mark.parametrize("case", ["another name", "expired", "another authority", "no TLS"])
def test_a_wrong_certificate_is_refused(authority: Authority, tmp_path: Path, case: str) -> None:
    """Nothing is sent."""
    servers = {
        "another name": authority.server("other.example.com"),
        "expired": authority.server("shop.example.com", days=-1),
        "another authority": Authority(tmp_path).server("shop.example.com"),
    }
    tls = servers.get(case)
    with receiving(tls=tls, name="shop.example.com") as receiver:
        url = receiver.url.replace("http:", "https:")
        result = Sender(LOOPBACK, resolving("127.0.0.1"), authority.client()).send(url, BODY, {}, 2)
        assert result.outcome in ({"tls"} if tls else {"tls", "timeout", "unreachable"})
        assert receiver.received == []


def test_a_handshake_that_hangs_ends_with_the_try(authority: Authority) -> None:
    """A server that takes the connection and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(5)
        began = time.monotonic()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
        assert Sender(LOOPBACK, tls=authority.client()).send(url, BODY, {}, 0.5).outcome == "timeout"
        assert time.monotonic() - began < 4
