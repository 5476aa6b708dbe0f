"""The page's server: who comes in, what a viewer is sent, what bad clients get, and how it stops."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import av
import cv2
import numpy as np
import pytest

from streamsr.capture.framecode import read_frame_code
from streamsr.colour import from_rgb8, to_rgb8
from streamsr.config import WebSettings
from streamsr.display.commands import Command
from streamsr.display.shown import Shown
from streamsr.errors import InputError, UsageError
from streamsr.frame import Colour, PlaneLayout, Siting
from streamsr.sinks.web import WebView
from streamsr.sinks.web.audience import MOST_VIEWERS
from streamsr.sinks.web.door import GUESSES
from streamsr.sinks.web.h264 import H264Encoder
from streamsr.sinks.web.jpeg import bgr_of, encode_jpeg
from streamsr.sinks.web.messages import HEADER, LONGEST_MESSAGE
from streamsr.sinks.web.serving import MOST_CONNECTIONS
from tests.web_doubles import CAMERA_LUMA, ENHANCED_LUMA, SCALE, FakeShowing, Running, camera_frame, running, wait_until

STOP_LIMIT_S = 2.0
"""The promise is half a second; the machine that tests may be busy."""

Visit = Callable[["Client"], Awaitable[Any]]


class Client:
    """A browser's side: a session with its cookies, and the WebSockets it opens."""

    def __init__(self, served: Running, session: aiohttp.ClientSession) -> None:
        self.served, self.session = served, session

    async def get(self, path: str, **options: Any) -> tuple[int, str, Any]:
        url = self.served.base + path
        async with self.session.get(url, allow_redirects=False, **options) as response:
            return response.status, await response.text(), response.headers

    async def enter(self) -> None:
        status, _, _ = await self.get(f"/?token={self.served.token}")
        assert status == 200

    def watch(self, **headers: str) -> Any:
        origin = {"Origin": self.served.base} | headers
        return self.session.ws_connect(self.served.base + "/watch", headers=origin, max_msg_size=0)


def visiting(served: Running, visit: Visit) -> Any:
    """Run a visit by one client, for at most a minute."""

    async def go() -> Any:
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of IP addresses too, as browsers keep them
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            return await asyncio.wait_for(visit(Client(served, session)), 60)

    return asyncio.run(go())


def with_page(visit: Visit, showing: FakeShowing | None = None) -> Running:
    """Serve, let a client that holds the token visit, and stop."""

    async def entered(client: Client) -> None:
        await client.enter()
        await visit(client)

    with running(showing) as served:
        visiting(served, entered)
    assert served.failure is None
    return served


def unpack(message: bytes) -> dict[str, Any]:
    names = "version flags rung zero number arrived presented width height other_width other_height num other_num"
    found: dict[str, Any] = dict(zip(names.split(), HEADER.unpack_from(message), strict=True))
    body = message[HEADER.size :]
    assert len(body) == found["num"] + found["other_num"]
    return found | {"picture": body[: found["num"]], "original": body[found["num"] :]}


async def next_picture(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    while True:
        heard = await socket.receive(timeout=10)
        assert heard.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), heard
        if heard.type is aiohttp.WSMsgType.BINARY:
            return unpack(heard.data)


async def next_text(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    while True:
        heard = await socket.receive(timeout=10)
        assert heard.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), heard
        if heard.type is aiohttp.WSMsgType.TEXT and (said := json.loads(heard.data))["kind"] == kind:
            return said


async def closing(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    async for _ in socket:
        pass
    return socket.close_code


def wish(**changes: Any) -> dict[str, Any]:
    return {"wish": {"compare": False, "codec": "jpeg", "paused": False} | changes}


def gray(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)


# who comes in


@pytest.mark.parametrize("path", ["/", "/page.js", "/icon.svg", "/nothing", "/watch"])
def test_nothing_is_given_without_the_token(path: str) -> None:
    async def visit(client: Client) -> None:
        status, text, headers = await client.get(path, headers={"Origin": client.served.base})
        assert status == 403
        assert "printed" in text
        assert "Set-Cookie" not in headers

    with running() as served:
        visiting(served, visit)


def test_a_wrong_token_gets_nothing_and_its_sender_must_wait_after_some() -> None:
    async def visit(client: Client) -> None:
        wrong = "/?token=" + "x" * len(client.served.token)
        for _ in range(GUESSES):
            status, text, _ = await client.get(wrong)
            assert (status, "<html" in text) == (403, False)
        while (answer := await client.get(wrong))[0] != 429:
            assert answer[0] == 403

    with running() as served:
        visiting(served, visit)


def test_an_old_page_that_knocks_again_and_again_does_not_lock_the_token_out() -> None:
    async def visit(client: Client) -> None:
        port = client.served.base.rpartition(":")[2]
        old = {"Cookie": f"streamsr-{port}=of-an-earlier-session"}
        for _ in range(3 * GUESSES):
            assert (await client.get("/", headers=old))[0] == 403
        await client.enter()

    with running() as served:
        visiting(served, visit)


def test_the_token_opens_the_page_and_becomes_a_cookie_that_scripts_cannot_read() -> None:
    async def visit(client: Client) -> None:
        status, text, headers = await client.get(f"/?token={client.served.token}")
        assert status == 200
        assert "Research use only. No medical claim." in text
        cookie = headers["Set-Cookie"]
        assert client.served.token not in cookie
        assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
        assert (await client.get("/page.js"))[0] == 200
        assert (await client.get("/nothing"))[0] == 404

    with running() as served:
        assert len(served.token) * 6 >= 128
        visiting(served, visit)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", "@"])
def test_another_host_name_is_refused_even_with_the_token(host: str) -> None:
    async def visit(client: Client) -> None:
        name = host.format(port=client.served.base.rpartition(":")[2])
        assert (await client.get(f"/?token={client.served.token}", headers={"Host": name}))[0] == 421

    with running() as served:
        visiting(served, visit)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
def test_another_site_cannot_open_the_socket_even_with_the_cookie(origin: str | None) -> None:
    async def visit(client: Client) -> None:
        headers = {"Origin": origin} if origin is not None else {}
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await client.session.ws_connect(client.served.base + "/watch", headers=headers)
        assert refusal.value.status == 403

    with_page(visit)


@pytest.mark.parametrize(
    "path", ["/../address.py", "/page.js/../../view.py", "/%2e%2e/view.py", "/page//page.js", "//x"]
)
def test_no_path_leads_out_of_the_page(path: str) -> None:
    async def visit(client: Client) -> None:
        port = int(client.served.base.rpartition(":")[2])
        cookie = "; ".join(f"{c.key}={c.value}" for c in client.session.cookie_jar)
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer
        assert b"import" not in answer

    with_page(visit)


def test_only_get_is_answered() -> None:
    async def visit(client: Client) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            async with client.session.request(method, client.served.base + "/") as response:
                assert response.status == 405

    with_page(visit)


@pytest.mark.parametrize("said", ["GET / HTTP/1.1\r\nHost: {host}\r\n\r\n", "GARBAGE\r\n\r\n", "\x16\x03\x01\r\n\r\n"])
def test_no_answer_says_what_serves_and_every_one_is_guarded(said: str) -> None:
    with running() as served:
        host, port = served.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(said.format(host=f"{host}:{port}").encode())
            answer = connection.recv(65536).decode()
    assert "aiohttp" not in answer
    assert "Python" not in answer
    assert "X-Content-Type-Options: nosniff" in answer
    assert "Cache-Control: no-store" in answer


def test_the_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody() -> None:
    async def visit(client: Client) -> None:
        _, text, headers = await client.get("/")
        policy = headers["Content-Security-Policy"]
        assert all(part in policy for part in ("default-src 'none'", "frame-ancestors 'none'", "script-src 'self'"))
        assert "unsafe" not in policy
        assert headers["Referrer-Policy"] == "no-referrer"
        for path in ("/", "/page.css", "/page.js", "/link.js", "/stage.js", "/panel.js", "/graph.js", "/picture.js"):
            _, text, _ = await client.get(path)
            assert "http://" not in text.replace('xmlns="http://www.w3.org', "")
            assert "https://" not in text
            assert "innerHTML" not in text

    with_page(visit)


# settings that cannot be


def refusal(settings: WebSettings) -> str:
    with pytest.raises(UsageError) as error:
        WebView(settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_address_needs_tls_or_to_be_called_insecure() -> None:
    assert "--insecure" in refusal(WebSettings(host="0.0.0.0", port=0))
    with WebView(WebSettings(host="0.0.0.0", port=0, insecure=True)) as view:
        assert "token=" in view.url


@pytest.mark.parametrize("token", ["", "short", "sixteen letters!", "x" * 20 + "/"])
def test_a_weak_token_is_refused(token: str) -> None:
    assert "random" in refusal(WebSettings(port=0, token=token))


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with WebView(WebSettings(port=0)) as first:
        port = int(first.url.split(":")[2].split("/")[0])
        assert f"port {port} is taken" in refusal(WebSettings(port=port))
    with WebView(WebSettings(port=port)) as second:
        assert str(port) in second.url


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"port": 70000}, "65535"),
        ({"host": "192.0.2.1", "insecure": True}, "not an address of this machine"),
        ({"host": "no.such.host.invalid", "insecure": True}, "no.such.host.invalid"),
        ({"jpeg_quality": 0}, "1 to 100"),
        ({"tls_cert": Path("/nowhere/cert.pem")}, "--tls-key"),
        ({"tls_cert": Path("/nowhere/cert.pem"), "tls_key": Path("/nowhere/key.pem")}, "not there"),
        ({"tls_cert": Path(__file__), "tls_key": Path(__file__)}, "no PEM certificate"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(replace(WebSettings(port=0), **changes))


def test_with_a_certificate_the_page_is_served_encrypted(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    try:
        files = ["-keyout", str(key), "-out", str(cert), "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    trusted = ssl.create_default_context(cafile=str(cert))

    async def visit(client: Client) -> None:
        status, _, headers = await client.get(f"/?token={client.served.token}", ssl=trusted)
        assert status == 200
        assert "Secure" in headers["Set-Cookie"]
        url, origin = client.served.base + "/watch", {"Origin": client.served.base}
        async with client.session.ws_connect(url, headers=origin, ssl=trusted, max_msg_size=0) as watching:
            assert (await next_picture(watching))["width"] > 0

    with running(settings=WebSettings(port=0, tls_cert=cert, tls_key=key)) as served:
        assert served.base.startswith("https://")
        visiting(served, visit)
        port = int(served.base.rpartition(":")[2])
        silent = socket.create_connection(("127.0.0.1", port), timeout=10)  # never begins to speak TLS
        time.sleep(0.2)
    silent.close()
    assert served.stop_s < STOP_LIMIT_S


# what a viewer is sent


def test_pictures_come_with_rising_numbers_that_their_pixels_confirm() -> None:
    async def visit(client: Client) -> None:
        numbers = []
        async with client.watch() as watching:
            for _ in range(8):
                picture = await next_picture(watching)
                numbers.append(picture["number"])
                assert read_frame_code(gray(picture["picture"]), SCALE) == picture["number"]
                assert picture["presented"] > picture["arrived"]
                assert picture["original"] == b""
                await watching.send_json({"ack": picture["number"]})
        assert numbers == sorted(set(numbers))

    with_page(visit)


def test_one_who_compares_gets_the_original_of_the_same_moment() -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            await watching.send_json(wish(compare=True))
            while not (picture := await next_picture(watching))["original"]:
                await watching.send_json({"ack": picture["number"]})
            original, enlarged = gray(picture["original"]), gray(picture["picture"])
            assert original.shape == (picture["other_height"], picture["other_width"])
            assert enlarged.shape == (original.shape[0] * SCALE, original.shape[1] * SCALE)
            assert read_frame_code(original) == read_frame_code(enlarged, SCALE) == picture["number"]
            middle = [plane[plane.shape[0] // 2, 4].astype(int) for plane in (original, enlarged)]
            assert middle[0] < 255 * CAMERA_LUMA / 235 + 4
            assert middle[1] > 255 * ENHANCED_LUMA / 235 - 4

    with_page(visit)


def test_a_viewer_has_at_most_two_unacknowledged_pictures_and_then_the_newest() -> None:
    showing = FakeShowing()

    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            first, second = await next_picture(watching), await next_picture(watching)
            wait_for = showing.number + 10
            while showing.number < wait_for:
                heard = await watching.receive(timeout=10)
                assert heard.type is aiohttp.WSMsgType.TEXT, "a third picture came unasked"
            for _ in range(3):  # said twice more, it opens no more room
                await watching.send_json({"ack": first["number"]})
            newest = await next_picture(watching)
            assert newest["number"] >= wait_for - 2
            told = await next_text(watching, "status")
            assert told["you"]["sent"] == 3
            assert told["you"]["dropped"] >= newest["number"] - second["number"] - 3
            assert (await next_text(watching, "status"))["you"]["sent"] == 3

    with_page(visit, showing)


def test_a_slow_viewer_drops_for_itself_only_and_all_get_the_same_bytes() -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as slow, client.watch() as quick, client.watch() as other:
            await next_picture(slow)
            seen: list[dict[int, bytes]] = [{}, {}]
            for _ in range(15):
                for place, watching in enumerate((quick, other)):
                    picture = await next_picture(watching)
                    seen[place][picture["number"]] = picture["picture"]
                    await watching.send_json({"ack": picture["number"]})
            assert len(seen[0]) == len(seen[1]) == 15
            common = seen[0].keys() & seen[1].keys()
            assert common
            assert all(seen[0][number] == seen[1][number] for number in common)
            while not (await next_text(slow, "status"))["you"]["dropped"]:
                pass

    with_page(visit)


def test_ten_viewers_watch_at_once() -> None:
    async def visit(client: Client) -> None:
        async def look() -> int:
            async with client.watch() as watching:
                for _ in range(4):
                    picture = await next_picture(watching)
                    await watching.send_json({"ack": picture["number"]})
                viewers = 0
                while viewers < 10:
                    viewers = (await next_text(watching, "status"))["all"]["viewers"]
                await asyncio.sleep(1)  # until the slowest has counted all
                return viewers

        assert await asyncio.gather(*(look() for _ in range(10))) == [10] * 10

    with_page(visit)


def test_one_viewer_too_many_is_told_so() -> None:
    async def visit(client: Client) -> None:
        sockets = [await client.watch() for _ in range(MOST_VIEWERS)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.watch()
        assert refused.value.status == 503
        await sockets[0].close()
        while client.served.view.num_viewers == MOST_VIEWERS:
            await asyncio.sleep(0.01)
        async with client.watch() as watching:
            assert await next_picture(watching)
        for open_one in sockets[1:]:
            await open_one.close()

    with_page(visit)


def test_nothing_is_coded_while_nobody_looks_and_pictures_are_presented_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coded: list[int] = []
    monkeypatch.setattr(
        "streamsr.sinks.web.pump.encode_jpeg",
        lambda *args: coded.append(1) or encode_jpeg(*args),  # type: ignore[func-returns-value]
    )
    showing = FakeShowing(rate=50)

    async def visit(client: Client) -> None:
        while len(showing.presented_numbers) < 5:
            await asyncio.sleep(0.01)
        assert not coded
        async with client.watch() as watching:
            await watching.send_json({"ack": (await next_picture(watching))["number"]})
            await watching.send_json(wish(paused=True))
            known = -1
            while known != len(coded):  # until the last picture that was on its way is coded
                known = len(coded)
                await asyncio.sleep(0.5)
            assert known > 0
            presented = len(showing.presented_numbers)
            await watching.send_json(wish())
            while (await next_picture(watching))["number"] <= presented:
                pass

    with_page(visit, showing)
    assert showing.presented_numbers == list(range(len(showing.presented_numbers)))


def test_the_status_holds_what_the_session_says() -> None:
    showing = FakeShowing()
    showing.alarm = "generator failed"

    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            picture = await next_picture(watching)
            assert picture["flags"] & 2
            await watching.send_json({"ack": picture["number"]})
            while not (told := await next_text(watching, "status"))["you"]["screen_ms"]:
                pass
        session, shown = told["all"]["session"], told["all"]["shown"]
        assert session["state"] == "live"
        assert session["added_latency"]["p99_ms"] == 31.75
        assert session["recording"]["folder"] == "recordings"
        assert shown["alarm"] == "generator failed"
        assert session["rungs"][picture["rung"]] == shown["rung"] == "fast-x2"
        assert 0 < told["you"]["screen_ms"]["p50"] <= told["you"]["screen_ms"]["p99"]

    with_page(visit, showing)


# what a viewer may ask


@pytest.mark.parametrize("command", [Command.BYPASS, Command.RECORD, Command.SNAPSHOT, Command.BADGE])
def test_a_command_reaches_the_session_and_its_answer_the_page(command: Command) -> None:
    showing = FakeShowing()

    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            await watching.send_json({"ask": command.value})
            assert (await next_text(watching, "answer"))["text"] == f"{command.value}: done"

    with_page(visit, showing)
    assert showing.asked == [command]


@pytest.mark.parametrize("word", ["quit", "split", "reboot", ""])
def test_a_page_can_ask_for_nothing_else(word: str) -> None:
    showing = FakeShowing()

    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            await watching.send_json({"ask": word})
            assert "no such command" in (await next_text(watching, "answer"))["text"]

    with_page(visit, showing)
    assert not showing.asked


def test_a_script_that_asks_too_often_is_refused() -> None:
    showing = FakeShowing()

    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            for _ in range(100):
                await watching.send_json({"ask": "badge"})
            while "too many" not in (await next_text(watching, "answer"))["text"]:
                pass

    with_page(visit, showing)
    assert 0 < len(showing.asked) < 100


@pytest.mark.parametrize(
    "said",
    [
        "nonsense",
        "[" * 400,
        "{}",
        '{"ack": 1, "ask": "bypass"}',
        '{"ack": "1"}',
        '{"ack": true}',
        '{"wish": {"compare": 1, "codec": "jpeg", "paused": false}}',
        '{"wish": {"compare": true, "codec": ["jpeg"], "paused": false}}',
        '{"open": "sesame"}',
    ],
)
def test_garbage_closes_its_own_socket_and_no_other(said: str) -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as good, client.watch() as bad:
            await bad.send_str(said)
            assert await closing(bad) == aiohttp.WSCloseCode.POLICY_VIOLATION
            assert await next_picture(good)

    with_page(visit)


def test_bytes_and_long_messages_close_the_socket() -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as binary, client.watch() as long:
            await binary.send_bytes(b"\0" * 10)
            assert await closing(binary) == aiohttp.WSCloseCode.UNSUPPORTED_DATA
            await long.send_str("x" * (LONGEST_MESSAGE + 1))
            assert await closing(long) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    with_page(visit)


def test_acknowledging_what_was_never_sent_changes_nothing() -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            await next_picture(watching), await next_picture(watching)
            for number in (-1, 10**30, 2**32 - 1):
                await watching.send_json({"ack": number})
            for _ in range(3):
                assert (await next_text(watching, "status"))["you"]["sent"] == 2

    with_page(visit)


# viewers that do harm, and the end


def raw_watcher(served: Running, cookie: str) -> socket.socket:
    """Open a WebSocket by hand and read nothing but its handshake."""
    port = int(served.base.rpartition(":")[2])
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(10)
    made.connect(("127.0.0.1", port))
    made.sendall(
        f"GET /watch HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {served.base}\r\nCookie: {cookie}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert made.recv(12) == b"HTTP/1.1 101"
    return made


def cookie_of(served: Running) -> str:
    async def visit(client: Client) -> str:
        await client.enter()
        return "; ".join(f"{c.key}={c.value}" for c in client.session.cookie_jar)

    return str(visiting(served, visit))


def test_a_viewer_that_never_reads_is_dropped_and_holds_nobody_up() -> None:
    with running() as served:
        deaf = raw_watcher(served, cookie_of(served))
        with deaf:
            wait_until(lambda: served.view.num_viewers == 1)

            async def visit(client: Client) -> None:
                await client.enter()
                async with client.watch() as watching:
                    for _ in range(5):
                        await watching.send_json({"ack": (await next_picture(watching))["number"]})

            visiting(served, visit)
            wait_until(lambda: served.view.num_viewers == 0)


def test_connections_that_never_ask_are_cut_and_too_many_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsr.sinks.web.serving.FIRST_REQUEST_S", 0.5)
    with running() as served:
        port = int(served.base.rpartition(":")[2])
        half_open = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(MOST_CONNECTIONS)]
        try:
            for made in half_open:
                made.sendall(b"GET / HT")
            assert all(ends(made) for made in half_open)
        finally:
            for made in half_open:
                made.close()
        visiting(served, lambda client: client.enter())


def ends(made: socket.socket) -> bool:
    """Return whether the other side closes a connection; a timeout fails the test."""
    try:
        return made.recv(1) == b""
    except ConnectionResetError:
        return True


def test_it_stops_at_once_whatever_its_viewers_do() -> None:
    with running(FakeShowing(rate=100)) as served:
        cookie = cookie_of(served)
        deaf = [raw_watcher(served, cookie) for _ in range(3)]
        port = int(served.base.rpartition(":")[2])
        deaf.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        deaf[-1].sendall(b"GET / HTTP/1.1\r\nHost")
        wait_until(lambda: served.view.num_viewers == 3)
        time.sleep(0.5)  # until their buffers are full
    for made in deaf:
        made.close()
    assert served.stop_s < STOP_LIMIT_S
    assert served.failure is None


def test_viewers_are_told_that_the_session_is_over() -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            await next_picture(watching)
            client.served.showing.end()
            assert await closing(watching) == aiohttp.WSCloseCode.GOING_AWAY

    served = with_page(visit)
    assert served.stop_s < STOP_LIMIT_S


def test_a_picture_that_cannot_be_coded_ends_the_view_with_its_cause() -> None:
    class Unknown(FakeShowing):
        def shown(self, number: int) -> Shown:
            shown = super().shown(number)
            picture = shown.picture.with_planes(shown.picture.planes, colour=replace(shown.picture.colour, matrix=2))
            return replace(shown, picture=picture)

    async def visit(client: Client) -> None:
        await client.enter()
        async with client.watch() as watching:
            await closing(watching)

    with running(Unknown()) as served:
        visiting(served, visit)
    assert isinstance(served.failure, InputError)


# codecs


COLOURS = [
    pytest.param(Colour(1, False, 1, 1), (1, 1), 8, id="709-limited-420"),
    pytest.param(Colour(6, False, 6, 6, Siting.CENTRE), (1, 1), 8, id="601-limited-centre"),
    pytest.param(Colour(5, True, 5, 1, Siting.TOP_LEFT), (1, 0), 8, id="601-full-422"),
    pytest.param(Colour(9, False, 9, 14), (0, 0), 10, id="2020-444-10-bit"),
]


@pytest.mark.parametrize(("colour", "shift", "depth"), COLOURS)
def test_a_jpeg_has_the_colours_that_the_frame_means(colour: Colour, shift: tuple[int, int], depth: int) -> None:
    pixels = np.repeat(np.uint8([[[230, 30, 20], [40, 200, 60], [30, 60, 210], [180, 120, 100]]]), 16, axis=1)
    pixels = np.repeat(pixels, 48, axis=0)
    layout = PlaneLayout(shift, depth)
    frame = replace(camera_frame(0), layout=layout, colour=colour)
    frame = frame.with_planes(from_rgb8(pixels, layout=layout, colour=colour))
    flat = np.s_[8:-8, [8, 24, 40, 56]]
    made = bgr_of(frame)[..., ::-1]
    assert np.abs(made[flat].astype(int) - to_rgb8(frame)[flat]).max() <= 1
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(bgr_of(frame), 95), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded[flat].astype(int) - pixels[flat]).max() <= 6


def test_chroma_lies_where_its_siting_says() -> None:
    frame = camera_frame(1)
    for siting in (Siting.LEFT, Siting.CENTRE, Siting.TOP_LEFT):
        sited = frame.with_planes(frame.planes, colour=replace(frame.colour, siting=siting))
        error = np.abs(bgr_of(sited)[..., ::-1].astype(int) - to_rgb8(sited)).mean()
        other = np.abs(bgr_of(frame)[..., ::-1].astype(int) - to_rgb8(replace(frame, colour=sited.colour))).mean()
        assert error < 0.6
        assert siting is Siting.LEFT or error < other


def test_a_gray_frame_becomes_a_gray_jpeg() -> None:
    frame = camera_frame(0)
    gray_frame = replace(frame, planes=frame.planes[:1], layout=PlaneLayout(None))
    assert np.array_equal(bgr_of(gray_frame), to_rgb8(gray_frame)[..., 0])


def test_h264_is_coded_without_delay_and_begins_anew_with_a_key_picture() -> None:
    encoder = H264Encoder()
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = {"flags": "low_delay"}
    decoder.thread_count = 1
    keys, numbers = [], []
    for number in range(12):
        frame = camera_frame(number)
        packet = encoder.encode(frame, key=number == 5)
        keys.append(packet.is_key)
        numbers += [read_frame_code(f.to_ndarray(format="gray")) for f in decoder.decode(av.Packet(packet.data))]
    assert keys == [number in (0, 5) for number in range(12)]
    assert numbers == list(range(12))


def test_h264_takes_odd_sizes_and_size_changes() -> None:
    encoder = H264Encoder()
    frame = camera_frame(0)
    assert encoder.encode(frame).is_key
    odd = replace(frame, planes=(frame.planes[0][:-1, :-1], *frame.planes[1:]))
    packet = encoder.encode(odd)
    assert packet.is_key
    with av.open(io.BytesIO(packet.data), format="h264") as opened:
        picture = next(opened.decode(video=0))
    assert (picture.width, picture.height) == (frame.width, frame.height)
    assert picture.colorspace == frame.colour.matrix


def test_h264_viewers_begin_with_a_key_picture_and_get_every_one_after_it() -> None:
    async def visit(client: Client) -> None:
        async with client.watch() as watching:
            await watching.send_json(wish(codec="h264", compare=True))
            decoder = av.CodecContext.create("h264", "r")
            decoder.thread_count = 1
            numbers: list[int] = []
            while len(numbers) < 8:
                picture = await next_picture(watching)
                await watching.send_json({"ack": picture["number"]})
                if not picture["flags"] & 8:
                    continue
                assert numbers or picture["flags"] & 4
                frames = decoder.decode(av.Packet(picture["picture"]))
                numbers += [read_frame_code(frame.to_ndarray(format="gray"), SCALE) for frame in frames]
                assert numbers[-1] == picture["number"]

    with_page(visit, FakeShowing(rate=15))


def test_a_header_is_forty_bytes_as_the_page_reads_them() -> None:
    assert HEADER.size == 40
    assert struct.calcsize("<BBBBIqqHHHHII") == HEADER.size
