"""Bundles with a preprocessor, exported once a session, and libraries made of them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtimes.processing.preprocessor import Audio, Classes, Image, Preprocessor, Text, to_bytes

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "models.py"
CONFORMANCE = ROOT / "tests" / "conformance"
NASTY = ('a"b', "c\\n\\", "*/ /* //", "</script>", "${x} \\(x) ??/ %s {{ y }} é 中 👍")
"""Labels that would do harm where they are not written as what they are; with control characters none is read."""
PREPROCESSORS = {
    "cnn": Preprocessor(
        (Image("image", 32, 32, resize="cover", shortest_edge=40, divisor=255.0, mean=(0.5,), std=(0.25,)),),
        (Classes("output", NASTY, "softmax"),),
    ),
    "hearer": Preprocessor(
        (Audio("mel", 8000, 2000, 160, 80, 256, 16, 0.0, 4000.0, mean=-4.0, std=4.0),),
        (Classes("scores", ("hum", "hiss", "silence"), "none", 0.5),),
    ),
    "transformer": Preprocessor((Text(12, "ids", "mask"),)),
}
FORMATS = {"android": "onnx,tflite", "ios": "coreml", "cpp": "onnx", "web": "onnx", "python": "onnx,tflite"}


@pytest.fixture(scope="session")
def bundle_of(once, exported, pocketship):
    """A bundle in all formats: of the zoo, or of tests/models.py, with its row of PREPROCESSORS where there is one."""

    def get(name: str) -> Path:
        def make(folder: Path) -> None:
            source, words = name, []
            if name in PREPROCESSORS:
                source = f"{MODELS}:{name}"
                (folder / "preprocessor.json").write_bytes(to_bytes(PREPROCESSORS[name]))
                words = ["--preprocessor", folder / "preprocessor.json"]
            targets = "onnx,tflite" if name == "minilm" else "all"
            done = pocketship("export", source, "-t", targets, "-o", folder / "bundle", "--quiet", *words)
            assert done.returncode == 0, done.stderr

        return (
            exported(name) if name in ("mlp", "two_inputs", "detector") else once(f"embedded {name}", make) / "bundle"
        )

    return get


@pytest.fixture(scope="session")
def library_of(bundle_of, once):
    """A library of a bundle for a platform; do not change it."""
    from exporter.embed.write import embed

    def get(name: str, platform: str) -> Path:
        bundle = bundle_of(name)
        return (
            once(f"library {name} {platform}", lambda folder: embed(bundle, platform, folder / "library")) / "library"
        )

    return get


@pytest.fixture
def library_copy(library_of, tmp_path):
    """A copy of a library that a test may damage."""

    def copy(name: str, platform: str) -> Path:
        return Path(shutil.copytree(library_of(name, platform), tmp_path / "library"))

    return copy


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Path:
    """minilm's vocab.txt, as `embed` writes it."""
    from exporter.families.minilm import model_folder
    from runtimes.processing.tokenizers.wordpiece import WordPiece

    tokens = WordPiece.from_tokenizer_json((model_folder() / "tokenizer.json").read_bytes(), 128).vocabulary
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return path


def proven(bundle: Path, artifact: str = "onnx") -> float:
    """The largest error that Python measures for an artifact, on this machine, now."""
    from runtimes.bundle import read_manifest
    from runtimes.verify import verify

    (path,) = [a.path for a in read_manifest(bundle).artifacts if a.format == artifact]
    (check,) = [check for check in verify(bundle, read_manifest(bundle)) if check.path == path]
    assert check.parity is not None and not check.fault
    return check.parity.max_abs_error


@pytest.fixture(scope="session")
def error_in_python(bundle_of):
    """The error of a bundle's ONNX file in onnxruntime, by the bundle's name."""
    known: dict[tuple[str, str], float] = {}

    def get(name: str, artifact: str = "onnx") -> float:
        if (name, artifact) not in known:
            known[name, artifact] = proven(bundle_of(name), artifact)
        return known[name, artifact]

    return get


def summary_counts(line: str) -> dict[str, tuple[int, int]]:
    """By kind the cases and the differences of a conformance runner's last line."""
    parts = (part.split() for part in line.split("; "))
    return {words[0].rstrip(":"): (int(words[1]), int(words[3])) for words in parts}


@pytest.fixture(scope="session")
def assert_conforms():
    """Check a conformance runner's output: no difference, and no case left out."""
    cases = [line.split("\t")[0].split("=")[1] for line in (CONFORMANCE / "cases.tsv").read_text().splitlines()]
    wanted = {kind: cases.count(kind) for kind in sorted(set(cases))}
    wanted["text"] = len((CONFORMANCE / "text.tsv").read_text().splitlines())

    def check(done) -> None:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        counts = summary_counts(done.stdout.strip().splitlines()[-1])
        assert {kind: count[0] for kind, count in counts.items() if kind in wanted} == wanted
        assert {count[1] for count in counts.values()} == {0}

    return check


@pytest.fixture(scope="session")
def nasty() -> tuple[str, ...]:
    """The labels of the model `cnn`."""
    return NASTY


JAVAC = ("javac", "-Xlint:all,-options", "-Werror", "--release", "8", "-encoding", "UTF-8")
"""As old Androids need it: no method that came after Java 8."""
JSON = "/usr/share/java/com.android.json.jar"


@dataclass(frozen=True)
class Jvm:
    """Compiles against Android's declarations, runs with ONNX Runtime's own Java library from the folder `native`."""

    native: Path
    stubs: Path
    aar: Path

    def compile(self, folder: Path, *sources: Path) -> Path:
        """The folder with the classes."""
        folder.mkdir(parents=True, exist_ok=True)
        words = [*JAVAC, "-cp", f"{self.stubs}:{self.aar}:{JSON}", "-d", folder, *sources]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    def run(self, classes: Path, main: str, *words: object) -> str:
        """What the class `main` prints."""
        options = (f"-Donnxruntime.native.path={self.native}", "-Dfile.encoding=UTF-8")
        done = subprocess.run(
            ["java", *options, "-cp", f"{classes}:{self.aar}:{JSON}", main, *map(str, words)],
            env={"LD_LIBRARY_PATH": str(self.native), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout


def jvm_in(folder: Path) -> Jvm:
    """The JVM whose libraries and declarations `fill_jvm` laid into a folder."""
    return Jvm(folder / "native", folder / "stubs", ROOT / "build/runner/aar/classes.jar")


def fill_jvm(folder: Path) -> None:
    """Lay ONNX Runtime's libraries and Android's compiled declarations into a folder."""
    native, stubs = folder / "native", folder / "stubs"
    spec = importlib.util.find_spec("onnxruntime")
    (library,) = (Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*")
    subprocess.run([ROOT / "tests/rigs/onnxruntime_jvm.sh", native, library], check=True, timeout=300)
    stubs.mkdir(exist_ok=True)
    sources = (ROOT / "android_demo/stubs").rglob("*.java")
    subprocess.run([*JAVAC, "-d", stubs, *sources], check=True, timeout=300)


@pytest.fixture(scope="session")
def jvm(once) -> Jvm:
    """This machine's, with what tests/rigs/install.sh brings."""
    return jvm_in(once("jvm", fill_jvm))
