"""The Swift package and Swift's compiler on Linux: its processing computes; Core ML is a double that knows answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from exporter.embed.escape import Safe
from exporter.embed.write import TEMPLATES, environment_of
from runtimes.golden import read_golden

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"
DOUBLES = ("CoreML", "CoreGraphics")
PROCESSING = ("WordPiece", "ImageProcessor", "AudioProcessor", "SeriesProcessor", "Postprocess", "{Class}Error")
STRICT = ("-swift-version", "5", "-warnings-as-errors")
pytestmark = pytest.mark.device

MAIN = """import Foundation
extension Bundle {{ static let module = Bundle.main }}
@main struct Program {{
    static func main() async throws {{
        let found = try await {cls}(computeUnits: .cpuOnly).selfTest()
        print(found.maxAbsError, found.samples, found.passed)
    }}
}}
"""


def swift(folder: Path, *words: str, answers: str = "") -> subprocess.CompletedProcess[str]:
    """A command where Swift is, in a folder."""
    environment = ("env", f"POCKETSHIP_ANSWERS={answers}", "LD_LIBRARY_PATH=/work:/usr/libexec/swift/lib/swift/linux")
    command = (*environment, *words) if answers else words
    return subprocess.run(
        [ROOT / "tests/rigs/swift.sh", folder, *command], capture_output=True, text=True, timeout=590, check=False
    )


def compiled(folder: Path, *words: str) -> None:
    done = swift(folder, "swiftc", *STRICT, *words)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_processing_conforms(tmp_path, vocabulary, assert_conforms):
    templates = environment_of("ios")
    for name in PROCESSING:
        text = templates.get_template(f"Sources/{{Class}}/{name}.swift.j2").render(cls=Safe("Conformance"))
        (tmp_path / f"{name}.swift".replace("{Class}", "Conformance")).write_text(text)
    for file in (vocabulary, ROOT / "runtimes/processing/tokenizers/unicode.txt", CONFORMANCE / "swift/main.swift"):
        shutil.copy(file, tmp_path)
    for file in ("text.tsv", "cases.tsv", "cases.bin"):
        shutil.copy(CONFORMANCE / file, tmp_path)
    compiled(tmp_path, "-O", "-o", "conformance", *(file.name for file in tmp_path.glob("*.swift")))
    assert_conforms(swift(tmp_path, "./conformance", "vocab.txt", "unicode.txt", "."))


@pytest.fixture(scope="session")
def doubles(tmp_path_factory) -> Path:
    """Modules with the names of Apple's, of what the package uses."""
    folder = tmp_path_factory.mktemp("doubles")
    for name in DOUBLES:
        shutil.copy(CONFORMANCE / "swift/doubles" / f"{name}.swift", folder)
        words = ("-emit-module", "-emit-library", "-module-name", name, f"{name}.swift", "-o", f"lib{name}.so")
        compiled(folder, *words)
    return folder


def answers_of(bundle: Path) -> list[dict[str, dict[str, object]]]:
    """The golden samples as the Core ML double reads them; it has no 64-bit integers either."""
    golden = read_golden(bundle / "golden.npz")

    def tensor(value: np.ndarray) -> dict[str, object]:
        dtype = "float32" if value.dtype == np.float32 else "int32"
        return {"dtype": dtype, "shape": list(value.shape), "values": value.ravel().tolist()}

    return [
        {"inputs": {k: tensor(v) for k, v in given.items()}, "outputs": {k: tensor(v) for k, v in wanted.items()}}
        for given, wanted in zip(golden.inputs, golden.outputs, strict=True)
    ]


@pytest.mark.matrix(one_in=3)
@pytest.mark.parametrize("name", ["digits", "rnet", "basicmotions", "hearer", "two_inputs"])
def test_the_package_compiles_and_its_self_test_compares(name, library_of, bundle_of, doubles, tmp_path):
    (sources,) = (library_of(name, "ios") / "Sources").iterdir()
    for file in (*sources.glob("*.swift"), *doubles.iterdir()):
        if file.stem not in DOUBLES or file.suffix != ".swift":
            shutil.copy(file, tmp_path)
    shutil.copytree(sources / "Resources", tmp_path, dirs_exist_ok=True)
    (tmp_path / "Program.swift").write_text(MAIN.format(cls=sources.name))
    files = [file.name for file in tmp_path.glob("*.swift")]
    compiled(tmp_path, "-parse-as-library", "-I.", "-L.", "-lCoreML", "-lCoreGraphics", "-o", "program", *files)

    answers = answers_of(bundle_of(name))
    (tmp_path / "right.json").write_text(json.dumps(answers))
    right = swift(tmp_path, "./program", answers="right.json")
    assert right.stdout.split() == ["0.0", str(len(answers)), "true"], right.stderr

    output = next(iter(answers[-1]["outputs"].values()))
    output["values"][-1] += 0.5
    (tmp_path / "wrong.json").write_text(json.dumps(answers))
    wrong = swift(tmp_path, "./program", answers="wrong.json").stdout.split()
    assert 0.49 < float(wrong[0]) < 0.51 and wrong[2] == "false"


def test_every_processing_file_is_compiled_here():
    found = {file.name.removesuffix(".swift.j2") for file in (TEMPLATES / "ios/Sources/{Class}").glob("*.j2")}
    assert found == {*PROCESSING, "{Class}"}
