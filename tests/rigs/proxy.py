"""A link to a board that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.rigs.pi import Pi


class Proxy:
    """A TCP proxy in front of a board; `cut` breaks what goes through it, and `refuse` lets nothing through again.

    With `cut_after` it breaks the first link by itself once so many bytes have gone to the board.
    """

    def __init__(self, port: int, cut_after: int | None = None) -> None:
        self._board_port, self.cut_after = port, cut_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._links: list[socket.socket] = []
        self.sent_bytes = 0
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._board_port))
                for end in (here, there):  # little is to be on its way when a link is cut
                    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                        end.setsockopt(socket.SOL_SOCKET, buffer, 1 << 16)
                self.connections += 1
                self._links += [here, there]
                threading.Thread(target=self._pump, args=(here, there, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(there, here, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, to_board: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 14):
                sink.sendall(chunk)
                if to_board:
                    self.sent_bytes += len(chunk)
                    if self.cut_after is not None and self.sent_bytes >= self.cut_after:
                        self.cut_after = None
                        self.cut()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every link, as a network does."""
        links, self._links = self._links, []
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Let nobody in any more, and break what is."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def target(self, pi: Pi) -> str:
        """The board's target by way of this proxy; its address is written into the board's file of known hosts."""
        key = pi.known_hosts.read_text().split(maxsplit=1)[1].splitlines()[0]
        with open(pi.known_hosts, "a", encoding="utf-8") as known:
            known.write(f"[127.0.0.1]:{self.port} {key}\n")
        return f"ssh://pi@127.0.0.1:{self.port}"
