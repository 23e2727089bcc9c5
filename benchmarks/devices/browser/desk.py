"""Who may tell results, and what is believed of them: one token, one session, events in an order that can be true."""

from __future__ import annotations

import base64
import binascii
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.devices.browser.events import (
    Array,
    Batch,
    Block,
    Device,
    End,
    Energy,
    Event,
    Failed,
    Loaded,
    Memory,
    Outputs,
    Progress,
    Warm,
    batch_of,
    leave_of,
)
from benchmarks.job import Job, Json
from benchmarks.results.elapsed import SLACK, SLACK_S
from runtimes.compare import FLOAT32, compare
from runtimes.golden import Golden
from runtimes.signature import ExecutedBy
from runtimes.types import Parity

RUNTIMES = {"onnx": "onnxruntime-web", "tflite": "LiteRT.js"}
TOKEN_BYTES = 16
MOST_POSTS = 1_000_000
MOST_TOTAL_BYTES = 4 * 2**30
MOST_NOTICES = 10

UNAUTHORIZED = 401
FORBIDDEN = 403
CONFLICT = 409
TOO_LARGE = 413
UNPROCESSABLE = 422


class Denied(Exception):
    """A request is not granted: an HTTP status, and why, in one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Left:
    """The page gave up."""

    reason: str


@dataclass
class _Told:
    """What was told of one case."""

    loaded: int = 0
    warm: int = 0
    rows: dict[str, int] = field(default_factory=lambda: {"golden": 0, "data": 0})
    golden: list[dict[str, np.ndarray]] = field(default_factory=list)
    is_over: bool = False


class Desk:
    """Takes posts from any thread; what is believed is in `messages`, in order.

    `goldens` and `data_rows` are by the job's names of files. `facts` replaces what the page says of the device: who
    starts the browser knows better than the browser.
    """

    def __init__(
        self,
        job: Job,
        goldens: Mapping[str, Golden],
        data_rows: Mapping[str, int],
        *,
        facts: Mapping[str, object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.messages: queue.SimpleQueue[Json | Left] = queue.SimpleQueue()
        self._job, self._goldens, self._data_rows = job, goldens, data_rows
        self._facts, self._clock = dict(facts or {}), clock
        self._lock = threading.Lock()
        self._session = ""
        self._family = ""
        self._began_s = self._heard_s = clock()
        self._posts = self._total_bytes = self._notices = 0
        self._number = 0
        self._parity: list[Json] = []
        self._is_described = self._is_over = False
        self._at_ns = 0
        self._cases = [_Told() for _ in job.cases]

    @property
    def is_open(self) -> bool:
        """Whether a browser has come."""
        return bool(self._session)

    def silent_s(self) -> float:
        """Seconds since the browser was last heard; before it came, since the page was offered."""
        return self._clock() - self._heard_s

    def open_session(self, token: str, user_agent: str) -> str:
        """The session of the first browser that has the token, which is spent with it.

        Raises Denied for a wrong token, and for the right one a second time.
        """
        with self._lock:
            if not _same(token, self.token):
                raise Denied(FORBIDDEN, "This code is wrong. Scan or copy the one that the computer shows.")
            if self._session:
                raise Denied(
                    FORBIDDEN,
                    "This code was used already, by another browser or before this page was reloaded. "
                    "Start the bench again for a new one.",
                )
            self._session = secrets.token_urlsafe(TOKEN_BYTES)
            self._family = family_of(user_agent)
            self._began_s = self._heard_s = self._clock()
            return self._session

    def check(self, session: str) -> None:
        """Raises Denied for a session that is not the one."""
        if not self._session or not _same(session, self._session):
            raise Denied(UNAUTHORIZED, "no such session")

    def take(self, body: bytes) -> list[Json]:
        """Believe a post whose session was checked: how the golden outputs compare that it completes.

        A post that comes twice, since its answer was lost, is taken once. All of its events are believed or none.

        Raises Denied for one that is too much, is not the next one, or holds anything that cannot be true.
        """
        with self._lock:
            self._count(len(body))
            try:
                batch = batch_of(body)
            except ValueError as error:
                raise Denied(UNPROCESSABLE, str(error)) from error
            if batch.number == self._number - 1:
                return self._parity
            if batch.number != self._number:
                raise Denied(CONFLICT, f"post {batch.number} came where {self._number} was the next")
            return self._believed(batch)

    def leave(self, body: bytes) -> None:
        """The page gives up. Raises Denied for a reason that is none."""
        with self._lock:
            self._count(len(body))
            try:
                reason = leave_of(body).reason
            except ValueError as error:
                raise Denied(UNPROCESSABLE, str(error)) from error
            if not self._is_over:
                self.messages.put(Left(reason))

    def note(self, client: str, status: int, why: str) -> None:
        """Tell the user of a request that was not granted, of the first ten."""
        with self._lock:
            self._notices += 1
            if self._notices <= MOST_NOTICES:
                more = " (further ones are not shown)" if self._notices == MOST_NOTICES else ""
                self.messages.put({"event": "notice", "text": f"refused a request from {client}: {status} {why}{more}"})

    def _count(self, size_bytes: int) -> None:
        self._heard_s = self._clock()
        self._posts += 1
        self._total_bytes += size_bytes
        if self._posts > MOST_POSTS or self._total_bytes > MOST_TOTAL_BYTES:
            raise Denied(TOO_LARGE, f"more than {MOST_POSTS:,} posts or {MOST_TOTAL_BYTES:,} bytes in one session")

    def _believed(self, batch: Batch) -> list[Json]:
        """Check every event against a copy of what was told before; only then is any of them passed on."""
        before = (self._is_described, self._is_over, self._at_ns, [_copy(told) for told in self._cases])
        self._parity = []
        try:
            for event in batch.events:
                self._check(event)
        except ValueError as error:
            self._is_described, self._is_over, self._at_ns, self._cases = before
            raise Denied(UNPROCESSABLE, str(error)) from error
        self._number += 1
        for event in batch.events:
            self.messages.put(self._told(event))
        return self._parity

    def _told(self, event: Event) -> Json:
        value: Json = event.model_dump()
        if isinstance(event, Device):
            value["facts"] = {**value["facts"], "family": self._family, **self._facts, "executed": "browser"}
        return value

    def _check(self, event: Event) -> None:
        if self._is_over:
            raise ValueError(f"{event.event} after end")
        if isinstance(event, Device) == self._is_described:
            raise ValueError("device comes first, and once")
        self._is_described = True
        if isinstance(event, (Device, Progress, End)):
            self._is_over = isinstance(event, End)
            return
        if event.case >= len(self._cases):
            raise ValueError(f"case {event.case} of a job of {len(self._cases)}")
        told = self._cases[event.case]
        if told.is_over:
            raise ValueError(f"{event.event} of case {event.case}, which has failed")
        if not isinstance(event, (Loaded, Failed)) and not told.loaded:
            raise ValueError(f"{event.event} of case {event.case}, which is not loaded")
        self._check_case(event, told)

    def _check_case(self, event: Loaded | Outputs | Warm | Block | Memory | Energy | Failed, told: _Told) -> None:
        artifact = self._job.artifacts[self._job.cases[event.case].artifact]
        if isinstance(event, Failed):
            told.is_over = True
        elif isinstance(event, Loaded):
            told.loaded += 1
            if event.runtime != RUNTIMES.get(artifact.format):
                raise ValueError(f"{event.runtime} for a file of {artifact.format}")
            if (event.inputs == "golden") != (artifact.golden is not None):
                raise ValueError(f"inputs {event.inputs} of case {event.case}")
            if told.loaded > self._job.processes:
                raise ValueError(f"loaded {told.loaded} times in {self._job.processes} processes")
            self._passed(event.import_ns + event.load_cold_ns + event.load_warm_ns + event.first_inference_ns)
        elif isinstance(event, Warm):
            told.warm += 1
            self._passed(sum(event.warmup_ns))
        elif isinstance(event, Block):
            self._check_block(event, told)
        elif isinstance(event, Outputs):
            rows = (
                self._golden_rows(artifact.golden)
                if event.of == "golden"
                else self._data_rows.get(artifact.data or "", 0)
            )
            self._check_outputs(event, told, rows)
            if event.of == "golden":
                told.golden.append({name: _array(value) for name, value in event.outputs.items()})
                if len(told.golden) == rows:
                    self._parity.append(self._compared(event.case, artifact.golden or "", told.golden))

    def _check_block(self, event: Block, told: _Told) -> None:
        if not told.warm or event.process != told.loaded - 1:
            raise ValueError(f"a block of process {event.process}, which is not warm")
        if len(event.times_ns) > event.runs:
            raise ValueError(f"{len(event.times_ns)} times of {event.runs} runs")
        if event.at_ns < self._at_ns:
            raise ValueError(f"a block at {event.at_ns} ns after one at {self._at_ns} ns")
        self._at_ns = event.at_ns
        self._passed(event.at_ns + sum(event.times_ns))

    def _check_outputs(self, event: Outputs, told: _Told, rows: int) -> None:
        if event.of == "golden" and event.rows != 1:
            raise ValueError(f"{event.rows} golden samples in one event")
        if event.row != told.rows[event.of] or event.row + event.rows > rows:
            raise ValueError(f"{event.of} row {event.row} where {told.rows[event.of]} of {rows} is the next")
        told.rows[event.of] += event.rows
        for name, value in event.outputs.items():
            if event.of == "data" and value.shape[:1] != [event.rows]:
                raise ValueError(f"output {name} has shape {value.shape} of {event.rows} rows")
            _array(value)

    def _passed(self, ns: int) -> None:
        """Raises ValueError for a time that has not passed yet since the browser came."""
        most_ns = ((self._clock() - self._began_s) * SLACK + SLACK_S) * 1e9
        if ns > most_ns:
            raise ValueError(f"times of {ns / 1e9:.3g} s in a session of {most_ns / 1e9:.3g} s")

    def _golden_rows(self, key: str | None) -> int:
        return len(self._goldens[key].inputs) if key else 0

    def _compared(self, case: int, key: str, actual: list[dict[str, np.ndarray]]) -> Json:
        """What the page shows of a case's parity, at the tolerance of float32: the verdict that counts knows more."""
        by = ExecutedBy("browser", "", "browser")
        golden = self._goldens[key]
        measured = golden.noise.get(self._job.artifacts[self._job.cases[case].artifact].format)
        parity: Parity = compare(golden.outputs, actual, by, FLOAT32, measured)
        error = parity.max_rel_error
        known = error if np.isfinite(error) else None
        return {"case": case, "verdict": parity.verdict, "max_rel_error": known, "reason": parity.reason}


def family_of(user_agent: str) -> str:
    """The machine that a browser runs on, as far as its user agent tells: a phone (or tablet), or a desktop."""
    return "phone" if any(word in user_agent for word in ("Android", "iPhone", "iPad", "Mobile")) else "desktop"


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _copy(told: _Told) -> _Told:
    return _Told(told.loaded, told.warm, dict(told.rows), list(told.golden), told.is_over)


def _array(value: Array) -> np.ndarray:
    """The numbers of an output. Raises ValueError where its bytes are not those of its type and shape."""
    size_bytes = value.size_bytes()
    try:
        data = base64.b64decode(value.data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"outputs that are no base64 ({error})") from error
    if len(data) != size_bytes:
        raise ValueError(f"{len(data)} bytes of {value.dtype} {value.shape}, which has {size_bytes}")
    return np.frombuffer(data, np.dtype(value.dtype).newbyteorder("<")).reshape(value.shape)
