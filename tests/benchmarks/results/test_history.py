"""The history: it only grows, loses nothing, and says in one line why it cannot be used."""

from __future__ import annotations

import importlib.util
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from benchmarks.results import history
from benchmarks.results.history import append, append_or_say, default_url, select, url_of
from runtimes.errors import BadInput, NotInstalled

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location("synthetic_results", Path(__file__).parents[1] / "synthetic.py")
synthetic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(synthetic)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a folder" / "history.sqlite"


@pytest.fixture
def url(file):
    return f"sqlite:///{file}"


@pytest.mark.slow
def test_what_is_appended_comes_back_the_same_in_order_of_time(url):
    results = synthetic.fleet()
    assert append(results, url) == len(results)
    assert len(select(url)) == len(results)
    by_id = {result.id: result for result in select(url)}
    assert by_id == {result.id: result for result in results}
    times = [result.started_at for result in select(url)]
    assert times == sorted(times) and len(set(times)) > 1


def test_a_result_is_kept_once(url):
    first, second = synthetic.fleet()[:2]
    assert append([first], url) == 1
    assert append([first, second, second], url) == 1
    assert [r.id for r in select(url)] == sorted([first.id, second.id])


def test_a_file_s_name_may_be_of_no_encoding(url):
    odd = synthetic.result(name="caf\udce9\0.onnx")
    assert append([odd], url) == 1 and append([odd], url) == 0
    assert select(url, artifact="caf??.onnx") == (odd,)


def test_filters(url):
    results = synthetic.fleet()
    append(results, url)
    pi = select(url, device=synthetic.PI_5.model)
    assert pi and all(r.device == synthetic.PI_5 for r in pi)
    assert {r.device.executed for r in select(url, executed="emulated")} == {"emulated"}
    assert {r.target for r in select(url, target="browser")} == {"browser"}
    one = results[3]
    assert {r.artifact.sha256 for r in select(url, sha256=one.artifact.sha256)} == {one.artifact.sha256}
    assert {r.artifact.name for r in select(url, artifact=one.artifact.name)} == {one.artifact.name}
    assert select(url, target="local", executed="browser") == ()


def test_since_and_the_last_ones(url):
    days = [
        replace(synthetic.result(), id=f"r{i}", started_at=time)
        for i, time in enumerate(("2026-11-01T00:30:00+02:00", "2026-11-01T12:00:00Z", "2026-11-02T08:00:00"))
    ]
    append(days, url)
    assert [r.id for r in select(url, since="2026-11-01")] == ["r1", "r2"], "half past midnight at +02:00 is October"
    assert [r.id for r in select(url, since="2026-11-02T08:00:00+00:00")] == ["r2"]
    assert [r.id for r in select(url, limit=2)] == ["r1", "r2"]
    with pytest.raises(BadInput, match=r"^--since: 'yesterday' is no date; write it as 2026-11-25$"):
        select(url, since="yesterday")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pocketship_results SET p50_ms = 0.1",
        "DELETE FROM pocketship_results",
        "INSERT OR REPLACE INTO pocketship_results SELECT * FROM pocketship_results",
    ],
)
def test_nothing_that_is_in_it_can_be_changed(statement, file, url):
    append([synthetic.result()], url)
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="the history is append-only"):
        connection.execute(statement)
    connection.close()
    assert select(url) == (synthetic.result(),)


APPENDER = """
import importlib.util, sys
from dataclasses import replace
from benchmarks.results import history
from benchmarks.results.history import append
spec = importlib.util.spec_from_file_location("s", sys.argv[1])
s = importlib.util.module_from_spec(spec)
spec.loader.exec_module(s)
one = s.result()
sys.stdin.readline()
for i in range(20):
    append([replace(one, id=f"{sys.argv[3]}-{i}")], sys.argv[2])
"""


def test_two_processes_append_at_once_to_a_history_that_neither_has_made(url):
    words = [sys.executable, "-c", APPENDER, str(Path(__file__).parents[1] / "synthetic.py"), url]
    both = [
        subprocess.Popen([*words, name], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(select(url)) == 40


@pytest.mark.parametrize("times", [1, 2])
def test_tables_that_another_process_makes_in_the_same_moment(times, url, monkeypatch):
    """PostgreSQL lets both try and refuses the second; SQLite's lock keeps it from happening."""
    create, refused = history._create, []

    def raced(connection, parsed):
        if len(refused) < times:
            refused.append(1)
            raise IntegrityError("CREATE TABLE", {}, Exception("duplicate key value"))
        create(connection, parsed)

    monkeypatch.setattr(history, "_create", raced)
    if times == 1:
        assert append([synthetic.result()], url) == 1
    else:
        with pytest.raises(BadInput, match=r"the history cannot be used \(duplicate key value\)"):
            append([synthetic.result()], url)


def test_a_failed_append_adds_nothing_at_all(url):
    append([synthetic.result()], url)
    fine, broken = synthetic.fleet()[1], replace(synthetic.fleet()[2], started_at="noon")
    with pytest.raises(BadInput, match=f"^result {broken.id}: 'noon' is no date"):
        append([fine, broken], url)
    assert len(select(url)) == 1


def test_a_bench_is_told_in_one_line_and_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    said = append_or_say([synthetic.result()], f"sqlite:///{tmp_path}/file/history.sqlite")
    assert said.startswith("not in the history: sqlite:///") and "its folder cannot be made (File exists)" in said
    assert "\n" not in said
    assert append_or_say([synthetic.result()], None) == ""
    assert append_or_say([synthetic.result()], f"sqlite:///{tmp_path}/good.sqlite") == ""


def test_the_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_url() == f"sqlite:///{tmp_path}/data/pocketship/history.sqlite"
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_DATA_HOME", ignored)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_url() == f"sqlite:///{tmp_path}/.local/share/pocketship/history.sqlite"
    assert url_of(None) == default_url()
    assert url_of("none") is None
    assert url_of("postgresql+psycopg://team@db/bench") == "postgresql+psycopg://team@db/bench"


def test_what_is_no_url():
    with pytest.raises(BadInput) as caught:
        url_of("my history")
    assert str(caught.value) == (
        "--history my history: no database URL; give --history sqlite:///FILE, another SQLAlchemy URL, or none"
    )
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(BadInput, match="a database in memory keeps nothing; give --history sqlite:///FILE"):
            url_of(url)


def test_a_database_that_is_not_known_or_has_no_driver():
    with pytest.raises(BadInput, match="no database is called 'oracel'; give --history"):
        append([synthetic.result()], "oracel://scott:tiger@db/x")
    with pytest.raises(NotInstalled) as caught:
        append([synthetic.result()], "mysql+pymysql://team:secret@db/bench")
    assert str(caught.value) == (
        "mysql+pymysql://team:***@db/bench: the driver pymysql is not installed; pip install pymysql"
    )


def test_no_such_history(url, file):
    with pytest.raises(BadInput, match=r"history\.sqlite: no such history; run pocketship bench first"):
        select(url)
    assert not file.exists(), "reading makes none"


def test_a_database_without_a_history(file, url):
    file.parent.mkdir()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match="no history in this database; run pocketship bench first"):
        select(url)
    assert append([synthetic.result()], url) == 1, "a team's database may hold other tables"


def test_another_version_is_refused_and_left_alone(file, url):
    append([synthetic.result()], url)
    connection = sqlite3.connect(file)
    connection.execute("UPDATE pocketship_history SET version = 2")
    connection.commit()
    before = file.read_bytes()
    for use in (lambda: append([synthetic.fleet()[1]], url), lambda: select(url)):
        with pytest.raises(BadInput, match="history version is 2, this pocketship reads 1; give another --history"):
            use()
    connection.execute("DELETE FROM pocketship_history")
    assert file.read_bytes() == before
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match="history version is missing, this pocketship reads 1"):
        select(url)


@pytest.mark.parametrize("damage", [lambda raw: b"no database" * 500, lambda raw: raw[:3000] + b"\xff" * 9000])
def test_a_corrupt_file_is_one_line(damage, file, url):
    append(synthetic.fleet(), url)
    file.write_bytes(damage(file.read_bytes()))
    for use in (lambda: append([synthetic.result(threads=7)], url), lambda: select(url)):
        with pytest.raises(BadInput) as caught:
            use()
        assert "the history cannot be used (" in str(caught.value) and "check the database" in str(caught.value)
        assert "\n" not in str(caught.value) and "[SQL" not in str(caught.value)


def test_a_row_that_was_damaged(file, url):
    append([synthetic.result()], url)
    connection = sqlite3.connect(file)
    connection.execute("DROP TRIGGER pocketship_results_no_update")
    connection.execute("UPDATE pocketship_results SET result = substr(result, 1, 90)")
    connection.commit()
    with pytest.raises(BadInput, match=f"{synthetic.result().id}: not JSON .*the history is damaged: keep it, start a"):
        select(url)
    connection.execute("UPDATE pocketship_results SET result = '{}'")
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match="result version is None, this pocketship reads 1; bench again"):
        select(url)


def test_a_history_that_may_not_be_written_is_one_line_and_can_be_read(file, url):
    append([synthetic.result()], url)
    read_only = f"sqlite:///file:{file}?mode=ro&uri=true"
    with pytest.raises(
        BadInput, match=r"the history cannot be used \(attempt to write a readonly database\); check the"
    ):
        append([synthetic.fleet()[1]], read_only)
    assert select(read_only) == (synthetic.result(),)
