"""Render the templates of platforms into folders that appear whole, and all of them or none."""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.bundle.writer import NEW_BUNDLE, commit, partial_folder, writing_errors
from exporter.embed import names
from exporter.embed.card import CARD, model_card, model_license
from exporter.embed.describe import Library, describe
from exporter.embed.escape import (
    Environment,
    Safe,
    cpp_string,
    float32,
    java_string,
    javascript_string,
    python_string,
    swift_string,
)
from exporter.processes.signals import deferred_signals
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import PREPROCESSOR

TEMPLATES = Path(__file__).parent / "templates"
RUNTIMES = Path(__file__).parent.parent.parent / "runtimes"
UNICODE = "unicode.txt"
ONLY = "{# only:"
OLDEST_IOS = 16


@dataclass(frozen=True)
class Platform:
    """What a platform can run, where its data files lie, and how its language writes text and numbers."""

    formats: tuple[str, ...]
    data: str
    string: Callable[[str], Safe]
    float_suffix: str = ""


PLATFORMS = {
    "android": Platform(("onnx", "tflite"), "src/main/assets/{name}", java_string, "f"),
    "ios": Platform(("coreml",), "Sources/{Class}/Resources", swift_string),
    "cpp": Platform(("onnx",), "data", cpp_string, "f"),
    "web": Platform(("onnx",), "data", javascript_string),
    "python": Platform(("onnx", "tflite"), "{name}/data", python_string),
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
    """Write the library of a bundle for one platform: see `embed_all`."""
    (written,) = embed_all(bundle, {platform: output}, name=name, package=package, force=force)
    return written


def embed_all(
    bundle: str | Path,
    outputs: Mapping[str, str | Path],
    *,
    name: str | None = None,
    package: str | None = None,
    force: bool = False,
) -> tuple[Written, ...]:
    """Write the library of a bundle for each platform (one of `PLATFORMS`) into its folder: all of them, or none.

    `name` replaces the bundle's for the class and its files, `package` (Android) is a dotted name. With `force` a
    library that `embed` wrote before is replaced. Every library is whole before the first takes its place, and where
    one cannot, those before it are taken back; a kill between two renames alone can leave some without the others.

    Raises BadInput and ParityFailed as `describe`, and BadInput where a folder cannot be written, or shares files with
    the bundle's or another platform's.
    """
    folders = {platform: Path(output).absolute() for platform, output in outputs.items()}
    for platform in folders:
        if platform not in PLATFORMS:
            raise BadInput(f"no platform {platform!r}", remedy=f"give one of {', '.join(PLATFORMS)}")
    _check_apart(Path(bundle), folders)
    with contextlib.ExitStack() as stack:
        made = [
            (stack.enter_context(_library(Path(bundle), platform, output, name, package, force)), output)
            for platform, output in folders.items()
        ]
        with deferred_signals(), contextlib.ExitStack() as undo:
            for (partial, _), output in made:
                is_new = not output.exists()
                with writing_errors(output):
                    commit(partial, output)
                undo.callback(_take_back, partial, output, is_new)
            undo.pop_all()
    return tuple(written for (_, written), _ in made)


def _check_apart(bundle: Path, folders: Mapping[str, Path]) -> None:
    """Raise BadInput where libraries, or one and the bundle, would share files; some disks do not tell a from A."""
    places = {"the bundle": bundle, **{f"--{platform}": folder for platform, folder in folders.items()}}
    for (first, one), (second, other) in itertools.permutations(places.items(), 2):
        above, below = (Path(os.path.normpath(path.absolute())) for path in (one, other))
        if _folded(below).is_relative_to(_folded(above)):
            where = "" if below.is_relative_to(above) else ", on a disk that does not tell a from A"
            what = f"{second} lies in the folder of {first}{where}"
            raise BadInput(what, where=str(other), remedy="give each a folder of its own")


def _folded(path: Path) -> Path:
    return Path(str(path).casefold())


@contextlib.contextmanager
def _library(
    bundle: Path, platform: str, output: Path, name: str | None, package: str | None, force: bool
) -> Iterator[tuple[Path, Written]]:
    """A whole library in the partial folder beside `output`, ready to be committed; gone at the end."""
    library = describe(bundle, PLATFORMS[platform].formats, name, package)
    with partial_folder(output, force, marker=CARD, what="library that embed wrote") as partial:
        with writing_errors(output):
            new = partial / NEW_BUNDLE
            render(library, platform, new)
            write_data(library, bundle, platform, new)
            (new / CARD).write_text(model_card(library), encoding="utf-8")
            (new / "LICENSE").write_text(
                (Path(__file__).parent / "licenses/Apache-2.0.txt").read_text(), encoding="utf-8"
            )
            (new / "LICENSE.model").write_bytes(model_license(library, bundle))
            files = [path for path in new.rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files)
        artifacts = tuple(artifact.file for artifact in library.artifacts)
        yield partial, Written(platform, output, library.cls, library.method, artifacts, len(files), size)


def _take_back(partial: Path, output: Path, is_new: bool) -> None:
    """Undo a commit, after which `partial` holds what was there before, if anything was."""
    if is_new:
        output.rename(partial / NEW_BUNDLE)
    else:
        commit(partial, output)


def render(library: Library, platform: str, folder: Path) -> None:
    """Write the templates of a platform, as far as the library has a use for them, into `folder`."""
    for place, text in rendered(library, platform).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if platform == "python":
        copy_runtimes(library, folder / library.name)
    if platform == "web":
        copy_onnxruntime_web(folder / "ort")


def rendered(library: Library, platform: str) -> dict[str, str]:
    """The text of each file that a platform's templates make, by its path."""
    source = TEMPLATES / platform
    environment, context = environment_of(platform), context_of(library)
    used = library.kinds | {artifact.format for artifact in library.artifacts}
    files: dict[str, str] = {}
    for template in sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        relative = template.relative_to(source).as_posix()
        text = template.read_text(encoding="utf-8")
        only = text.split("\n", 1)[0]
        if only.startswith(ONLY) and not used & set(_words(only)):
            continue
        if template.suffix == ".j2":
            text = environment.get_template(relative).render(context)
        files[_placed(relative.removesuffix(".j2"), library)] = text
    return files


@functools.cache
def environment_of(platform: str) -> Environment:
    """The templates of a platform, with the filters of its language: `string`, and `number` for a float32."""
    environment = Environment(TEMPLATES / platform)
    language = PLATFORMS[platform]
    environment.filters["string"] = language.string
    environment.filters["number"] = lambda value: float32(value, language.float_suffix)
    for case in (names.snake, names.camel, names.pascal, names.constant):
        environment.filters[case.__name__] = case
    return environment


def context_of(library: Library) -> dict[str, Any]:
    """The names that templates may use."""
    return {
        **vars(library),
        "license": library.manifest.origin.license,
        "min_ios": _min_ios(library.manifest.settings.get("min_ios")),
    }


def _min_ios(asked: object) -> int:
    """Compiling a model without blocking needs iOS 16, four-bit weights iOS 18."""
    if asked is None:
        return OLDEST_IOS
    if type(asked) is not int or not 0 < asked < 100:
        raise BadInput(f"min_ios is {asked!a:.60}, no version of iOS", where="the bundle", remedy="export it again")
    return max(asked, OLDEST_IOS)


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


MODULES = ("errors", "files", "signature", "types", "records", "grammar", "paths", "bundle", "processing/preprocessor")
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
    folder.mkdir()
    for path in sorted(built.iterdir()):
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as content:
            (folder / path.name.removesuffix(".gz")).write_bytes(content.read())


def _placed(path: str, library: Library) -> str:
    """The path with the library's names in it: identifiers, so it stays in its folder."""
    package = library.package.replace(".", "/")
    return path.replace("{name}", library.name).replace("{Class}", library.cls).replace("{package}", package)


def _words(only: str) -> Iterator[str]:
    for word in only.removeprefix(ONLY).split("#}")[0].split(","):
        yield word.strip()
