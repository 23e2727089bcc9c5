"""A board over ssh; see `benchmarks.devices.ssh.bench` for the course of a bench there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.devices import CHECK_S, OnEvent, Options
from benchmarks.job import Job
from runtimes.errors import BadInput, NotInstalled

if TYPE_CHECKING:
    from benchmarks.devices.ssh.link import Link


def run(target: str, job: Job, files: Mapping[str, Path], options: Options, on_event: OnEvent) -> None:
    """Do a job on the board `ssh://user@host[:port]`; see `benchmarks.devices`. An error of `on_event` ends it.

    Raises BadInput where the board cannot be used as it is, and Interrupted where it was lost on the way.
    """
    link = _link(target, options, lambda text: on_event({"event": "notice", "text": text}))
    from benchmarks.devices.ssh.bench import Bench

    packages = [artifact.name for artifact in job.artifacts if files[artifact.file].is_dir()]
    if packages:
        raise BadInput(
            f"{', '.join(packages)}: a Core ML package does not travel over ssh",
            where=target,
            remedy="bench it on that Mac itself, with --on local",
        )
    asyncio.run(_watched(Bench(link, job, files, options, on_event).run(), options.check))


def reach(target: str, options: Options) -> None:
    """Log in and hang up; raises as `run` does where the board does not answer, or takes none of our keys."""
    link = _link(target, options, lambda text: None)

    async def course() -> None:
        await link.connect()
        await link.close()

    asyncio.run(_watched(course(), options.check))


def _link(target: str, options: Options, notice: Callable[[str], None]) -> Link:
    """The link to a board, not yet connected.

    Raises NotInstalled without asyncssh, BadInput for what is no address.
    """
    try:
        from benchmarks.devices.ssh.keys import Address
        from benchmarks.devices.ssh.link import Link
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"{error.name} is not installed", where=target, remedy="pip install 'pocketship[bench]'"
        ) from error
    return Link(Address.of(target), options, notice)


async def _watched(course: Coroutine[Any, Any, None], check: Callable[[], None]) -> None:
    """Take a course to its end; whatever ends it before lets it clean up."""
    task = asyncio.ensure_future(course)
    try:
        while not task.done():
            check()
            await asyncio.wait([task], timeout=CHECK_S)
    except BaseException:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # asyncio complains of one that nobody looked at
        raise
    await task
