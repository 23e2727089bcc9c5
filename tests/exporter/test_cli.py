"""The command line: help, JSON, quiet, progress, dry run, output folders, and where the converters' noise goes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from exporter.cli import app, outline

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("export", "verify", "inspect", "doctor", "zoo", "schema", "eval", "tasks")
NOISE = (
    "Warning",
    "torch.onnx",
    "Converting PyTorch",
    "Running MIL",
    "passes/s",
    "START",
    "Failed to load",
    "Torch version",
)


def strict(text: str):
    """JSON without NaN and infinity, and nothing around it."""

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def mlp(models) -> str:
    return f"{models.__file__}:mlp"


@pytest.fixture(scope="module")
def one_export(pocketship, mlp, tmp_path_factory):
    """An export of one target as a user types it, in a folder of its own, with no -o."""
    folder = tmp_path_factory.mktemp("home")
    return pocketship("export", mlp, "--target", "onnx", cwd=folder), folder


# --- help ----------------------------------------------------------------------------------------------------------


def test_the_list_of_commands_is_that_of_the_whole_program():
    from typer.testing import CliRunner

    for width in ("60", "100"):
        quick, whole = (CliRunner(env={"COLUMNS": width}).invoke(a, ["--help"]) for a in (outline(), app))
        assert quick.exit_code == whole.exit_code == 0 and quick.output == whole.output


@pytest.mark.cold
def test_help_lists_every_command(pocketship):
    for words in (("--help",), ()):
        done = pocketship(*words)
        assert done.returncode == 0 and done.stderr == ""
        assert all(re.search(rf"^  {command} ", done.stdout, re.MULTILINE) for command in COMMANDS)
        for heading in ("Make a bundle:", "Look at it:", "Measure it:", "Ship it:"):
            assert f"\n{heading}\n" in done.stdout


def test_help_says_whole_sentences_at_80_columns(pocketship):
    done = pocketship("-h", COLUMNS="80")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "..." not in done.stdout.split("Options:")[1] and "\u2026" not in done.stdout
    said = " ".join(done.stdout.split())
    for command in get_command(app).commands.values():
        assert " ".join((command.help or "").split()) in said
    assert "6 a runtime is missing" in said


def test_the_version(pocketship):
    from importlib.metadata import version

    done = pocketship("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pocketship {version('pocketship')}\n", "")


def test_a_shell_can_complete(pocketship):
    done = pocketship(_POCKETSHIP_COMPLETE="complete_bash", COMP_WORDS="pocketship ver", COMP_CWORD="1")
    assert done.stdout.split() == ["verify"], done.stderr


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_the_example_of_a_command_is_one_that_it_takes(name):
    command = get_command(app).commands[name]
    program, first, *words = command.epilog.removeprefix("Example: ").split()
    assert (program, first) == ("pocketship", name)
    command.make_context(name, list(words))  # raises for an option that is none, or an argument that is missing


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command, pocketship):
    done = pocketship(command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert re.match(rf"Usage: .* {command} ", done.stdout)


def test_help_imports_nothing_heavy():
    heavy = {"torch", "numpy", "onnxruntime", "coremltools", "transformers"}
    code = "import sys; sys.argv = ['pocketship', 'export', '--help']\nfrom exporter.cli import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nprint(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "exporter.cli" in done.stderr
    assert not heavy & set(re.findall(r"'(\w+)'", done.stderr))


def test_every_option_of_export_is_in_its_help(pocketship):
    shown = set(re.findall(r"--[a-z-]+", pocketship("export", "--help").stdout))
    wanted = "target format output task weights opset min-ios coreml-precision input-shape dynamic atol"
    wanted += " trust-remote-code force dry-run json quiet help"
    assert {f"--{word}" for word in wanted.split()} <= shown


def test_python_m_exporter_is_pocketship(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "exporter", "zoo"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "minilm" in done.stdout


# --- export --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cold
def test_stages_on_stderr_and_the_table_on_stdout(one_export):
    done, folder = one_export
    assert done.returncode == 0, done.stderr
    stages = [line.split() for line in done.stderr.strip().splitlines()]
    assert [stage[0] for stage in stages] == ["load", "trace", "onnx"]
    assert all(re.fullmatch(r"\d+\.\d", stage[1]) and stage[2] == "s" for stage in stages)
    assert "212 parameters, weights as given" in done.stderr
    header, row, *_ = done.stdout.splitlines()
    assert header.split()[:3] == ["format", "file", "MB"]
    assert row.split()[:2] == ["onnx", "model.onnx"] and "(physical)" in row
    assert f"pocketship verify {folder / 'mlp-bundle'}" in done.stdout


def test_the_folder_is_named_after_the_source(one_export):
    _, folder = one_export
    assert sorted(p.name for p in folder.iterdir()) == ["mlp-bundle"]
    names = {p.name for p in (folder / "mlp-bundle").iterdir()}
    assert names == {"model.onnx", "manifest.json", "golden.npz", "README.md"}


@pytest.mark.slow
@pytest.mark.cold
def test_the_noise_of_the_converters_is_not_on_the_screen(mlp, pocketship, tmp_path):
    done = pocketship("export", mlp, "-o", tmp_path / "all")
    assert done.returncode == 0
    for word in NOISE:
        assert word not in done.stdout + done.stderr, word
    assert len(done.stderr.strip().splitlines()) == 5  # load, trace and three targets


def test_json_is_the_manifest(one_export, pocketship, mlp, tmp_path):
    words = ("--format", "onnx", "-o", tmp_path / "out", "--json")
    done = pocketship("export", mlp, *words)
    assert done.returncode == 0
    printed = strict(done.stdout)
    assert printed.pop("path") == str(tmp_path / "out")
    assert printed == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [artifact["format"] for artifact in printed["artifacts"]] == ["onnx"]


def test_force_replaces_and_quiet_says_nothing(one_export, pocketship, mlp, refused):
    _, folder = one_export
    bundle = folder / "mlp-bundle"
    line = refused("export", mlp, "-t", "onnx", cwd=folder)
    assert "the output folder exists" in line and "--force" in line
    (bundle / "left-over.txt").write_text("of the old bundle")
    done = pocketship("export", mlp, "-t", "onnx", "--force", "--quiet", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (bundle / "left-over.txt").exists()
    assert sorted(p.name for p in folder.iterdir()) == ["mlp-bundle"]


@pytest.mark.parametrize("words", [("-t", "coreml,onnx"), ("--target", "coreml", "--format", "onnx")])
def test_targets_by_comma_repetition_and_the_other_name(words, pocketship, mlp, tmp_path):
    done = pocketship("export", mlp, *words, "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout)["targets"] == ["coreml", "onnx"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_signature_and_writes_nothing(pocketship, models, tmp_path):
    done = pocketship("export", f"{models.__file__}:transformer", "--dry-run", "-t", "onnx", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:3] == [
        "in  ids: int64[1, 12]",
        "in  mask: int64[1, 12]",
        "out output: float32[1, 12, 50]",
    ]
    assert "transformer can be exported to onnx; dry run, nothing was written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_input_shape_and_opset_reach_the_file(pocketship, mlp, tmp_path, manifest_of):
    import onnx

    words = ("-t", "onnx", "--input-shape", "input=5,8", "--opset", "22", "-o", tmp_path / "out", "--quiet")
    assert pocketship("export", mlp, *words).returncode == 0
    manifest = manifest_of(tmp_path / "out")
    assert manifest["signature"]["inputs"][0]["shape"] == [5, 8]
    assert manifest["signature"]["outputs"][0]["shape"] == [5, 4]
    assert manifest["settings"]["opset"] == 22
    assert onnx.load(tmp_path / "out" / "model.onnx").opset_import[0].version == 22


def test_a_largest_size_needs_no_recipe(mlp, refused, tmp_path):
    line = refused("export", mlp, "-t", "onnx", "--max-size", "100B", "-o", tmp_path / "out", code=4)
    assert re.search(r"onnx: [\d,]+ bytes are [\d,]+ more than --max-size allows; nothing was written", line)
    assert not (tmp_path / "out").exists()


# --- the other commands --------------------------------------------------------------------------------------------


def test_verify(exported, pocketship):
    done = pocketship("verify", exported("mlp"))
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:-1]}
    assert set(rows) == {"model.onnx", "model.tflite", "model.mlpackage", "golden.npz", "README.md"}
    assert all("pass" in row for name, row in rows.items() if name.startswith("model."))
    checks = strict(pocketship("verify", exported("mlp"), "--json").stdout)["checks"]
    assert [check["fault"] for check in checks] == [""] * 5
    assert all(check["intact"] for check in checks)
    assert done.stdout.splitlines()[-1] == f"next, measure it: pocketship bench {exported('mlp')}"
    quiet = pocketship("verify", exported("mlp"), "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.cold
def test_verify_names_what_is_changed(exported, copy_of, pocketship):
    bundle = copy_of(exported("mlp"))
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-20] ^= 1
    (bundle / "model.onnx").write_bytes(bytes(content))
    done = pocketship("verify", bundle)
    assert done.returncode == 3
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("model.onnx")]
    assert "CHANGED" in row
    assert "model.onnx" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    strict(pocketship("verify", bundle, "--json").stdout)


@pytest.mark.slow
@pytest.mark.cold
def test_inspect_a_bundle_and_a_file(exported, pocketship):
    bundle = exported("mlp")
    done = pocketship("inspect", bundle)
    assert done.returncode == 0 and done.stderr == ""
    for expected in (
        "model.onnx  onnx  ",
        "operations: Gemm 2",
        "FULLY_CONNECTED 2",
        "linear 2",
        "in  input: float32[2, 8]",
    ):
        assert expected in done.stdout
    reports = strict(pocketship("inspect", bundle, "--json").stdout)
    assert [report["format"] for report in reports] == ["onnx", "tflite", "coreml"]
    one = strict(pocketship("inspect", bundle / "model.mlpackage", "--json").stdout)
    assert one == [reports[2]]
    fewer = pocketship("inspect", bundle / "model.onnx", "--tensors", "1")
    assert "and 3 more of" in fewer.stdout


@pytest.mark.cold
def test_doctor(pocketship):
    done = pocketship("doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^convert to Core ML +ok +coremltools", done.stdout, re.MULTILINE)
    findings = strict(pocketship("doctor", "--json").stdout)
    assert {"what", "works", "found", "remedy", "required"} == set(findings[0])


@pytest.mark.cold
def test_zoo(pocketship):
    done = pocketship("zoo")
    assert done.returncode == 0
    assert re.search(r"^minilm +sentence-similarity +Apache-2.0", done.stdout, re.MULTILINE)
    assert strict(pocketship("zoo", "--json").stdout)["minilm"]["task"] == "sentence-similarity"


def test_schema_is_json(pocketship):
    assert strict(pocketship("schema").stdout)["title"] == "pocketship bundle manifest, version 1"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("export",), "Missing argument 'source', as pocketship export minilm "),
        (("export", "minilm", "--no-such"), "No such option: --no-such"),
        (("exprot",), "No such command 'exprot'"),
        (("export", "minilm", "--opset", "many"), "Invalid value for '--opset'"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, fault, pocketship):
    done = pocketship(*words)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("pocketship: ") and fault in line


WITHOUT = "import sys; sys.modules[{0!r}] = None; sys.argv[1:] = {1!r}; from exporter.cli import main; main()"


@pytest.mark.parametrize(
    ("library", "words", "says"),
    [
        ("jinja2", ["embed", "bundle", "--python", "x"], "jinja2 is not installed; pip install 'pocketship[bench]'"),
        ("sqlalchemy", ["report", "-o", "x.html"], "sqlalchemy is not installed; pip install 'pocketship[bench]'"),
    ],
)
def test_a_library_that_is_missing_is_named(library, words, says, tmp_path):
    done = run_python(WITHOUT.format(library, words), tmp_path)
    assert done.returncode == 2 and done.stderr == f"pocketship: {says}\n" and done.stdout == ""


def test_a_terminal_of_ascii_gets_all_it_can_show(tmp_path):
    script = "from exporter.cli import main, app\n@app.command()\ndef say():\n    print('caf\\xe9 \\u2026')\nmain()"
    done = run_python(f"import sys; sys.argv[1:] = ['say']\n{script}", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "caf\\xe9 \\u2026\n", "")


def test_json_on_a_terminal_of_ascii_is_json(tmp_path):
    script = "from benchmarks.console import print_json; print_json({'name': 'caf\\xe9 \\udcff'})"
    done = run_python(script, tmp_path, PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout) == {"name": "caf\xe9 \udcff"}


def run_python(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the project on its path."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-P", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
