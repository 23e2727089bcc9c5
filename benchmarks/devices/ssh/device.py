"""A board over ssh; see `benchmarks.devices.ssh.bench` for the course of a bench there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from benchmarks.devices import OnEvent, Options
from benchmarks.job import Job
from runtimes.errors import BadInput, NotInstalled


def run(target: str, job: Job, files: Mapping[str, Path], options: Options, on_event: OnEvent) -> None:
    """Do a job on the board `ssh://user@host[:port]`; see `benchmarks.devices`. An error of `on_event` ends it.

    Raises BadInput where the board cannot be used as it is, and Interrupted where it was lost on the way.
    """
    try:
        from benchmarks.devices.ssh.bench import Bench
        from benchmarks.devices.ssh.keys import Address
        from benchmarks.devices.ssh.link import Link
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"{error.name} is not installed", where=target, remedy="pip install 'pocketship[bench]'"
        ) from error
    address = Address.of(target)
    packages = [artifact.name for artifact in job.artifacts if files[artifact.file].is_dir()]
    if packages:
        raise BadInput(
            f"{', '.join(packages)}: a Core ML package does not travel over ssh",
            where=target,
            remedy="bench it on that Mac itself, with --on local",
        )
    link = Link(address, options, lambda text: on_event({"event": "notice", "text": text}))
    asyncio.run(Bench(link, job, files, options, on_event).run())
