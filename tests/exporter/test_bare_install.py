"""Every command where only what pip installs with pocketship is there: it works, or one line says what to install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.cli import app

ROOT = Path(__file__).resolve().parents[2]
WORDS: dict[str, tuple[str, int, str]] = {
    "export": ("export minilm", 2, "not installed; pip install 'pocketship[export]'"),
    "init": ("init model.py", 0, ""),
    "verify": ("verify bundle", 6, "onnxruntime is not installed; pip install 'pocketship[onnxruntime]'"),
    "inspect": ("inspect bundle/model.onnx", 2, "onnx is not installed; pip install 'pocketship[bench]'"),
    "inspect of a bundle": ("inspect bundle", 2, "nothing can be read here: model.onnx: onnx is not installed; "),
    "schema": ("schema", 0, ""),
    "sensitivity": ("sensitivity minilm", 2, "torch is not installed; pip install 'pocketship[export]'"),
    "doctor": ("doctor", 2, "export cannot work here: "),
    "zoo": ("zoo", 0, ""),
    "eval": ("eval bundle --data digits", 2, "scikit-learn is not installed; pip install 'pocketship[demo]'"),
    "tasks": ("tasks", 0, ""),
    "bench": ("bench bundle", 2, "onnxruntime is not installed; pip install 'pocketship[onnxruntime]'"),
    "bench with a history": (
        "bench bundle --history sqlite:///h",
        2,
        "sqlalchemy is not installed; pip install 'pocketship[bench]'",
    ),
    "bench of a fleet": ("bench bundle --fleet f.yaml", 2, "pyyaml is not installed; pip install 'pocketship[bench]'"),
    "report": ("report", 2, "is not installed; pip install 'pocketship[bench]'"),
    "compare": ("compare a.json b.json", 2, "a.json: cannot be read"),
    "suite": ("suite -o suite", 2, "not installed; pip install 'pocketship[export]'"),
    "embed": ("embed bundle --python py", 2, "jinja2 is not installed; pip install 'pocketship[bench]'"),
    "delta": ("delta bundle other -o u", 2, "zstandard is not installed; pip install 'pocketship[delivery]'"),
    "apply": ("apply bundle/README.md bundle", 2, ""),
    "keygen": ("keygen k", 2, "cryptography is not installed; pip install 'pocketship[delivery]'"),
    "sign": ("sign bundle --key k", 2, "cryptography is not installed; pip install 'pocketship[delivery]'"),
    "pack": ("pack bundle -o packed", 0, ""),
    "unpack": ("unpack packed -o unpacked", 0, ""),
}
"""What is run, its exit code, and what its one line says."""
RUN_EACH = """
import json, os, sys
from exporter import cli
for number, words in enumerate(json.loads(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        for name, stream in (("out", 1), ("err", 2)):
            os.dup2(os.open(f"{number}.{name}", os.O_CREAT | os.O_WRONLY), stream)
        sys.argv[1:] = words.split()
        cli.main()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""One cold start for all of them."""


def test_every_command_is_here():
    from typer.main import get_command

    assert set(get_command(app).commands) <= {words.split()[0] for words, _, _ in WORDS.values()}


@pytest.fixture(scope="module")
def answers(exported, tmp_path_factory) -> dict[str, tuple[int, str]]:
    """By row the exit code and stderr."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copytree(exported("mlp"), folder / "bundle")
    shutil.copytree(exported("mlp"), folder / "other")
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "absent")))
    environment = {**os.environ, "PYTHONPATH": path, "LACKS": "all", "XDG_DATA_HOME": str(folder), "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN_EACH, json.dumps([words for words, _, _ in WORDS.values()])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    codes = map(int, done.stdout.split())
    said = [(folder / f"{number}.err").read_text() for number in range(len(WORDS))]
    return dict(zip(WORDS, zip(codes, said, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("row", WORDS)
def test_a_bare_install(row, answers):
    _, wanted, says = WORDS[row]
    code, stderr = answers[row]
    errors = [line for line in stderr.splitlines() if line.startswith("pocketship: ")]
    assert code == wanted and "Traceback" not in stderr and "internal error" not in stderr, stderr
    assert len(errors) == (wanted != 0), stderr
    assert not says or says in errors[0], stderr


def test_a_bench_without_a_database_says_that_nothing_is_kept(exported, pocketship_without, tmp_path):
    quick = ("--seconds", "0.05", "--warmup", "0.05", "--processes", "1", "-t", "onnx", "-o", "r.json")
    done = pocketship_without("sqlalchemy", "bench", exported("mlp"), *quick, cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    line = "the history is not kept: sqlalchemy is not installed; pip install 'pocketship[bench]'"
    assert done.stderr.count(line) == 1
    assert (tmp_path / "r.json").is_file() and not (tmp_path / ".local").exists()
