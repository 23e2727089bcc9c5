"""Every input of the fuzzers' corpus is read or refused in one line: the seeds, and all that crashed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.readers import CORPUS, LONGEST, READERS, fuzz_by_chance, place_for_files, read

INPUTS = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.rglob("*") if path.is_file())
GOOD = ("manifest/seed-manifest", "golden/seed-file", "update/seed-file", "pt2/seed-file", "results/seed-results")
GOOD = (*GOOD, "preprocessor/seed-preprocessor")
GOOD = (*GOOD, *(f"recipe/seed-recipe-{i}" for i in range(3)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    said = read(Path(name).parts[0], (CORPUS / name).read_bytes(), tmp_path)
    assert (said == "") or name not in GOOD, said


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_names_no_folder_of_whoever_made_it(name: str) -> None:
    assert b"site-packages" not in (CORPUS / name).read_bytes()


def test_each_reader_has_its_corpus() -> None:
    assert {Path(name).parts[0] for name in INPUTS} == set(READERS)
    assert sum((CORPUS / name).stat().st_size for name in INPUTS) < 200_000


@pytest.mark.parametrize("name", [name for name in READERS if name != "pack"])  # which writes each to the disk
def test_a_moment_of_chance(name: str, monkeypatch, capsys, tmp_path: Path) -> None:
    """The mutator that `make fuzz` falls back to; no input grows beyond what is fuzzed."""
    seen: list[int] = []
    monkeypatch.setitem(READERS, name, lambda kind, data, place: seen.append(len(data)))
    fuzz_by_chance(name, 0.05, tmp_path)
    assert seen and max(seen) <= LONGEST and f"{name}: {len(seen):,} inputs" in capsys.readouterr().out


def test_a_crash_is_kept(monkeypatch, tmp_path: Path) -> None:
    def crash(kind: int, data: bytes, place: Path) -> None:
        raise KeyError("of ours")

    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "seed").write_bytes(b"\0passes")
    monkeypatch.setattr("tests.fuzz.readers.CORPUS", tmp_path)
    monkeypatch.setitem(READERS, "recipe", crash)
    with place_for_files() as place, pytest.raises(KeyError, match="of ours"):
        fuzz_by_chance("recipe", 5.0, place)
    assert len(list((tmp_path / "recipe").glob("crash-*"))) == 1
