"""The history of results: a table that only grows, in SQLite by default, in any database that SQLAlchemy knows else.

Append-only is held by triggers in SQLite; in a team's database give the benches a role that may only INSERT and SELECT.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from benchmarks.results.result import Result, result_from_json
from runtimes.errors import BadInput, NotInstalled, PocketshipError

HISTORY_VERSION = 1
NONE = "none"
BUSY_S = 60.0
"""How long one process waits for another one's write: an append takes milliseconds."""
REMEDY = "give --history sqlite:///FILE, another SQLAlchemy URL, or none"

_TABLES = sa.MetaData()
_VERSION = sa.Table("pocketship_history", _TABLES, sa.Column("version", sa.Integer, primary_key=True))
_RESULTS = sa.Table(
    "pocketship_results",
    _TABLES,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("started_at", sa.String(40), nullable=False, index=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("executed", sa.String(20), nullable=False),
    sa.Column("artifact", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, index=True),
    sa.Column("format", sa.String(20), nullable=False),
    sa.Column("threads", sa.Integer),
    sa.Column("p50_ms", sa.Float),
    sa.Column("result", sa.Text, nullable=False),
)
_REPLACES = f"EXISTS (SELECT 1 FROM {_RESULTS.name} WHERE id = NEW.id)"
_TRIGGERS = {
    "no_update": f"BEFORE UPDATE ON {_RESULTS.name}",
    "no_delete": f"BEFORE DELETE ON {_RESULTS.name}",
    "no_replace": f"BEFORE INSERT ON {_RESULTS.name} WHEN {_REPLACES}",  # OR REPLACE deletes past the trigger above
}


def default_url() -> str:
    """The history of this user: $XDG_DATA_HOME/pocketship/history.sqlite, below ~/.local/share where it is not set."""
    home = os.environ.get("XDG_DATA_HOME", "")
    folder = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share"
    return URL.create("sqlite", database=str(folder / "pocketship" / "history.sqlite")).render_as_string(False)


def url_of(word: str | None) -> str | None:
    """The URL of what was typed after --history: the user's own where nothing was, None for "none".

    Raises BadInput for what is no URL.
    """
    if word == NONE:
        return None
    url = word or default_url()
    _parsed(url)
    return url


def append(results: Sequence[Result], url: str) -> int:
    """Add results to a history, which is made where it is not there; how many were new (an id is kept once).

    All of them are added or none. Raises BadInput where the database cannot be opened, is of another version or is no
    database, and NotInstalled where its driver is missing.
    """
    parsed = _parsed(url)
    _make_folder(parsed)
    try:
        return _append(results, parsed)
    except BadInput as error:
        if not isinstance(error.__cause__, (IntegrityError, ProgrammingError)):
            raise
        return _append(results, parsed)  # another process made the tables in the same moment: they are there now


def _append(results: Sequence[Result], parsed: URL) -> int:
    with _connection(parsed, writes=True) as connection:
        _create(connection, parsed)
        ids = [_storable(result.id) for result in results]
        there = set(connection.scalars(sa.select(_RESULTS.c.id).where(_RESULTS.c.id.in_(ids))))
        rows = {result.id: _row(result) for result in results if _storable(result.id) not in there}
        if rows:
            connection.execute(sa.insert(_RESULTS), list(rows.values()))
        return len(rows)


def append_or_say(results: Sequence[Result], url: str | None) -> str:
    """Add results to a history where there is one; empty, or one line that says why they are not in it.

    A bench that took an hour is not lost to a history that cannot be written.
    """
    try:
        if url is not None:
            append(results, url)
    except PocketshipError as error:
        return f"not in the history: {error}"
    return ""


def select(
    url: str,
    *,
    since: str | None = None,
    target: str | None = None,
    device: str | None = None,
    executed: str | None = None,
    artifact: str | None = None,
    sha256: str | None = None,
    limit: int | None = None,
) -> tuple[Result, ...]:
    """The results of a history that match all that is given, oldest first; with `limit` the last so many of them.

    `since` is a day or a time in ISO 8601, taken as UTC where it names no zone; `device` is a model.

    Raises BadInput where there is no such history, it cannot be read, or `since` is no date.
    """
    wanted = {"target": target, "device": device, "executed": executed, "artifact": artifact, "sha256": sha256}
    chosen = sa.select(_RESULTS.c.id, _RESULTS.c.result)
    for column, value in wanted.items():
        if value is not None:
            chosen = chosen.where(_RESULTS.c[column] == value)
    if since is not None:
        chosen = chosen.where(_RESULTS.c.started_at >= utc(since, "--since"))
    chosen = chosen.order_by(_RESULTS.c.started_at.desc(), _RESULTS.c.id.desc()).limit(limit)
    parsed = _parsed(url)
    file = _file_of(parsed)
    if file is not None and not file.is_file():
        raise _refused(parsed, "no such history", "run pocketship bench first, or check --history")
    with _connection(parsed, writes=False) as connection:
        if not sa.inspect(connection).has_table(_VERSION.name):
            raise _refused(parsed, "no history in this database", "run pocketship bench first, or check --history")
        _check_version(connection, parsed)
        rows = connection.execute(chosen).all()
    return tuple(_result(text, f"{_shown(parsed)}: {name}") for name, text in reversed(rows))


def _row(result: Result) -> dict[str, Any]:
    return {
        "id": _storable(result.id),
        "started_at": utc(result.started_at, f"result {result.id}"),
        "target": _storable(result.target),
        "device": _storable(result.device.model),
        "executed": result.device.executed,
        "artifact": _storable(result.artifact.name),
        "sha256": result.artifact.sha256,
        "format": result.artifact.format,
        "threads": result.settings.threads,
        "p50_ms": result.statistics.p50_ms if result.statistics else None,
        "result": json.dumps(asdict(result)),
    }


def _storable(text: str) -> str:
    """Text that every database takes: a file's name may hold bytes of no encoding. The result itself keeps them."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _result(text: str, where: str) -> Result:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"not JSON ({error})", where=where, remedy="the history is damaged: keep it, start a new one"
        ) from error
    return result_from_json(value, where)


def utc(text: str, where: str) -> str:
    """A time in one form that sorts as text: `2026-11-25T22:48:03+00:00`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r:.60} is no date", where=where, remedy="write it as 2026-11-25") from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="seconds")


def _parsed(url: str) -> URL:
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadInput("no database URL", where=f"--history {url:.80}", remedy=REMEDY) from error
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadInput("a database in memory keeps nothing", where=f"--history {url:.80}", remedy=REMEDY)
    return parsed


def _shown(url: URL) -> str:
    """The URL as it may be printed: without its password."""
    return url.render_as_string(hide_password=True)


def _refused(url: URL, what: str, remedy: str) -> BadInput:
    return BadInput(what, where=_shown(url), remedy=remedy)


def _file_of(url: URL) -> Path | None:
    """The file of an SQLite database; None for other databases, and where SQLite's own URI names it."""
    name = str(url.database)
    return Path(name) if url.get_backend_name() == "sqlite" and not name.startswith("file:") else None


def _make_folder(url: URL) -> None:
    file = _file_of(url)
    try:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(url, f"its folder cannot be made ({error.strerror})", REMEDY) from error


def _engine(url: URL, writes: bool) -> Engine:
    """An engine of this URL; SQLite's transactions begin with the lock that they will need, and wait for it."""
    is_sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S}} if is_sqlite else {}
    engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True, **options)
    if is_sqlite:

        @sa.event.listens_for(engine, "connect")
        def own_transactions(connection: Any, record: object) -> None:
            connection.isolation_level = None  # else Python's module begins them, without the lock

        @sa.event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def _connection(url: URL, *, writes: bool) -> Iterator[Connection]:
    """One transaction, committed at the end; every error of the database is one line."""
    try:
        with _engine(url, writes).begin() as connection:
            yield connection
    except NoSuchModuleError as error:
        raise BadInput(
            f"no database is called {url.drivername!r:.40}", where=f"--history {_shown(url):.80}", remedy=REMEDY
        ) from error
    except ModuleNotFoundError as error:
        raise NotInstalled(
            f"the driver {error.name} is not installed", where=_shown(url), remedy=f"pip install {error.name}"
        ) from error
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        said = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise _refused(url, f"the history cannot be used ({said:.200})", f"check the database; {REMEDY}") from error


def _create(connection: Connection, url: URL) -> None:
    """Make the tables where they are not there, and refuse those of another version."""
    if sa.inspect(connection).has_table(_VERSION.name):
        _check_version(connection, url)
        return
    _TABLES.create_all(connection)
    connection.execute(sa.insert(_VERSION), {"version": HISTORY_VERSION})
    if url.get_backend_name() == "sqlite":
        for name, when in _TRIGGERS.items():
            refusal = "BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END"
            connection.exec_driver_sql(f"CREATE TRIGGER {_RESULTS.name}_{name} {when} {refusal}")


def _check_version(connection: Connection, url: URL) -> None:
    found = list(connection.scalars(sa.select(_VERSION.c.version)))
    if found != [HISTORY_VERSION]:
        said = ", ".join(map(str, found)) or "missing"
        raise _refused(
            url, f"history version is {said}, this pocketship reads {HISTORY_VERSION}", "give another --history"
        )
