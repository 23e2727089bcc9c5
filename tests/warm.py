"""Warm processes: what the tests would start anew is forked from one process that has imported the converters.

A cold `pocketship export` spends most of 9 to 25 s of processor time on imports, in itself and in each child. The
server here imports once a test run; `Process` looks like `subprocess.Popen`. Tests marked `cold` start real ones.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
FOLDER, OWNER, COLD = "POCKETSHIP_TEST_WARM", "POCKETSHIP_TEST_OWNER", "POCKETSHIP_TEST_COLD"
"""Environment variables: the folder of the server's socket, the process with which it ends, and, where it is set, that
every process is to start cold."""
READ_AT_IMPORT = ("HF_", "TRANSFORMERS_")
START_S = 180.0
MODULES = (
    "ai_edge_litert.interpreter",
    "coremltools",
    "jsonschema",
    "litert_torch",
    "jaxlib.mlir.dialects.func",
    "jaxlib.mlir.dialects.stablehlo",
    "matplotlib.figure",
    "networkx",
    "onnx",
    "onnxscript",
    "optimum.exporters.onnx",
    "pydantic",
    "rich._emoji_codes",
    "scipy.cluster.hierarchy",
    "sklearn.datasets",
    "torch.onnx._internal.exporter._core",
    "torch_pruning",
    "transformers",
    "zstandard",
)
"""Libraries that commands and their children import, beside the project's own modules; onnxruntime starts a thread."""


# The server ------------------------------------------------------------------------------------------------------


def import_everything() -> None:
    """Import the libraries and every module of the project but the scripts, which run when they are imported."""
    for name in MODULES:
        importlib.import_module(name)
    for package in ("runtimes", "benchmarks", "exporter"):
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if not {"__main__", "peers", "templates"} & set(parts):
                importlib.import_module(".".join(parts).removesuffix(".__init__"))
    from torch._export.utils import _collect_all_valid_cia_ops

    from exporter.lowering.to_onnx import TORCHLIB_OPSET, translations

    _collect_all_valid_cia_ops()  # torch keeps what it finds: a second of every lowering
    for opset in (TORCHLIB_OPSET, 20):
        translations(opset)


def serve(address: str, owner: int) -> None:
    """Fork a process for each request that comes in at `address`, until the process `owner` has ended."""
    import_everything()
    gc.collect()
    gc.freeze()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"a process of {threads} threads cannot be forked safely"
    selector = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX)
    selector.register(os.pidfd_open(owner), selectors.EVENT_READ, "owner")
    selector.register(listener, selectors.EVENT_READ, "request")
    listener.bind(f"{address}.new")
    listener.listen(64)
    Path(f"{address}.new").rename(address)  # once it is there, it answers
    while True:
        for key, _ in selector.select():
            if key.data == "owner":
                return
            if key.data == "request":
                _answer(listener, selector)
            else:
                _report_end(key, selector)


def _answer(listener: socket.socket, selector: selectors.BaseSelector) -> None:
    connection, _ = listener.accept()
    request, descriptors = _receive(connection)
    pid = os.fork()
    if pid == 0:
        try:
            if request["new_session"]:
                os.setsid()  # before the pid is told: who knows it may kill its group
            connection.sendall(struct.pack("i", os.getpid()))
            _become(request, descriptors, [*(key.fd for key in selector.get_map().values()), connection.fileno()])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    for descriptor in descriptors:
        os.close(descriptor)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))


def _report_end(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    pid, connection = key.data
    _, status = os.waitpid(pid, 0)
    with suppress(OSError):  # nobody waits any more
        connection.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
    connection.close()
    selector.unregister(key.fileobj)
    os.close(key.fd)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    (length,) = struct.unpack_from("i", data)
    while len(data) < 4 + length:
        data += connection.recv(1 << 16)
    return json.loads(data[4:]), descriptors


def _become(request: Mapping[str, Any], descriptors: Sequence[int], ours: Sequence[int]) -> NoReturn:
    """Turn this fork into what was asked for, as if it had just been started."""
    for descriptor in ours:
        os.close(descriptor)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", -1, "utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    _fork_children()
    code = 1
    try:
        code = _run(request["role"], request["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # as Python waits for threads that are no daemons
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(role: str, words: Sequence[str]) -> int:
    if role == "child":
        from runtimes.child import main as answer_one_call

        code = answer_one_call()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # as its own last line does
    if role == "script":
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).absolute().parent))
        runpy.run_path(words[0], run_name="__main__")
        sys.exit()
    from exporter.cli import main

    sys.argv = ["pocketship", *words]
    main()


# The client ------------------------------------------------------------------------------------------------------


class Process:
    """A process that the server forks: as much of `subprocess.Popen` as callers of the project use."""

    def __init__(
        self,
        role: str,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | str | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        start_new_session: bool = False,
    ) -> None:
        self.args = [role, *words]
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        theirs: list[int] = []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if given == subprocess.PIPE:
                read, write = os.pipe()
                mine, other = (write, read) if name == "stdin" else (read, write)
                setattr(self, name, open(mine, *(("wb", 0) if name == "stdin" else ("rb",))))  # noqa: SIM115
                theirs.append(other)
            elif given == subprocess.DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
            else:
                theirs.append(os.dup(given if isinstance(given, int) else given.fileno()))
        request = {
            "role": role,
            "words": list(words),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(env),
            "new_session": start_new_session,
        }
        data = json.dumps(request).encode()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_address(Path(os.environ[FOLDER])))
        message = struct.pack("i", len(data)) + data
        sent = socket.send_fds(self._connection, [message], theirs)
        self._connection.sendall(message[sent:])
        for descriptor in theirs:
            os.close(descriptor)
        (self.pid,) = struct.unpack("i", self._connection.recv(4))

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            ready, _, _ = select.select([self._connection], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            data = self._connection.recv(4)
            (self.returncode,) = struct.unpack("i", data) if data else (-signal.SIGKILL,)
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def is_warm(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment may be forked.

    Not where something of a test's own stands on Python's path, or where a variable is read when a library is imported.
    """
    path = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    same = all(value == os.environ.get(name) for name, value in env.items() if name.startswith(READ_AT_IMPORT))
    same = same and env.get("PYTHONHASHSEED", "0") == "0"
    return FOLDER in os.environ and COLD not in os.environ and same and all(Path(entry) == ROOT for entry in path)


def let_children_be_forked(folder: Path, owner: int) -> None:
    """From now on this process, and those it starts, fork what they would start anew; the server ends with `owner`."""
    if sys.platform == "linux":
        os.environ.update({FOLDER: str(folder), OWNER: str(owner)})
        _fork_children()


def _fork_children() -> None:
    from runtimes import child

    class Subprocess:
        """The module subprocess, but for Popen of a child."""

        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

        @staticmethod
        def Popen(command: Sequence[str], **options: Any) -> Any:
            if tuple(command) == (sys.executable, *child.SERVE) and is_warm(options["env"]):
                return Process("child", (), **options)
            return subprocess.Popen(command, **options)

    child.subprocess = Subprocess()  # type: ignore[assignment]


def run(words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `pocketship WORDS` in a warm process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = Process("pocketship", words, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            ["pocketship", *words], code, out.read().decode(errors="replace"), err.read().decode(errors="replace")
        )


def _address(folder: Path) -> str:
    """The server's socket; the first process of a run that asks starts the server."""
    address, log = folder / "warm", folder / "warm.log"
    if address.exists():
        return str(address)
    with open(folder / "warm.lock", "w") as lock, open(log, "a") as output:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if address.exists():
            return str(address)
        path = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(address), os.environ[OWNER]],
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_S
        while not address.exists():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.02)
    return str(address)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
