"""Render the templates of a platform into a folder that appears whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exporter.bundle.writer import NEW_BUNDLE, commit, partial_folder, writing_errors
from exporter.embed import describe as described
from exporter.embed.card import model_card, model_license
from exporter.embed.describe import Library, describe
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import PREPROCESSOR

TEMPLATES = Path(__file__).parent / "templates"
RUNTIMES = Path(described.__file__).parent.parent.parent / "runtimes"
CARD = "MODEL_CARD.md"
UNICODE = "unicode.txt"
ONLY = "{# only:"


@dataclass(frozen=True)
class Platform:
    """What a platform can run, where its data files lie, and how it writes text and numbers."""

    formats: tuple[str, ...]
    data: str
    string: Callable[[str], str]
    float_suffix: str = ""


def _json_string(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")  # no </script> inside a page


def _python_string(text: str) -> str:
    return ascii(text)


def _cpp_string(text: str) -> str:
    """A literal of the text's UTF-8 bytes; octal escapes have three digits and take no more."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in _utf8(text))
    return f'"{"".join(plain)}"'


def _swift_string(text: str) -> str:
    plain = (c if 32 <= ord(c) < 127 and c not in '"\\' else f"\\u{{{ord(c):X}}}" for c in _utf8(text).decode())
    return f'"{"".join(plain)}"'


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


PLATFORMS = {
    "android": Platform(("onnx", "tflite"), "src/main/assets/{name}", _json_string, "f"),
    "ios": Platform(("coreml",), "Sources/{Class}/Resources", _swift_string),
    "cpp": Platform(("onnx",), "data", _cpp_string, "f"),
    "web": Platform(("onnx",), "data", _json_string),
    "python": Platform(("onnx", "tflite"), "{name}/data", _python_string),
}


@dataclass(frozen=True)
class Written:
    """A library on disk: its files' number and size, data included."""

    platform: str
    path: Path
    cls: str
    method: str
    artifacts: tuple[str, ...]
    files: int
    size_bytes: int


def embed(
    bundle: str | Path,
    platform: str,
    output: str | Path,
    *,
    name: str | None = None,
    package: str | None = None,
    force: bool = False,
) -> Written:
    """Write the library of a bundle for a platform, one of `PLATFORMS`, into the folder `output`.

    `name` replaces the bundle's for the class and its files, `package` (Android) is a dotted name. With `force` a
    library that `embed` wrote before is replaced. Raises BadInput and ParityFailed as `describe`, and BadInput where
    the folder cannot be written.
    """
    if platform not in PLATFORMS:
        raise BadInput(f"no platform {platform!r}", remedy=f"give one of {', '.join(PLATFORMS)}")
    library = describe(Path(bundle), PLATFORMS[platform].formats, name, package)
    output = Path(output).absolute()
    with partial_folder(output, force, marker=CARD, what="library that embed wrote") as partial, writing_errors(output):
        new = partial / NEW_BUNDLE
        render(library, platform, new)
        write_data(library, Path(bundle), platform, new)
        (new / CARD).write_text(model_card(library), encoding="utf-8")
        (new / "LICENSE").write_text((Path(__file__).parent / "licenses/Apache-2.0.txt").read_text(), encoding="utf-8")
        (new / "LICENSE.model").write_text(model_license(library, Path(bundle)), encoding="utf-8")
        files = [path for path in new.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        commit(partial, output)
    artifacts = tuple(artifact.file for artifact in library.artifacts)
    return Written(platform, output, library.cls, library.method, artifacts, len(files), size)


def render(library: Library, platform: str, folder: Path) -> None:
    """Write the templates of a platform, as far as the library has a use for them, into `folder`."""
    source = TEMPLATES / platform
    environment = environment_of(platform)
    context = context_of(library)
    used = library.kinds | {artifact.format for artifact in library.artifacts}
    for template in sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        relative = template.relative_to(source)
        first = template.read_bytes().split(b"\n", 1)[0].decode("utf-8", "replace")
        if first.startswith(ONLY) and not used & set(_words(first)):
            continue
        place = folder / _placed(str(relative).removesuffix(".j2"), library)
        place.parent.mkdir(parents=True, exist_ok=True)
        if template.suffix == ".j2":
            place.write_text(environment.get_template(relative.as_posix()).render(context), encoding="utf-8")
        else:
            shutil.copyfile(template, place)
    if platform == "python":
        copy_runtimes(library, folder / library.name)
    if platform == "web":
        copy_onnxruntime_web(folder / "ort")


def environment_of(platform: str) -> Environment:
    """Jinja2 with the filters that make names and texts of a bundle safe in the platform's language."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES / platform),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # code, not HTML: texts go through the filter `string`
    )
    suffix = PLATFORMS[platform].float_suffix
    environment.filters.update(
        string=lambda text: PLATFORMS[platform].string(str(text)),
        camel=described.camel,
        pascal=described.pascal,
        snake=described.snake,
        comment=comment,
        number=lambda value: f"{np.float32(value)!s}{suffix}",
        double=lambda value: repr(float(value)),
    )
    return environment


def context_of(library: Library) -> dict[str, Any]:
    """The names that templates may use."""
    origin = library.manifest.origin
    return {
        **vars(library),
        "license": origin.license,
        "source": origin.source,
        "parameters": origin.parameters,
        "weights": origin.weights,
    }


def comment(text: object) -> str:
    """A text on one line that neither ends a comment nor is markup."""
    line = " ".join(str(text).split())
    for mark in ("*/", "/*", "-->", "<", ">", "`", "|"):
        line = line.replace(mark, " ")
    return "".join(c if c.isprintable() else " " for c in line).replace("\\", "/")


def write_data(library: Library, bundle: Path, platform: str, folder: Path) -> None:
    """Copy the artifacts, and write the data that the code reads, into the platform's data folder."""
    data = folder / _placed(PLATFORMS[platform].data, library)
    data.mkdir(parents=True, exist_ok=True)
    for artifact in library.artifacts:
        copy = shutil.copytree if artifact.source.is_dir() else shutil.copyfile
        copy(artifact.source, data / artifact.file)
    for name, content in library.files.items():
        if (platform, name) != ("python", UNICODE):  # lies beside the module that reads it
            (data / name).write_bytes(content)
    if platform == "python" and library.entries:
        shutil.copyfile(bundle / PREPROCESSOR, data / PREPROCESSOR)


MODULES = ("errors", "signature", "types", "records", "bundle", "processing/preprocessor")
PROCESSORS = {
    "text": "processing/tokenizers/wordpiece",
    "image": "processing/image",
    "audio": "processing/audio",
    "series": "processing/series",
}
OWN_IMPORT = re.compile(r"^( *)from runtimes\.(?:\w+\.)*(\w+) import ", re.MULTILINE)


def copy_runtimes(library: Library, package: Path) -> None:
    """The reference implementation is the Python library's own: its modules, importing from beside themselves."""
    used = [PROCESSORS[kind] for kind in sorted(library.kinds & set(PROCESSORS))]
    for module in (*MODULES, *used, "processing/postprocess") if library.entries else ():
        text = (RUNTIMES / f"{module}.py").read_text(encoding="utf-8")
        text = OWN_IMPORT.sub(r"\1from .\2 import ", text)
        (package / Path(module).with_suffix(".py").name).write_text(text, encoding="utf-8")
    if "text" in library.kinds:
        shutil.copyfile(RUNTIMES / "processing/tokenizers" / UNICODE, package / UNICODE)


def copy_onnxruntime_web(folder: Path) -> None:
    """ONNX Runtime Web, as the page of `bench --on browser` brings it.

    Raises BadInput where that page was not built.
    """
    built = RUNTIMES.parent / "benchmarks/devices/browser/page/dist/onnx"
    if not (built / "ort.wasm.min.mjs").is_file():
        raise BadInput("ONNX Runtime Web is not here", where="--web", remedy="run make page (needs npm), then again")
    shutil.copytree(built, folder)


def _placed(path: str, library: Library) -> str:
    package = library.package.replace(".", "/")
    return path.replace("{name}", library.name).replace("{Class}", library.cls).replace("{package}", package)


def _words(only: str) -> Iterator[str]:
    for word in only.removeprefix(ONLY).split("#}")[0].split(","):
        yield word.strip()
