"""A bench on a board over ssh: put there what it lacks, let the agent work, tell its events as they come.

On the board, in ~/.cache/pocketship: `agent-HASH.pyz`, `site-HASHES/` (unpacked wheels, where the board's Python lacks
the runtime), `files/HASH.SUFFIX`, and while it works `jobs/ID/`. The agent works on when the link drops; its events lie
in a file, which is read on from where the link was cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.devices import Interrupted, OnEvent, Options
from benchmarks.devices.lines import Lines
from benchmarks.devices.ssh import agent_zip, wheels
from benchmarks.devices.ssh.answers import Facts, Probe, Started, Stopped, Unpacked
from benchmarks.devices.ssh.link import Dropped, Link, answer_of, disk_full, measure
from benchmarks.job import Job
from runtimes.errors import BadInput, PocketshipError

OLDEST_PYTHON = (3, 9)
TIDY_S = 60.0
MARGIN_S = 60.0
"""How much longer than the agent itself waits for a model."""
PROGRESS_BYTES = 1 << 18
LOG_TAIL_BYTES = 4096
SPARE_BYTES = 1 << 20
"""Room that events and logs may take on the board, beside the files."""
SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def site_of(sha256s: Sequence[str], has: Sequence[str]) -> tuple[str, bool]:
    """The folder of unpacked wheels with these hashes, which are in its name, and whether the board has it.

    One that holds others too will do. Without wheels there is none: "".
    """
    wanted = sorted(sha256[:12] for sha256 in sha256s)
    whole = [name for name in has if name.startswith("site-") and not name.endswith(".part")]
    there = [name for name in whole if set(wanted) <= set(name.split("-")[1:])]
    if not wanted or there:
        return (there[0], True) if wanted else ("", False)
    return "-".join(["site", *wanted]), False


class Bench:
    """One job on one board."""

    def __init__(self, link: Link, job: Job, files: Mapping[str, Path], options: Options, on_event: OnEvent) -> None:
        assert all(SAFE_NAME.fullmatch(name) for name in (job.id, *files)), "names are made by us"
        self._link, self._job, self._files, self._options, self._on_event = link, job, files, options, on_event
        self._where = link.address.target
        self._agent, self._folder, self._site = "", "", ""
        self._pid, self._may_run = 0, False
        self._offset, self._ended = 0, False

    async def run(self) -> None:
        """All of it; whatever happens, the board is left without the job."""
        await self._link.connect()
        try:
            await self._prepare()
            await self._start()
            await self._link.insist(self._follow)
            self._may_run = False
            if not self._ended:
                raise await self._killed()
        finally:
            await self._tidy()
            await self._link.close()

    async def _prepare(self) -> None:
        """See that the board can do the job, and put there what it lacks."""
        board = await self._link.insist(self._probe)
        self._folder = board.folder
        formats = sorted({artifact.format for artifact in self._job.artifacts})
        agent = agent_zip.build(formats)
        self._agent = f"{self._folder}/agent-{measure(agent)[1][:16]}.pyz"
        if Path(self._agent).name not in board.has:
            await self._link.insist(lambda: self._put(self._agent, agent))
        found = wheels.BoardPython.of(await self._link.insist(lambda: self._ask_agent(Facts, "facts")))
        given = await asyncio.to_thread(self._wheels, found, formats)
        site, is_there = site_of([measure(wheel)[1] for wheel in given], board.has)
        self._site = f"{self._folder}/{site}" if site else ""
        if is_there:
            given = ()
        sent = [(f"{self._folder}/files/{wheel.name}", wheel) for wheel in given]
        missing = await self._link.insist(self._missing)
        sent += [(f"{self._folder}/files/{name}", self._files[name]) for name in missing]
        self._check_room(sent, given, board.free_bytes)
        await self._push(sent)
        if given:
            await self._link.insist(lambda: self._unpack([f"{self._folder}/files/{wheel.name}" for wheel in given]))

    async def _probe(self) -> Probe:
        """What the board says of itself.

        Raises BadInput where it cannot do the job, whatever is put there.
        """
        done = await self._link.run(self._link.program("probe"))
        if done.exit_code == 127 and not done.stdout:
            raise BadInput("the board has no python3", where=self._where, remedy="install Python 3.9 or newer there")
        board: Probe = answer_of(done, Probe, self._where)
        if board.python < OLDEST_PYTHON:
            raise BadInput(
                f"the board has Python {board.python[0]}.{board.python[1]}",
                where=self._where,
                remedy="install Python 3.9 or newer there, as python3",
            )
        if board.error:
            raise BadInput(
                f"~/.cache/pocketship cannot be written: {board.error}",
                where=self._where,
                remedy="make it a folder that this user may write",
            )
        if board.busy:
            raise self._busy(board.busy)
        return board

    def _busy(self, holder: str) -> BadInput:
        return BadInput(f"another bench runs there ({holder})", where=self._where, remedy="wait for it, or stop it")

    def _wheels(self, board: wheels.BoardPython, formats: Sequence[str]) -> tuple[Path, ...]:
        try:
            required = wheels.needed(board, formats)
            return wheels.find(required, board, folder=self._options.wheels, on_notice=self._notice)
        except BadInput as error:
            raise BadInput(error.what, where=error.where or self._where, remedy=error.remedy) from error

    def _notice(self, text: str) -> None:
        self._on_event({"event": "notice", "text": f"{self._where}: {text}"})

    async def _missing(self) -> list[str]:
        """The names of the job's files that the board lacks, or has with other bytes."""
        wanted = json.dumps({name: measure(path)[1] for name, path in self._files.items()}).encode()
        found = await self._ask_agent(tuple[str, ...], "check", f"{self._folder}/files", stdin=wanted)
        return [name for name in self._files if name in found]

    def _check_room(self, sent: Sequence[tuple[str, Path]], given: Sequence[Path], free_bytes: int) -> None:
        """Better before the first byte than after the last that fits.

        Raises Interrupted("disk-full").
        """
        needed = sum(path.stat().st_size for _, path in sent)
        for wheel in given:
            with zipfile.ZipFile(wheel) as archive:
                needed += sum(entry.file_size for entry in archive.infolist())
        if needed and needed + SPARE_BYTES > free_bytes:
            raise disk_full(
                f"no room: {needed / 1e6:.1f} MB are to be put there, {free_bytes / 1e6:.1f} MB are free", self._where
            )

    async def _push(self, sent: Sequence[tuple[str, Path]]) -> None:
        """Put files there one after another, and tell how far it is."""
        sizes = [path.stat().st_size for _, path in sent]
        for number, (path, content) in enumerate(sent):
            await self._link.insist(partial(self._put, path, content, sum(sizes[:number]), sum(sizes)))

    async def _put(self, path: str, content: Path | bytes, before: int = 0, total: int = 0) -> None:
        """Put a file there; where there is a `total` of bytes, tell how many of them are there."""
        told = before
        async with contextlib.aclosing(self._link.put(path, content, self._job.id)) as pushing:
            async for at in pushing:
                done = before + at
                if total and (done == total or done - told >= max(PROGRESS_BYTES, total // 100)):
                    told = done
                    self._on_event({"event": "progress", "what": "push", "done": done, "total": total})

    async def _unpack(self, given: Sequence[str]) -> None:
        """Unpack wheels for the agent, and remove them."""
        await self._ask_agent(Unpacked, "unpack", *given, "--into", self._site)
        await self._link.run(self._link.program("remove", *given))

    async def _start(self) -> None:
        """Start the agent out of reach of this link."""
        asked = json.dumps(asdict(self._job)).encode()
        await self._link.insist(lambda: self._put(f"{self._place}/job.json", asked))
        tries = 0

        async def step() -> None:
            nonlocal tries
            tries += 1
            if tries > 1:  # the link may have dropped after the agent began, before it said so
                self._pid = await self._running()
            if not self._pid:
                files = ("--files", f"{self._folder}/files", "--log", f"{self._place}/agent.log")
                site = ("--site", self._site) if self._site else ()
                words = (f"{self._place}/job.json", *files, "--events", self._events, *site)
                self._may_run = True
                self._pid = (await self._ask_agent(Started, "start", *words)).pid

        await self._link.insist(step)

    async def _running(self) -> int:
        """The number of the agent that does our job, 0 where none does."""
        found: int = await self._link.ask(int, "running", f"{self._place}/job.json", self._events)
        return found

    async def _follow(self) -> None:
        """Tell the events from the first on that was not told, until the agent is gone."""
        words = ("follow", self._events, "--from", str(self._offset), "--pid", str(self._pid))
        lines, quiet_s = Lines(), self._job.timeout_s + max(self._job.warmup_s, self._job.data_s) + MARGIN_S
        stream = self._link.stream(self._agent_words(*words))
        try:
            async with asyncio.timeout(quiet_s) as limit, contextlib.aclosing(stream) as chunks:
                async for chunk in chunks:
                    for event, size_bytes in lines.feed(chunk):
                        self._offset += size_bytes
                        self._ended = self._ended or event.get("event") == "end"
                        self._on_event(event)
                        limit.reschedule(asyncio.get_running_loop().time() + quiet_s)
        except TimeoutError as error:
            what = f"the agent told nothing for {quiet_s:g} s"
            raise Interrupted("timed-out", what, where=self._where, remedy="bench again with --clean") from error

    async def _killed(self) -> PocketshipError:
        """Why the agent is gone before its job was done."""
        words = (f"{self._place}/agent.log", str(LOG_TAIL_BYTES))
        log: str = await self._link.insist(lambda: self._link.ask(str, "tail", *words))
        board: Probe = await self._link.insist(lambda: self._link.ask(Probe, "probe"))
        lines = log.strip().splitlines()
        error: Interrupted
        if board.free_bytes < SPARE_BYTES:
            error = disk_full("the agent ended before its job was done: the disk is full", self._where)
        else:
            last = f" (its log ends: {lines[-1]})" if lines else ""
            error = Interrupted(
                "agent-killed",
                f"the agent ended before its job was done{last}",
                where=self._where,
                remedy="look for the killer in the board's dmesg, such as too little memory, and bench again",
            )
        error.log_tail = log
        return error

    async def _tidy(self) -> None:
        """Stop what runs and remove the job; what cannot be reached now is swept up by a later bench."""
        if not self._link.connected or not self._folder:
            return
        with contextlib.suppress(Dropped, PocketshipError, TimeoutError):
            async with asyncio.timeout(TIDY_S):
                await self._link.insist(self._leave)

    async def _leave(self) -> None:
        if self._may_run:
            with contextlib.suppress(PocketshipError):  # whatever it answers, the job is removed
                pid = self._pid or await self._running()  # it was interrupted before it said its number
                if pid > 0:
                    await self._ask_agent(Stopped, "stop", str(pid))
        await self._link.run(self._link.program("leave", self._folder, self._job.id))
        if self._options.clean:
            await self._link.run(self._link.program("remove", self._folder))

    @property
    def _place(self) -> str:
        return f"{self._folder}/jobs/{self._job.id}"

    @property
    def _events(self) -> str:
        return f"{self._place}/events.jsonl"

    def _agent_words(self, *words: str) -> list[str]:
        return ["python3", self._agent, *words]

    async def _ask_agent(self, kind: Any, *words: str, stdin: bytes = b"") -> Any:
        """What the agent answers, as a value of `kind`.

        Raises BadInput where it refuses or cannot, Interrupted("disk-full") where that is why.
        """
        done = await self._link.run(self._agent_words(*words), stdin)
        if "No space left on device" in done.last_line:
            raise disk_full(f"the agent's {words[0]} says: {done.last_line}", self._where)
        return answer_of(done, kind, self._where)
