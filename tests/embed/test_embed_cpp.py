"""The C++ library, built with CMake against the onnxruntime that Python uses, and run."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off")
PROCESSORS = ("wordpiece", "image", "audio", "series", "postprocess")
pytestmark = pytest.mark.device


@pytest.fixture(scope="session")
def onnxruntime_root(tmp_path_factory) -> Path:
    """A folder with include/ and lib/: headers of ONNX Runtime's .aar, the library of the Python wheel."""
    subprocess.run([ROOT / "benchmarks/devices/adb/runner/build.sh", "headers"], check=True, timeout=300)
    root = tmp_path_factory.mktemp("onnxruntime")
    shutil.copytree(ROOT / "build/runner/aar/headers", root / "include")
    (root / "lib").mkdir()
    spec = importlib.util.find_spec("onnxruntime")
    (library,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    return root


def build(library: Path, root: Path) -> None:
    flags = f"-DCMAKE_CXX_FLAGS={' '.join(STRICT[1:])}"
    for words in (
        ("-B", "build", "-DCMAKE_BUILD_TYPE=Release", f"-DONNXRUNTIME_ROOT={root}", flags),
        ("--build", "build", "-j2"),
    ):
        done = subprocess.run(["cmake", *words], cwd=library, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def self_test(library: Path, name: str, root: Path, data: str = "data") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(root / "lib")}
    program = library / "build" / f"{name}_self_test"
    return subprocess.run(
        [program, data, "1"], cwd=library, env=environment, capture_output=True, text=True, timeout=300
    )


def test_processing_conforms_with_sanitizers_on(tmp_path, vocabulary, assert_conforms):
    from exporter.embed.escape import Safe
    from exporter.embed.write import TEMPLATES, environment_of

    templates = environment_of("cpp")
    for template in sorted((TEMPLATES / "cpp").rglob("*.j2")):
        if template.name.startswith(PROCESSORS):
            relative = str(template.relative_to(TEMPLATES / "cpp"))
            place = tmp_path / relative.replace("{name}", "conformance").removesuffix(".j2")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(templates.get_template(relative).render(name=Safe("conformance")))
    sources = [*map(str, (tmp_path / "src").glob("*.cpp")), str(CONFORMANCE / "cpp" / "conformance.cpp")]
    sanitized = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = str(tmp_path / "conformance")
    words = ["g++", *STRICT, *sanitized, "-I", str(tmp_path / "include"), *sources, "-o", program]
    subprocess.run(words, check=True, timeout=600)
    unicode = ROOT / "runtimes/processing/tokenizers/unicode.txt"
    done = subprocess.run([program, vocabulary, unicode, CONFORMANCE], capture_output=True, text=True, timeout=300)
    assert_conforms(done)


@pytest.mark.matrix(one_in=3)
@pytest.mark.parametrize("name", ["digits", "rnet", "basicmotions", "minilm", "hearer", "two_inputs", "detector"])
def test_the_self_test_finds_the_error_that_python_finds(name, library_copy, onnxruntime_root, error_in_python):
    library = library_copy(name, "cpp")
    build(library, onnxruntime_root)
    done = self_test(library, name, onnxruntime_root)
    assert done.returncode == 0, done.stderr
    error = float(done.stdout.split("max error ")[1].split()[0])
    assert error == pytest.approx(error_in_python(name), rel=0.2, abs=1e-9)
    golden = bytearray((library / "data/golden.bin").read_bytes())
    golden[-2] ^= 0x40
    (library / "data/golden.bin").write_bytes(golden)
    done = self_test(library, name, onnxruntime_root)
    assert done.returncode == 1 and "FAIL" in done.stdout, "of the detector, in a score that hides behind its boxes"
    (library / "data/golden.bin").write_bytes(golden[:-16])
    assert "golden.bin is cut off" in self_test(library, name, onnxruntime_root).stderr
    assert "model.onnx is missing" in self_test(library, name, onnxruntime_root, data="nowhere").stderr
    (library / "data/model.onnx").write_bytes(b"no model")
    assert "cannot be loaded" in self_test(library, name, onnxruntime_root).stderr


MAIN = """
#include <cstdio>
#include "minilm/minilm.hpp"
int main() {
    minilm::Minilm model("data", 1);
    for (const float x : model.embed("O\\xC3\\xB9 est la gare? [SEP] \\xFF na\\xC3\\xAFve")) std::printf("%.9g ", x);
    try { model.run({{1}, {1}, {1}}); } catch (const std::invalid_argument &error) { std::puts(error.what()); }
}
"""
LABELS = """
#include <cstdio>
#include "cnn/cnn.hpp"
int main() {
    cnn::Cnn model("data", 1);
    const auto found = model.predict({50, 60, std::vector<std::uint8_t>(9000)});
    for (const auto &label : found.labels) std::printf("%s%c", label.c_str(), 0);
    try { model.predict({2, 2, {}}); } catch (const std::invalid_argument &error) { std::printf("%s", error.what()); }
}
"""


def run_with(main: str, library: Path, name: str, root: Path) -> str:
    (library / "src/self_test.cpp").write_text(main)
    build(library, root)
    done = self_test(library, name, root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_text_and_labels_are_as_in_python(library_copy, library_of, onnxruntime_root, nasty, tmp_path):
    said = run_with(MAIN, library_copy("minilm", "cpp"), "minilm", onnxruntime_root)
    code = """
import json, minilm
print(json.dumps(minilm.Minilm(threads=1).embed(b"O\\xc3\\xb9 est la gare? [SEP] \\xff na\\xc3\\xafve").tolist()))
"""
    there = library_of("minilm", "python")
    want = json.loads(subprocess.run([sys.executable, "-c", code], cwd=there, capture_output=True, text=True).stdout)
    assert [float(n) for n in said.split(" ")[:384]] == pytest.approx(want, abs=1e-6)
    assert "has 1 numbers, the model takes 128" in said
    shutil.rmtree(tmp_path / "library")
    *labels, refusal = run_with(LABELS, library_copy("cnn", "cpp"), "cnn", onnxruntime_root).split("\0")
    assert tuple(labels) == nasty
    assert refusal == "0 bytes are no picture of 2x2"
