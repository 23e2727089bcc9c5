"""The Android library on this JVM: its logic against the conformance files, its model in the real ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = ROOT / "tests" / "conformance"
PROCESSORS = (
    "WordPiece", "Pixels", "ImageProcessor", "AudioProcessor", "SeriesProcessor", "ClassScores", "Embeddings",
)  # fmt: skip
pytestmark = pytest.mark.device


def test_processing_conforms(tmp_path, vocabulary, assert_conforms):
    from exporter.embed.escape import Safe
    from exporter.embed.write import environment_of

    sources = []
    for name in PROCESSORS:
        template = environment_of("android").get_template(f"src/main/java/{{package}}/{name}.java.j2")
        sources.append(tmp_path / f"{name}.java")
        sources[-1].write_text(template.render(package=Safe("pocketship.conformance")))
    runner = CONFORMANCE / "java" / "Conformance.java"
    words = ["javac", "-Xlint:all", "-Werror", "-d", tmp_path / "classes", *sources, runner]
    subprocess.run(words, check=True, timeout=300)
    words = [
        "java",
        "-cp",
        tmp_path / "classes",
        "Conformance",
        vocabulary,
        ROOT / "runtimes/processing/tokenizers/unicode.txt",
        CONFORMANCE,
    ]
    assert_conforms(subprocess.run(words, capture_output=True, text=True, timeout=300))


MAIN = """
import java.nio.file.Files;
import java.nio.file.Paths;
import pocketship.NAME.*;

public final class Main {
    public static void main(String[] arguments) throws Exception {
        Assets assets = file -> Files.readAllBytes(Paths.get(arguments[0], file));
        try (CLASS model = CLASS.create(assets, CLASS.Runtime.ONNX, 1)) {
            SelfTest found = model.selfTest();
            System.out.println(found.maxAbsError + " " + found.passed + " " + found.samples);
            BODY
        }
    }
}
"""


def run_main(name: str, cls: str, body: str, library: Path, jvm, tmp_path: Path) -> list[str]:
    tmp_path.mkdir(exist_ok=True)
    main = tmp_path / "Main.java"
    main.write_text(MAIN.replace("NAME", name).replace("CLASS", cls).replace("BODY", body), encoding="utf-8")
    classes = jvm.compile(tmp_path / "classes", main, *(library / "src/main/java").rglob("*.java"))
    return jvm.run(classes, "Main", library / "src/main/assets" / name).splitlines()


@pytest.mark.matrix(one_in=2)
@pytest.mark.parametrize("name", ["digits", "rnet", "basicmotions", "minilm", "hearer", "two_inputs"])
def test_the_self_test_finds_the_error_that_python_finds(name, library_of, jvm, tmp_path, error_in_python):
    from exporter.embed.names import pascal

    said = run_main(name, pascal(name), "", library_of(name, "android"), jvm, tmp_path)
    error, passed, samples = said[0].split()
    assert passed == "true" and int(samples) >= 3
    assert float(error) == pytest.approx(error_in_python(name), rel=0.2, abs=1e-9)


def change_golden_value(library: Path, name: str) -> None:
    """The last one, by its exponent."""
    golden = library / f"src/main/assets/{name}/golden.bin"
    content = bytearray(golden.read_bytes())
    content[-2] ^= 0x40
    golden.write_bytes(content)


def test_a_changed_golden_value_and_a_broken_model_are_found(library_copy, jvm, tmp_path):
    library = library_copy("digits", "android")
    change_golden_value(library, "digits")
    body = """
            for (Runnable wrong : new Runnable[] {() -> model.run(new float[3]), () -> new Pixels(2, 2, new byte[5]),
                () -> new OnnxEngine(new byte[] {1, 2}, 1)}) {
                try {
                    wrong.run();
                } catch (IllegalArgumentException | ModelException error) {
                    System.out.println(error.getMessage());
                }
            }
    """
    said = run_main("digits", "Digits", body, library, jvm, tmp_path)
    assert said[0].split()[1] == "false"
    assert said[1:] == [
        "image has 3 numbers, the model takes 3072",
        "5 bytes are no picture of 2x2",
        "ONNX Runtime cannot load the model",
    ]


def test_a_changed_score_is_found_beside_boxes_that_may_be_off_by_more(library_copy, jvm, tmp_path):
    library = library_copy("detector", "android")
    change_golden_value(library, "detector")
    body = 'System.out.println(found.wrong + " " + (found.maxAbsError < found.tolerances.get("found")));'
    said = run_main("detector", "Detector", body, library, jvm, tmp_path)
    assert said[0].split()[1] == "false" and said[1] == "[found] true"


def test_text_and_labels_are_as_in_python(library_of, jvm, tmp_path, nasty):
    text = "Où est la gare? [SEP] 東京 👍"
    body = f"for (float x : model.embed({json.dumps(text)})) System.out.println(x);"
    said = run_main("minilm", "Minilm", body, library_of("minilm", "android"), jvm, tmp_path / "a")
    code = f"import json, minilm; print(json.dumps(minilm.Minilm(threads=1).embed({text!r}).tolist()))"
    there = library_of("minilm", "python")
    want = json.loads(subprocess.run([sys.executable, "-c", code], cwd=there, capture_output=True, text=True).stdout)
    np.testing.assert_allclose([float(line) for line in said[1:]], want, atol=1e-6)
    body = """
            ClassScores scores = model.predict(new Pixels(50, 60, new byte[9000]));
            for (String label : scores.labels) {
                for (char c : label.toCharArray()) System.out.print((int) c + " ");
                System.out.println();
            }
    """
    said = run_main("cnn", "Cnn", body, library_of("cnn", "android"), jvm, tmp_path / "b")
    units = [np.array([*map(int, line.split())], "<u2").tobytes().decode("utf-16-le") for line in said[1:]]
    assert tuple(units) == nasty


def test_two_libraries_fit_into_one_app(library_of, jvm, tmp_path):
    sources = [
        s for name in ("rnet", "minilm") for s in (library_of(name, "android") / "src/main/java").rglob("*.java")
    ]
    jvm.compile(tmp_path / "classes", *sources)
