"""The link to a board over ssh: whom it trusts, how it logs in, what it runs there, how it comes back when it drops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import shlex
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from benchmarks.devices import Interrupted, Options
from benchmarks.devices.lines import refusal_of
from benchmarks.devices.ssh.answers import Put, read_answer, typed
from benchmarks.devices.ssh.keys import Address, HostKeys, host_key_kinds, private_key, read_known_hosts
from runtimes.errors import BadInput

CONNECT_TIMEOUT_S = 30.0
KEEPALIVE_S = 15.0
"""Often enough to find a dead link within a minute, too seldom to be seen among the times that a board measures."""
KEEPALIVES_MISSED = 3
RECONNECT_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 30.0)
MOST_DROPS = 20
CHUNK_BYTES = 1 << 16
MOST_ANSWER_BYTES = 1 << 24
ANSWER_S = 600.0
"""A slow board unpacks its wheels in a minute."""
BOARD_PROGRAM = Path(__file__).with_name("board.py")

T = TypeVar("T")


class Unreachable(BadInput):
    """Nothing that speaks ssh answers at the address, at least now."""


class Dropped(Exception):
    """The link broke while something ran over it."""


@dataclass(frozen=True)
class Done:
    """How a program on the board ended, and what it printed."""

    exit_code: int
    stdout: bytes
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of its errors, or of its output."""
        lines = (self.stderr.strip() or self.stdout.decode(errors="replace").strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.exit_code} and no word"


class Link:
    """A connection to a board that is made again when it drops. `notice(text)` hears what a user should know."""

    def __init__(self, address: Address, options: Options, notice: Callable[[str], None]) -> None:
        self.address, self._options, self._notice = address, options, notice
        self._connection: asyncssh.SSHClientConnection | None = None
        self._drops = 0
        self._program = BOARD_PROGRAM.read_text(encoding="utf-8")

    async def connect(self) -> None:
        """Log in.

        Raises BadInput where the host key or our key is refused, and its subclass Unreachable where nothing answers.
        """
        where = self.address.target
        file = self._options.known_hosts or Path.home() / ".ssh" / "known_hosts"
        known = read_known_hosts(file)
        checker = HostKeys(self.address, known, file, self._options.accept_new_host_key)
        identity = self._options.identity
        keys = {"client_keys": [private_key(identity)], "agent_path": None} if identity else {}
        user = {"username": self.address.user} if self.address.user else {}
        try:
            self._connection = await asyncssh.connect(
                self.address.host,
                self.address.port,
                known_hosts=known,
                server_host_key_algs=host_key_kinds(known, checker.names(self.address.host)),
                client_factory=lambda: checker,
                preferred_auth="publickey",
                connect_timeout=CONNECT_TIMEOUT_S,
                login_timeout=CONNECT_TIMEOUT_S,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVES_MISSED,
                **keys,
                **user,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise checker.problem or BadInput(str(error), where=where, remedy=f"see {file}") from error
        except asyncssh.PermissionDenied as error:
            raise BadInput(
                "it takes none of our keys",
                where=where,
                remedy="append your public key to ~/.ssh/authorized_keys there (ssh-copy-id), or give another one with "
                "--identity",
            ) from error
        except asyncssh.KeyExchangeFailed as error:
            raise BadInput(f"no common way to speak ({error.reason})", where=where, remedy="update its sshd") from error
        except (OSError, asyncssh.Error) as error:
            remedy = "check address, power and sshd"
            raise Unreachable(f"no board answers ({_said(error)})", where=where, remedy=remedy) from error
        if checker.accepted:
            self._notice(f"{where}: host key {checker.accepted} noted in {file}")

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as one knows."""
        return self._connection is not None

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def insist(self, step: Callable[[], Awaitable[T]]) -> T:
        """What `step` gives; it is done again, over a new connection, when the link drops in it.

        Raises Interrupted("link-lost") where it does not come back, or drops over and over.
        """
        while True:
            try:
                return await step()
            except Dropped as error:
                await self._reconnect(error)

    async def _reconnect(self, dropped: Dropped) -> None:
        await self.close()
        self._drops += 1
        where, reason = self.address.target, str(dropped)
        remedy = "check its power and network, then bench again; what was measured by then is kept"
        if self._drops > MOST_DROPS:
            raise Interrupted("link-lost", f"the link dropped {self._drops} times", where=where, remedy=remedy)
        self._notice(f"{where}: the link dropped ({reason}), connecting again")
        for delay in RECONNECT_DELAYS_S:
            await asyncio.sleep(delay)
            try:
                await self.connect()
            except Unreachable as error:
                reason = error.what
                continue
            self._notice(f"{where}: connected again")
            return
        raise Interrupted("link-lost", f"the link was lost: {reason}", where=where, remedy=remedy)

    async def run(self, words: Sequence[str], stdin: bytes = b"") -> Done:
        """Run a program there and wait for it.

        Raises Dropped, BadInput for one that prints more than any of ours, and Interrupted for one that does not end.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._run(words, stdin)
        except TimeoutError as error:
            what, remedy = f"it gave no answer within {ANSWER_S:g} s", "look what keeps it busy, and bench again"
            raise Interrupted("timed-out", what, where=self.address.target, remedy=remedy) from error

    async def _run(self, words: Sequence[str], stdin: bytes) -> Done:
        with _dropping():
            process = await self._alive().create_process(shlex.join(words), encoding=None)
            try:
                if stdin:
                    process.stdin.write(stdin)
                    process.stdin.write_eof()
                stdout, stderr = await asyncio.gather(self._all(process.stdout), self._all(process.stderr))
                await process.wait_closed()
            finally:
                process.close()
            if process.exit_status is None:
                raise Dropped("connection closed")
            return Done(process.exit_status, stdout, stderr.decode(errors="replace"))

    async def _all(self, stream: asyncssh.SSHReader[bytes]) -> bytes:
        """All that a program prints there, which is not much."""
        found = bytearray()
        while chunk := await stream.read(CHUNK_BYTES):
            found += chunk
            if len(found) > MOST_ANSWER_BYTES:
                what, remedy = f"it answers with more than {MOST_ANSWER_BYTES:,} bytes", "do not trust this board"
                raise BadInput(what, where=self.address.target, remedy=remedy)
        return bytes(found)

    def program(self, command: str, *words: str) -> list[str]:
        """What runs a command of board.py."""
        return ["python3", "-I", "-S", "-c", self._program, command, *words]

    async def ask(self, kind: Any, command: str, *words: str) -> Any:
        """What a command of board.py prints, as a value of `kind`.

        Raises Dropped, and BadInput where it cannot run, or prints anything else.
        """
        done = await self.run(self.program(command, *words))
        return answer_of(done, kind, self.address.target)

    async def put(self, path: str, content: Path | bytes, sender: str) -> AsyncGenerator[int, None]:
        """Write a file there, whole or not at all: tells how many of its bytes are there.

        Raises Dropped (another call goes on where this one was cut), Interrupted("disk-full"), and BadInput.
        """
        size_bytes, sha256 = measure(content)
        words = self.program("put", path, str(size_bytes), sha256, sender)
        with _dropping():
            process = await self._alive().create_process(shlex.join(words), encoding=None)
            try:
                answer = await self._put_answer(process)
                if answer.have is not None:
                    for chunk, at in _chunks(content, min(max(answer.have, 0), size_bytes)):
                        if not await _sent(process.stdin, chunk):
                            break
                        yield at
                    answer = await self._put_answer(process)
                await process.wait_closed()
                if not (answer.done or answer.error):
                    said = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
                    answer = Put(error=said[-1] if said else f"exit code {process.exit_status}")
            finally:
                process.close()
            if process.exit_status is None and not answer.done:
                raise Dropped("connection closed")
        if answer.done:
            return
        what, where = f"{Path(path).name} cannot be written: {answer.error}", self.address.target
        if answer.full:
            raise disk_full(what, where)
        raise BadInput(what, where=where, remedy="check the board's disk")

    async def stream(self, words: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """What a program there prints, as it comes.

        Raises Dropped, also where the program does not end by itself.
        """
        with _dropping():
            process = await self._alive().create_process(shlex.join(words), encoding=None, stdin=asyncssh.DEVNULL)
            try:
                while chunk := await process.stdout.read(CHUNK_BYTES):
                    yield chunk
                await process.wait_closed()
                if process.exit_status != 0:
                    raise Dropped("connection closed")
            finally:
                process.close()

    async def _put_answer(self, process: asyncssh.SSHClientProcess[bytes]) -> Put:
        """The next line of `put`, nothing at its end."""
        line = await process.stdout.readline()
        found: Put = read_answer(line, Put, self.address.target) if line.endswith(b"\n") else Put()
        return found

    def _alive(self) -> asyncssh.SSHClientConnection:
        if self._connection is None or self._connection.is_closed():
            raise Dropped("connection closed")
        return self._connection


def measure(content: Path | bytes) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file or of bytes."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def answer_of(done: Done, kind: Any, where: str) -> Any:
    """The JSON line that a program on the board has printed, as a value of `kind`.

    Raises BadInput where it has printed none, or anything else.
    """
    try:
        value = json.loads(done.stdout)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"python3 there says: {done.last_line:.500}", where=where, remedy="try it by hand") from error
    if isinstance(value, dict) and "refused" in value:
        raise refusal_of(value["refused"], where)
    return typed(value, kind, where)


def disk_full(what: str, where: str) -> Interrupted:
    """The error of a board's full disk."""
    return Interrupted("disk-full", what, where=where, remedy="make room there, or bench with --clean once")


def _chunks(content: Path | bytes, at: int) -> Iterator[tuple[bytes, int]]:
    """The content from a byte on, in pieces, each with the number of bytes up to its end.

    Raises BadInput for a file that cannot be read.
    """
    try:
        with io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb") as file:
            file.seek(at)
            while chunk := file.read(CHUNK_BYTES):
                at += len(chunk)
                yield chunk, at
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(content), remedy="check the file") from error


async def _sent(stdin: asyncssh.SSHWriter[bytes], chunk: bytes) -> bool:
    """Send a chunk; False where the program or the link has ended: what is read next says why."""
    try:
        stdin.write(chunk)
        await stdin.drain()
        await asyncio.sleep(0)  # let a broken link be seen: a write does not see it
    except BrokenPipeError:
        return False
    return not stdin.is_closing()


@contextlib.contextmanager
def _dropping() -> Iterator[None]:
    """Whatever a library says when a connection breaks becomes Dropped."""
    try:
        yield
    except (asyncssh.Error, OSError) as error:
        raise Dropped(_said(error)) from error


def _said(error: Exception) -> str:
    """What an error of the network or of ssh says, in words: asyncio tells some only as a number."""
    number = getattr(error, "errno", None) or 0
    words = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or getattr(error, "reason", None)
    return words or str(error) or "no answer in time"
