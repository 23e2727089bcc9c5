"""The HTTP server for a browser that measures: known names, one session, requests bounded in size and time."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.devices.browser.desk import TOO_LARGE, Denied, Desk
from benchmarks.devices.browser.files import Given
from runtimes.errors import BadInput

MOST_POST_BYTES = 32 * 2**20
MOST_CONNECTIONS = 64
MOST_OF_A_CLIENT = 16
"""Of one address; a browser has six."""
HEADERS_S = 10.0
"""On a connection that has not shown the session, a request's headers come within this time."""
REQUEST_S = 60.0
"""The body of a request comes within this time; so does each part of an answer."""
CHUNK_BYTES = 1 << 18
DRAIN_S = 2.0
TOKEN_HEADER = "X-Pocketship-Token"
SESSION_HEADER = "X-Pocketship-Session"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer, errors included; opener and embedder policy let a page on localhost have several threads."""


@dataclass(eq=False)
class _Connection:
    """One connection: `is_waiting` until a request's headers are there, `is_known` once it has shown the session."""

    socket: socket.socket
    client: str
    is_waiting: bool = True
    is_known: bool = False


class Server(ThreadingHTTPServer):
    """Serves `routes` and `desk`; each connection has a thread, of which there are so many at most.

    Where there is no room, the connection of a stranger that has waited longest gives way: nobody who opens connections
    and says nothing can keep the browser out that has the session, or the token.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Given], desk: Desk, host: str) -> None:
        self.routes, self.desk, self.host = routes, desk, host
        self._connections: dict[Any, _Connection] = {}
        self._busy = 0
        self._lock = threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as the base class does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it where there are too many and none gives way."""
        connection = _Connection(request, client_address[0])
        with self._lock:
            crowd = self._crowd(connection.client)
            strangers = [other for other in crowd if not other.is_known]
            if crowd and not strangers:
                self.shutdown_request(request)
                return
            if strangers:
                oldest = next((other for other in strangers if other.is_waiting), strangers[0])
                del self._connections[oldest.socket]
                with contextlib.suppress(OSError):
                    oldest.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
            self._connections[request] = connection
        super().process_request(request, client_address)

    def _crowd(self, client: str) -> list[_Connection]:
        """The connections of which one must give way to a new one of `client`, oldest first; none if there is room."""
        every = list(self._connections.values())
        own = [other for other in every if other.client == client]
        if len(own) >= MOST_OF_A_CLIENT:
            return own
        if len(every) < MOST_CONNECTIONS:
            return []
        ((largest, _),) = Counter(other.client for other in every).most_common(1)
        return [other for other in every if other.client == largest]

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(request, None)

    def connection_of(self, request: Any) -> _Connection:
        """What is known of a connection; of one that had to give way, what no longer matters."""
        return self._connections.get(request) or _Connection(request, "")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the browser's matter, which asks again; anything else is ours, and is told."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.desk.note(client_address[0], 500, f"{type(error).__name__}: {error}")

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While a request is answered."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._lock.notify_all()

    def drain(self) -> None:
        """Wait until what was asked is answered, for two seconds at most."""
        with self._lock:
            self._lock.wait_for(lambda: self._busy == 0, DRAIN_S)


@contextlib.contextmanager
def serving(bind: str, port: int, routes: Mapping[str, Given], desk: Desk) -> Iterator[str]:
    """Serve until the block is left; gives the origin to open, as in `http://127.0.0.1:41234`.

    Raises BadInput where the address cannot be served on.
    """
    try:
        server = Server((bind, port), routes, desk, bind)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInput(
            f"cannot serve there ({why})", where=f"{bind}:{port}", remedy="give another --bind or --port"
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://{_in_url(_reachable(bind))}:{server.server_port}"
        finally:
            server.drain()
            server.shutdown()
            thread.join()


def is_loopback(bind: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def _reachable(bind: str) -> str:
    """The address to open; of a machine that is served on all of its addresses, the one towards other networks."""
    if bind not in ("", "0.0.0.0", "::"):
        return bind
    family, somewhere = (socket.AF_INET6, "2001:db8::1") if bind == "::" else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((somewhere, 9))  # sends nothing: it only asks which address would be used
        except OSError:
            return "localhost"
        return str(probe.getsockname()[0])


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Bounded(io.RawIOBase):
    """A connection's bytes, with a deadline for all headers of a request and one for its body, however they drip in."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.restart(HEADERS_S)

    def restart(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = default_request_version = "HTTP/1.1"  # an answer without headers to HTTP/0.9 is none of ours
    server_version, sys_version = "pocketship", ""

    def setup(self) -> None:
        super().setup()
        self._bounded = _Bounded(self.connection)
        self.rfile = io.BufferedReader(self._bounded)
        self._known = self.server.connection_of(self.connection)

    def handle_one_request(self) -> None:
        self._known.is_waiting = True
        self._bounded.restart(REQUEST_S if self._known.is_known else HEADERS_S)
        super().handle_one_request()

    def log_message(self, *words: Any) -> None:
        """Nothing: the desk tells what is worth telling."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class has to say of a request that is none: no header may be missing there either."""
        self.close_connection = True
        unknown_method = code == 501
        self._answer(405 if unknown_method else code, b"GET or POST\n" if unknown_method else b"no such request\n")

    def do_GET(self) -> None:
        with self._granted():
            given = self.server.routes.get(urlsplit(self.path).path)
            if given is None:
                raise Denied(404, "nothing here has this name")
            if given.is_private:
                self._check_session()
            if isinstance(given.content, Path):
                self._send_file(given.content, given.content_type, given.encoding)
            else:
                self._answer(200, given.content, given.content_type)

    def do_POST(self) -> None:
        with self._granted():
            desk, path = self.server.desk, self.path
            if path == "/session":
                self._body(0)
                session = desk.open_session(self._header(TOKEN_HEADER), self._header("User-Agent"))
                self._known.is_known = True
                self._answer_json({"session": session})
            elif path in ("/events", "/leave"):
                self._check_session()
                body = self._body(MOST_POST_BYTES)
                if path == "/leave":
                    desk.leave(body)
                self._answer_json({"parity": desk.take(body) if path == "/events" else []})
            else:
                raise Denied(404, "nothing here has this name")

    @contextlib.contextmanager
    def _granted(self) -> Iterator[None]:
        """Answer, or say why not; after a refusal the connection ends, with what is unread of it."""
        self._known.is_waiting = False
        with self.server.answering():
            try:
                self._check_host()
                yield
            except Denied as error:
                self.server.desk.note(self.client_address[0], error.status, str(error))
                self.close_connection = True
                self._answer(error.status, f"{error}\n".encode())

    def _check_host(self) -> None:
        """A page of another site, or one whose name was bent to this address, is not ours."""
        address, port = self.connection.getsockname()[:2]
        names = {address, self.server.host} | ({"localhost"} if is_loopback(address) else set())
        hosts = {f"{_in_url(name)}:{port}" for name in names if name}
        host = self._header("Host").lower()
        if host not in hosts:
            raise Denied(421, "this server has another name")
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Denied(403, "a page of another site may not ask here")

    def _check_session(self) -> None:
        """Raises Denied for a request without the session; a connection that shows it need not give way any more."""
        self.server.desk.check(self._header(SESSION_HEADER))
        self._known.is_known = True

    def _header(self, name: str) -> str:
        found: str = self.headers.get(name, "")
        return found

    def _body(self, most_bytes: int) -> bytes:
        length = self._header("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not (length.isascii() and length.isdigit()):
            raise Denied(411, "a post says how long it is")
        if len(length) > 12 or int(length) > most_bytes:
            raise Denied(TOO_LARGE, f"a post of more than {most_bytes:,} bytes")
        self._bounded.restart(REQUEST_S)
        try:
            body = self.rfile.read(int(length))
        except TimeoutError as error:
            raise Denied(408, f"the post took longer than {REQUEST_S:g} s") from error
        if len(body) < int(length):
            raise Denied(400, "the post ended early")
        return body

    def _answer_json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), "application/json")

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self._head(status, content_type, len(body))
        if self.command != "HEAD":
            for start in range(0, len(body), CHUNK_BYTES):
                self._write(body[start : start + CHUNK_BYTES])

    def _send_file(self, path: Path, content_type: str, encoding: str) -> None:
        with open(path, "rb") as stream:
            self._head(200, content_type, path.stat().st_size, encoding)
            while chunk := stream.read(CHUNK_BYTES):
                self._write(chunk)

    def _head(self, status: int, content_type: str, size_bytes: int, encoding: str = "") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(size_bytes))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _write(self, part: bytes) -> None:
        self.connection.settimeout(REQUEST_S)
        self.wfile.write(part)
