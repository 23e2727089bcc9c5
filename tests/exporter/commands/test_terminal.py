"""What commands print of hostile names is shown and never obeyed: every command is run, and its output searched."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper

from benchmarks.console import complain, out, print_csv, print_json, print_log, shown, terminal
from benchmarks.results.result import write_results
from exporter.cli import app
from exporter.commands.layers import Layer
from exporter.commands.screen import print_bundle, print_layers, print_plan
from runtimes.bundle import read_manifest
from runtimes.signature import Signature, TensorSpec
from tests.benchmarks import synthetic

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
MOVE = re.compile(r"\x1b\[(?:\?25[lh]|\d*[ABCDGKJ])|\r")
"""What a bar writes between its lines, on stderr of a terminal."""
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[8m\x9b31m\u202egnp.exe\u2028\x7f\r\x0b\npocketship:all-is-well"
IN_A_PATH = HOSTILE.replace("/", "")
QUICK = ("--seconds", "0.05", "--warmup", "0.05", "--processes", "1", "--history", "none")


def faults(text: str, may_move: bool = False) -> list[str]:
    """The control characters of a text, but for colours, and where it is a bar's for what moves the cursor."""
    text = COLOUR.sub("", text)
    return CONTROL.findall(MOVE.sub("", text) if may_move else text)


# --- the one place that prints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\r", "\n", "\x9b", "\u202e", "\u2028", "\ud800", "\x7f", "\0"])
def test_a_character_that_is_no_letter_becomes_a_mark(character):
    assert shown(f"a{character}b") == "a\ufffdb"


def test_letters_of_any_alphabet_stay():
    assert shown("größe 数据 🙂 ½ [bold] :warning:") == "größe 数据 🙂 ½ [bold] :warning:"


def print_everything() -> None:
    """Hostile text on every way to the screen."""
    from rich.progress import Progress, TextColumn
    from rich.table import Table
    from rich.text import Text

    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE.replace("\n", "")))
    for console in (out(), terminal()):
        console.print(HOSTILE)
        console.print(Text(HOSTILE.replace("\n", "")), table, [HOSTILE], {HOSTILE: HOSTILE}, Path(HOSTILE))
        console.print("[bold]:warning:", "[link=http://x]y[/link]")
        with Progress(TextColumn("{task.description}", markup=False), console=console) as bars:
            bars.add_task(shown(HOSTILE))
    complain(HOSTILE)
    print_log(HOSTILE.replace("\n", ""))
    print_json({HOSTILE: HOSTILE})
    print_csv(["name"], [{"name": HOSTILE}])


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_that_is_printed_is_a_command(capfd, monkeypatch, is_terminal):
    monkeypatch.setenv("COLUMNS", "300")
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    print_everything()
    printed = capfd.readouterr()
    assert faults(printed.out, is_terminal) == [] and faults(printed.err, is_terminal) == []
    assert "[bold]:warning:" in printed.out and "[link=http://x]y[/link]" in printed.out, "no markup, no codes"
    assert "]8;" not in printed.out.replace(shown(HOSTILE), "")
    complaint = next(line for line in printed.err.splitlines() if f"pocketship: {shown(HOSTILE)[:9]}" in line)
    assert complaint.endswith("pocketship:all-is-well"), "one line"
    assert not any(line.startswith("pocketship:all") for line in (printed.out + printed.err).splitlines())


def test_json_is_the_same_data(capsys):
    print_json({HOSTILE: ["größe", float("inf")]})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {HOSTILE: ["größe", None]} and printed.isascii()


def test_the_exporters_tables(exported, capsys):
    manifest = read_manifest(exported("mlp", "onnx,tflite"))
    artifact = replace(manifest.artifacts[0], path=HOSTILE, left_float=(HOSTILE,), precision=HOSTILE)
    signature = Signature((TensorSpec(HOSTILE, HOSTILE, (HOSTILE, 1)),), ())
    print_bundle(replace(manifest, name=HOSTILE, artifacts=(artifact,)), Path(HOSTILE))
    print_plan(SimpleNamespace(name=HOSTILE, signature=signature), ("onnx",), as_json=False, quiet=False)
    print_layers([Layer(HOSTILE, HOSTILE, 1, {"8": 1.0}, {})], (8,))
    printed = capsys.readouterr()
    assert faults(printed.out) == [] and faults(printed.err) == []
    assert printed.out.count("]52;c;ZXZpbA==") >= 6


# --- every command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(once, exported) -> Path:
    """A bundle, an ONNX file and results whose names, paths, tensors and facts are hostile; a fine bundle, a key."""

    def make(place: Path) -> None:
        weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32), HOSTILE + name) for name in ("w", "unused")]
        value = [helper.make_tensor_value_info(HOSTILE + name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
        node = helper.make_node("MatMul", [HOSTILE + "x", HOSTILE + "w"], [HOSTILE + "y"], name=HOSTILE)
        graph = helper.make_graph([node], HOSTILE, value[:1], value[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, {HOSTILE: HOSTILE})
        onnx.save(model, place / f"{IN_A_PATH}.onnx")
        fine = Path(shutil.copytree(exported("mlp", "onnx,tflite"), place / "fine"))
        bundle = Path(shutil.copytree(fine, place / IN_A_PATH))
        (bundle / "model.onnx").rename(bundle / f"{IN_A_PATH}.onnx")
        manifest = json.loads((bundle / "manifest.json").read_text())
        text = json.dumps({**manifest, "name": HOSTILE})
        (bundle / "manifest.json").write_text(text.replace('"model.onnx"', json.dumps(f"{IN_A_PATH}.onnx")))
        text = json.dumps({**manifest, "name": HOSTILE, "producer": HOSTILE, HOSTILE: HOSTILE})
        shutil.copytree(fine, place / "odd")
        (place / "odd" / "manifest.json").write_text(text)
        facts = replace(synthetic.DESKTOP, model=HOSTILE, cpu=HOSTILE, os=HOSTILE, software={HOSTILE: HOSTILE})
        results = [synthetic.result(facts, name=HOSTILE, bundle=HOSTILE, target=HOSTILE, board=HOSTILE, id=HOSTILE)]
        write_results(results, place / f"{IN_A_PATH}.json")

    return once("hostile names", make)


FILE, BUNDLE, RESULTS = f"{IN_A_PATH}.onnx", IN_A_PATH, f"{IN_A_PATH}.json"
WORDS: dict[str, list[list[str]]] = {
    "export": [["export", HOSTILE], ["export", f"{IN_A_PATH}.py:{HOSTILE}", "-o", BUNDLE]],
    "init": [["init", f"{IN_A_PATH}.py"], ["init", f"{IN_A_PATH}.py"], ["init", HOSTILE]],
    "verify": [["verify", BUNDLE], ["verify", BUNDLE, "--json"], ["verify", "odd"], ["verify", HOSTILE]],
    "inspect": [["inspect", FILE], ["inspect", BUNDLE], ["inspect", FILE, "--json"]],
    "schema": [["schema"]],
    "sensitivity": [["sensitivity", HOSTILE]],
    "doctor": [["doctor"]],
    "zoo": [["zoo"]],
    "eval": [["eval", FILE, "--data", "digits"], ["eval", FILE, "--data", HOSTILE]],
    "tasks": [["tasks"]],
    "bench": [
        ["bench", FILE, *QUICK],
        ["bench", FILE, "--csv", *QUICK],
        ["bench", BUNDLE, "--on", HOSTILE],
        ["bench", HOSTILE, "--fleet", HOSTILE],
    ],
    "report": [["report", RESULTS, "-o", f"{IN_A_PATH}.html"]],
    "compare": [["compare", RESULTS, RESULTS], ["compare", RESULTS, RESULTS, "--json"]],
    "suite": [["suite", "-o", BUNDLE, "--models", HOSTILE]],
    "embed": [["embed", BUNDLE, "--python", f"{IN_A_PATH}-python"], ["embed", "fine", "--name", HOSTILE, "--cpp", "c"]],
    "delta": [["delta", BUNDLE, "fine", "-o", f"{IN_A_PATH}.update"]],
    "apply": [["apply", FILE, BUNDLE]],
    "keygen": [["keygen", IN_A_PATH], ["keygen", IN_A_PATH]],
    "sign": [["keygen", "k"], ["sign", BUNDLE, "--key", "k.key"], ["sign", BUNDLE, "--key", HOSTILE]],
    "pack": [["pack", "fine", "-o", f"{IN_A_PATH}.pack"], ["pack", BUNDLE, "-o", HOSTILE]],
    "unpack": [["pack", "fine", "-o", "p"], ["unpack", "p", "-o", f"{IN_A_PATH}-out"], ["unpack", FILE, "-o", "x"]],
}
"""Command -> what is run of it, in a folder with the files above."""


def test_no_command_is_left_out():
    assert set(WORDS) == set(typer.main.get_command(app).commands), "what does a new command print of hostile names?"


@pytest.mark.slow
@pytest.mark.parametrize("command", WORDS)
def test_what_a_command_prints_is_no_command_to_the_terminal(command, pocketship, folder, tmp_path):
    place = Path(shutil.copytree(folder, tmp_path / "place"))
    for words in WORDS[command]:
        done = pocketship(*words, cwd=place, XDG_CACHE_HOME=str(tmp_path / "cache"))
        assert "internal error" not in done.stderr, done.stderr
        assert faults(done.stdout) == [] and faults(done.stderr) == [], (words, done.stdout, done.stderr)
        lines = (done.stdout + done.stderr).splitlines()  # a table may break a long cell, as it likes
        assert command == "compare" or not any(line.startswith("pocketship:all-is-well") for line in lines)


@pytest.mark.parametrize("command", ["verify", "inspect", "bench", "compare"])
def test_on_a_terminal_there_are_colours_and_nothing_else(command, pocketship, folder, tmp_path):
    environment = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = pocketship(*WORDS[command][0], cwd=folder, **environment)
    assert faults(done.stdout) == [] and faults(done.stderr, may_move=True) == [], (done.stdout, done.stderr)
