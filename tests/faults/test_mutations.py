"""A sample of `make mutations`, the same changes every time: none is accepted that makes a bundle wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes import child, evidence
from tests.conftest import MODELS
from tests.faults import mutations
from tests.faults.mutations import KINDS, Judge, kind_of, mutate, table

SAMPLE = 300


@pytest.fixture(scope="module")
def judge(once, pocketship) -> Judge:
    """A bundle with a recipe and a ledger, and what was proven of it so far."""

    def make(folder: Path) -> None:
        words = ("--quantize", "int8", "-o", folder / "bundle", "--quiet")
        done = pocketship("export", f"{MODELS}:mlp", *words)
        assert done.returncode == 0, done.stderr

    return Judge(once("mutated", make) / "bundle", child.call)  # this process may have threads, and is not to be forked


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_change_that_makes_a_bundle_wrong_is_accepted(judge, kind, tmp_path):
    tried = [mutate(judge, number, tmp_path) for number in range(SAMPLE) if kind_of(number) == kind]
    assert [(t.number, t.harm) for t in tried if t.harm] == []
    assert any(t.refused for t in tried), table(tried)


def test_the_bundle_itself_is_accepted_and_has_what_can_be_changed(judge):
    assert judge.faults(judge.bundle) == "" and judge.harm(judge.bundle) == ""
    assert judge.manifest.ledger and judge.manifest.recipe and judge.manifest.artifacts[0].representations


@pytest.mark.slow
def test_the_judge_sees_what_a_blind_verify_accepts(judge, tmp_path, monkeypatch):
    for name in ("of_facts", "of_golden", "of_runtime"):
        monkeypatch.setattr(evidence, name, lambda *words: iter(()))
    numbers = [n for n in range(SAMPLE) if kind_of(n) in ("a leaf of the manifest", "an ONNX file, hashes agree")]
    harms = " ".join(mutate(judge, number, tmp_path).harm for number in numbers)
    assert "origin.source is not what it was" in harms, harms


def test_an_error_that_is_none_of_ours_is_a_find(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "of_golden", lambda *words: 1 / 0)
    numbers = [number for number in range(SAMPLE) if kind_of(number) == "golden values, hashes agree"]
    assert "internal error: ZeroDivisionError" in " ".join(mutate(judge, n, tmp_path).harm for n in numbers)


def test_every_leaf_of_a_manifest_has_its_row_in_the_docs(judge):
    """A leaf is checked, derived, or the exporter's word: docs/manifest.md says which of each."""
    rows = mutations.words_of_the_exporter("")
    changed = mutations.changed_leaves(mutations.document_of(judge.manifest), {})
    assert [leaf for leaf in changed if leaf and not any(row.fullmatch(leaf) for row in rows)] == []
    assert len(mutations.words_of_the_exporter()) < len(rows)
