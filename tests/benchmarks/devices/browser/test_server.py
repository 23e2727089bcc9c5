"""The server as a hostile network sees it, over real sockets: what it gives, what it refuses, and that it goes on."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.devices.browser import server as browser_server
from benchmarks.devices.browser.files import job_files, page_routes
from benchmarks.devices.browser.server import HEADERS, is_loopback, serving
from runtimes.errors import BadInput
from tests.benchmarks.devices.browser.desk import DEVICE, GOLDEN, WHOLE, desk_of, job_with_files, post, taken


@dataclass
class Answer:
    """What the server said."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage


@dataclass
class Bench:
    """A running server, its desk, and requests to it."""

    origin: str
    desk: object
    session: str = ""
    server: browser_server.Server | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.origin.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request; `_` in a header's name stands for `-`."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.read(), answer.headers)
        connection.close()
        return found

    def raw(self, *parts: bytes) -> bytes:
        """Bytes as they are, and all that is answered until the server ends the connection."""
        with socket.create_connection(self.address, timeout=30) as connection:
            for part in parts:
                connection.sendall(part)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, X_Pocketship_Session=self.session)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        return self.ask("POST", path, body, **{"X_Pocketship_Session": self.session, **headers})

    def open(self) -> str:
        answer = self.ask("POST", "/session", b"", X_Pocketship_Token=self.desk.token)
        assert answer.status == 200, answer.body
        self.session = json.loads(answer.body)["session"]
        return self.session


@pytest.fixture
def bench(tmp_path, monkeypatch):
    dist = tmp_path / "dist"
    (dist / "onnx").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html><title>page</title>")
    (dist / "main.js").write_text("1")
    (dist / "onnx" / "runtime.wasm.gz").write_bytes(gzip.compress(b"\0asm"))
    (dist / "secret.pem").write_text("not of the page")
    job, files = job_with_files(tmp_path)
    served = job_files(job, files, 5.0)
    desk = desk_of(job)
    servers: list[browser_server.Server] = []

    class Watched(browser_server.Server):
        def server_bind(self) -> None:
            servers.append(self)
            super().server_bind()

    monkeypatch.setattr(browser_server, "Server", Watched)
    with serving("127.0.0.1", 0, {**page_routes(dist), **served.routes}, desk) as origin:
        yield Bench(origin, desk, server=servers[0])


def assert_goes_on(bench: Bench) -> None:
    """The bench still takes its results, and has believed nothing else."""
    believed = [message for message in taken(bench.desk) if message["event"] != "notice"]
    assert believed == []
    if not bench.session:
        bench.open()
    assert bench.post("/events", post(0, *WHOLE)).status == 200
    assert [message for message in taken(bench.desk) if message["event"] != "notice"] == WHOLE


# --- what is given -------------------------------------------------------------------------------------------------


def test_the_page_is_for_everybody_the_job_for_the_session(bench):
    assert bench.get("/").body == b"<!doctype html><title>page</title>"
    assert bench.get("/").headers["Content-Type"] == "text/html; charset=utf-8"
    wasm = bench.get("/onnx/runtime.wasm?case=1")
    assert (wasm.headers["Content-Type"], wasm.headers["Content-Encoding"]) == ("application/wasm", "gzip")
    assert gzip.decompress(wasm.body) == b"\0asm" and "Content-Encoding" not in bench.get("/").headers
    assert bench.get("/job").status == 401
    assert bench.get("/files/0").status == 401
    bench.open()
    assert bench.get("/secret.pem").status == 404, "nor does a session get what is no part of the page"
    served = json.loads(bench.get("/job").body)
    assert served["heartbeat_s"] == 5.0
    assert [artifact["name"] for artifact in served["job"]["artifacts"]] == ["a", "b"]
    assert bench.get(served["files"]["a"]["url"]).body == b"model of onnx"
    assert bench.get(served["files"]["b"]["url"]).body == b"model of tflite"
    assert str(Path(__file__).parents[2]) not in bench.get("/job").body.decode(), "no path of this machine"


@pytest.mark.parametrize(("key", "samples"), [("g", GOLDEN.inputs), ("d", None)])
def test_arrays_are_packed_as_they_are_and_golden_outputs_stay_here(bench, key, samples):
    bench.open()
    pack = json.loads(bench.get("/job").body)["packs"][key]
    data = bench.get(pack["url"]).body
    expected = samples or ({"x": np.arange(10, dtype=np.int64).reshape(5, 2)},)
    assert len(pack["arrays"]) == len(expected)
    for row, (place, sample) in enumerate(zip(pack["arrays"], expected, strict=True)):
        wanted = sample["x"]
        assert (place["row"], place["name"]) == (row, "x") and place["offset"] % 8 == 0
        found = np.frombuffer(data, place["dtype"], wanted.size, place["offset"]).reshape(place["shape"])
        np.testing.assert_array_equal(found, wanted)


def test_every_answer_has_the_headers(bench):
    bench.open()
    answers = [
        bench.get("/"),
        bench.get("/job"),
        bench.get("/nothing"),
        bench.ask("GET", "/job"),
        bench.ask("PUT", "/"),
        bench.ask("HEAD", "/"),
        bench.ask("GET", "/", Host="evil.example"),
        bench.post("/events", b"garbage"),
        bench.post("/events", post(0, DEVICE)),
        bench.ask("POST", "/session", b"", X_Pocketship_Token="wrong"),
    ]
    assert [a.status for a in answers] == [200, 200, 404, 401, 405, 405, 421, 422, 200, 403]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["Server"].strip() == "pocketship"
    malformed = bench.raw(b"\x16\x03\x01 not http\r\n\r\n")
    assert all(f"{name}: {value}".encode() in malformed for name, value in HEADERS.items())


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong", "x" * 60_000], ids=["none", "empty", "wrong", "long"])
def test_no_token_no_session(bench, token):
    headers = {} if token is None else {"X_Pocketship_Token": token}
    answer = bench.ask("POST", "/session", b"", **headers)
    assert (answer.status, answer.body[:19]) == (403, b"This code is wrong.")
    (notice,) = taken(bench.desk)
    assert notice["text"].startswith("refused a request from 127.0.0.1: 403 This code is wrong.")
    assert_goes_on(bench)


def test_a_second_browser_with_the_token_is_refused_and_the_first_goes_on(bench):
    bench.open()
    again = bench.ask("POST", "/session", b"", X_Pocketship_Token=bench.desk.token)
    assert (again.status, again.body[:26]) == (403, b"This code was used already")
    assert_goes_on(bench)


@pytest.mark.parametrize("path", ["/events", "/leave"])
@pytest.mark.parametrize("session", ["", "wrong", "token"])
def test_a_post_without_the_session_is_refused_unread(bench, path, session):
    bench.open()
    given = bench.desk.token if session == "token" else session
    answer = bench.ask("POST", path, post(0, *WHOLE), X_Pocketship_Session=given)
    assert (answer.status, answer.body) == (401, b"no such session\n")
    assert_goes_on(bench)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:PORT", "0.0.0.0:PORT"]
)
def test_a_name_that_is_not_ours_is_refused(bench, host):
    bench.open()
    named = host.replace("PORT", str(bench.address[1]))
    for method, path in (("GET", "/"), ("GET", "/job"), ("POST", "/events")):
        answer = bench.ask(method, path, b"", Host=named, X_Pocketship_Session=bench.session)
        assert (answer.status, answer.body) == (421, b"this server has another name\n")
    assert_goes_on(bench)


def test_no_name_at_all_is_refused(bench):
    assert b" 421 " in bench.raw(b"GET / HTTP/1.0\r\n\r\n").splitlines()[0]


def test_localhost_is_a_name_of_ours(bench):
    assert bench.ask("GET", "/", Host=f"localhost:{bench.address[1]}").status == 200


def test_a_page_of_another_site_may_not_post(bench):
    bench.open()
    for origin in ("http://evil.example", "null", "https://127.0.0.1", bench.origin + "0"):
        answer = bench.post("/events", post(0, DEVICE), Origin=origin)
        assert (answer.status, answer.body) == (403, b"a page of another site may not ask here\n")
    assert bench.post("/leave", b"x", Origin=bench.origin).status == 422, "its own page may"
    assert_goes_on(bench)


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.pem",
        "/../../../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/onnx/../secret.pem",
        "/onnx/",
        "/onnx",
        "/files/99",
        "/files/../job",
        "/files/0/../../secret.pem",
        "/index.html%00.js",
        "/a model.onnx".replace(" ", "%20"),
        "\\..\\secret.pem",
        "/" + "a" * 5000,
    ],
)
def test_no_path_reaches_the_file_system(bench, path):
    bench.open()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{bench.address[1]}\r\n"
    answer = bench.raw(f"{request}X-Pocketship-Session: {bench.session}\r\nConnection: close\r\n\r\n".encode())
    assert b" 404 " in answer.splitlines()[0]
    assert b"not of the page" not in answer and b"root:" not in answer
    assert_goes_on(bench)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "<script>"])
@pytest.mark.parametrize("path", ["/", "/events"])
def test_another_method_is_refused(bench, method, path):
    bench.open()
    answer = bench.ask(method, path, X_Pocketship_Session=bench.session)
    assert answer.status == 405
    assert_goes_on(bench)


def test_get_of_what_is_posted_and_post_of_what_is_got(bench):
    bench.open()
    assert bench.get("/events").status == bench.get("/session").status == bench.post("/job", b"").status == 404
    assert bench.post("/", b"").body == b"nothing here has this name\n"
    assert_goes_on(bench)


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        (b"Content-Length: 33554433\r\n", 413, b"a post of more than 33,554,432 bytes"),
        (b"Content-Length: 99999999999999999999999999\r\n", 413, b"a post of more than 33,554,432 bytes"),
        (b"Content-Length: -1\r\n", 411, b"a post says how long it is"),
        (b"Content-Length: 1e3\r\n", 411, b"a post says how long it is"),
        ("Content-Length: ٣\r\n".encode(), 411, b"a post says how long it is"),
        (b"Transfer-Encoding: chunked\r\n", 411, b"a post says how long it is"),
        (b"", 422, b"Invalid JSON"),
    ],
)
def test_a_post_of_no_or_of_too_much_length_is_refused_unread(bench, headers, status, words):
    bench.open()
    start = f"POST /events HTTP/1.1\r\nHost: 127.0.0.1:{bench.address[1]}\r\nX-Pocketship-Session: {bench.session}\r\n"
    answer = bench.raw(start.encode() + headers + b"Connection: close\r\n\r\n")
    assert f" {status} ".encode() in answer.splitlines()[0] and words in answer
    assert_goes_on(bench)


def test_a_session_is_asked_for_without_a_body(bench):
    assert bench.ask("POST", "/session", b"x", X_Pocketship_Token=bench.desk.token).status == 413
    assert_goes_on(bench)


def test_headers_without_end_are_refused(bench):
    endless = b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\n"
    assert b" 431 " in bench.raw(endless).splitlines()[0]
    assert b" 414 " in bench.raw(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n").splitlines()[0]
    assert_goes_on(bench)


@pytest.mark.parametrize("sent", [b"", b'{"number":0'], ids=["nothing", "some"])
def test_a_post_that_drips_is_cut_off(bench, monkeypatch, sent):
    bench.open()
    monkeypatch.setattr(browser_server, "REQUEST_S", 0.5)
    start = f"POST /events HTTP/1.1\r\nHost: 127.0.0.1:{bench.address[1]}\r\nX-Pocketship-Session: {bench.session}\r\n"
    answer = bench.raw(start.encode() + b"Content-Length: 100\r\n\r\n" + sent)
    assert b" 408 " in answer.splitlines()[0] and b"the post took longer than 0.5 s" in answer
    monkeypatch.undo()
    assert_goes_on(bench)


def test_a_request_whose_bytes_keep_coming_one_by_one_is_cut_off(bench, monkeypatch):
    """One deadline for the whole, not one for each byte: else a drip holds a connection for hours."""
    monkeypatch.setattr(browser_server, "HEADERS_S", 0.5)
    with socket.create_connection(bench.address, timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        connection.settimeout(0.05)
        ended = False
        for _ in range(600):
            try:
                connection.sendall(b"a")
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
            if ended:
                break
        assert ended
    monkeypatch.undo()
    assert_goes_on(bench)


def test_a_post_that_ends_early_is_refused(bench):
    bench.open()
    with socket.create_connection(bench.address, timeout=30) as connection:
        start = f"POST /events HTTP/1.1\r\nHost: 127.0.0.1:{bench.address[1]}\r\n"
        connection.sendall(f"{start}X-Pocketship-Session: {bench.session}\r\nContent-Length: 100\r\n\r\nabc".encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 400 " in answer.splitlines()[0] and b"the post ended early" in answer
    assert_goes_on(bench)


def request_of(bench, path: str) -> bytes:
    """A request that leaves its connection open."""
    headers = f"Host: 127.0.0.1:{bench.address[1]}\r\nX-Pocketship-Session: {bench.session}\r\n"
    return f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nX-Slow: "], ids=["nothing", "half a request"])
@pytest.mark.parametrize("has_session", [False, True])
def test_strangers_who_hold_connections_keep_nobody_out(bench, monkeypatch, said, has_session):
    monkeypatch.setattr(browser_server, "HEADERS_S", 600.0)  # they give way to others, not to time
    if has_session:
        bench.open()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(bench.address, timeout=30)) for _ in range(80)]
        for connection in held:
            with contextlib.suppress(ConnectionError):
                connection.sendall(said)
        assert bench.get("/").status == 200
        held[0].settimeout(5.0)
        assert held[0].recv(1) == b"", "the first of them was closed"
        assert len(bench.server._connections) <= browser_server.MOST_OF_A_CLIENT
        assert_goes_on(bench)


def test_a_connection_that_has_shown_the_session_gives_way_to_nobody(bench, monkeypatch):
    bench.open()
    while bench.server._connections:  # that of open() has shown the session too
        time.sleep(0.01)
    monkeypatch.setattr(browser_server, "MOST_OF_A_CLIENT", 2)
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(socket.create_connection(bench.address, timeout=30)) for _ in range(2)]
        for connection in ours:
            connection.sendall(request_of(bench, "/job"))
            assert b" 200 OK" in connection.recv(100)
        assert bench.raw() == b"", "there is no room for a stranger"
        ours[0].sendall(request_of(bench, "/job"))
        assert ours[0].recv(100)
    assert_goes_on_soon(bench)


def test_in_all_there_are_so_many_and_of_the_largest_crowd_one_gives_way(bench):
    connections = {n: browser_server._Connection(n, client) for n, client in enumerate("aaabbc")}
    connections[0].is_known = True
    bench.server._connections = connections
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser_server, "MOST_CONNECTIONS", 6)
        assert [c.socket for c in bench.server._crowd("d")] == [0, 1, 2]
        patch.setattr(browser_server, "MOST_OF_A_CLIENT", 2)
        assert [c.socket for c in bench.server._crowd("b")] == [3, 4]
        patch.setattr(browser_server, "MOST_CONNECTIONS", 7)
        assert bench.server._crowd("c") == bench.server._crowd("d") == []


def assert_goes_on_soon(bench) -> None:
    """The same, once the server has seen that connections are gone."""
    for _ in range(1000):
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            if bench.get("/").status == 200:
                break
    assert_goes_on(bench)


def test_headers_that_do_not_come_end_a_connection(bench, monkeypatch):
    monkeypatch.setattr(browser_server, "HEADERS_S", 0.2)
    assert bench.raw(b"GET / HTTP/1.1\r\n") == b"", "closed without an answer"
    monkeypatch.undo()
    assert_goes_on(bench)


def test_a_defect_of_ours_is_told_and_does_not_end_the_bench(bench, monkeypatch):
    bench.open()
    monkeypatch.setattr(bench.desk, "leave", lambda body: 1 / 0)
    with pytest.raises(http.client.RemoteDisconnected, match="closed connection without response"):
        bench.post("/leave", b"{}")
    texts = [message["text"] for message in taken(bench.desk)]
    assert texts == ["refused a request from 127.0.0.1: 500 ZeroDivisionError: division by zero"]
    assert_goes_on(bench)


# --- where it serves -----------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_or_none_is_refused(bench):
    taken_port = bench.address[1]
    for bind, port in (("127.0.0.1", taken_port), ("203.0.113.7", 0), ("127.0.0.1", 70_000), ("no such name", 0)):
        with pytest.raises(BadInput) as caught, serving(bind, port, {}, bench.desk):
            pytest.fail("served")
        assert str(caught.value).startswith(f"{bind}:{port}: cannot serve there (")
        assert str(caught.value).endswith("); give another --bind or --port")


@pytest.mark.parametrize(
    ("bind", "is_it"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
    + [("192.168.1.2", False), ("", False), ("localhost.evil.example", False)],
)
def test_loopback_is_told_from_the_rest(bind, is_it):
    assert is_loopback(bind) == is_it


def test_served_on_all_addresses_it_names_one_that_can_be_opened(bench):
    with serving("0.0.0.0", 0, {}, bench.desk) as origin:
        assert "0.0.0.0" not in origin
        assert Bench(origin, bench.desk).ask("GET", "/").status == 404, "and it is a name of ours"


def test_served_on_ipv6(bench):
    with serving("::1", 0, {}, bench.desk) as origin:
        assert origin.startswith("http://[::1]:")
        assert Bench(origin, bench.desk).ask("GET", "/").status == 404


# --- files that cannot be served -----------------------------------------------------------------------------------


def test_a_page_that_is_not_built_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"the page for browsers is not built; make page \(needs node and npm\)"):
        page_routes(tmp_path / "dist")


def test_data_that_cannot_be_served_is_refused(tmp_path):
    job, files = job_with_files(tmp_path)
    cases = {
        r"cannot read the data \(": lambda path: path.write_bytes(b"PK no zip"),
        "the arrays have no common number of samples": lambda path: np.savez(path, x=np.ones(2), y=np.ones(3)),
        "x is <U3; give numbers": lambda path: np.savez(path, x=np.array(["abc"])),
    }
    for words, spoil in cases.items():
        spoil(files["d"])
        with pytest.raises(BadInput, match=words):
            job_files(job, files, 1.0)


def test_what_no_browser_runs_is_not_served(tmp_path):
    from dataclasses import replace

    job, files = job_with_files(tmp_path)
    package = replace(job.artifacts[1], format="coreml", file="p", name="p")
    served = job_files(replace(job, artifacts=(job.artifacts[0], package)), files, 1.0)
    assert list(json.loads(served.routes["/job"].content)["files"]) == ["a"]
