"""Data as they lie on a disk, made a task for one model: a folder of pictures or sounds, a table of texts.

A folder holds one folder a class, or train, calibration and test with such folders each. A .csv or .parquet file has a
column of texts and one of labels. How a picture, a sound or a text becomes the model's input says its preprocessor.json
(docs/preprocessor.md); without one, pictures are stretched to the model's size and divided by 255, and sounds cut or
padded to its number of samples. What is not split is split as `split_at_random` does, repeated samples left out.
"""

from __future__ import annotations

import csv
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.tasks import TASKS
from benchmarks.tasks.task import Split, Task, duplicates
from benchmarks.tasks.user_data import CLASSES, LABELS, SPLITS, check, split_at_random, task_of
from runtimes.bundle import read_manifest
from runtimes.errors import BadInput, NotInstalled
from runtimes.processing import audio, image
from runtimes.processing.preprocessor import PREPROCESSOR, Audio, Classes, Image, Preprocessor, Text, read_preprocessor

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
SOUNDS = (".wav",)
TABLES = (".csv", ".parquet")
TEXT_COLUMNS = ("text", "sentence", "content")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
MOST_BYTES = 1 << 32
"""Of all samples together: they are held in memory."""
FORM = "give a folder with one folder a class, of .png, .jpg or .wav files"

Sample = dict[str, np.ndarray]
Make = Callable[[Any], Sample]
Entry = TypeVar("Entry", Text, Image, Audio)


@dataclass(frozen=True)
class ModelInputs:
    """What a model takes: the type and shape of each input, with its batch axis, and how they are made, if known.

    `tokenizer` is the content of the tokenizer.json that the preprocessor names.
    """

    shapes: Mapping[str, tuple[str, tuple[Any, ...]]]
    preprocessor: Preprocessor | None = None
    tokenizer: bytes | None = None


def is_raw(word: object) -> bool:
    """Whether a word of --data names data that need a model's preprocessing; the name of a task is that task."""
    path = Path(word) if isinstance(word, str) else Path()
    if not isinstance(word, str) or word in TASKS or not path.exists():
        return False
    if path.is_dir():
        return not any((path / f"{name}.npz").exists() for name in SPLITS) and any(p.is_dir() for p in path.iterdir())
    return path.suffix.lower() in TABLES


def inputs_of_bundle(path: Path) -> ModelInputs:
    """What the model of a bundle takes.

    Raises BadInput where `path` is no bundle.
    """
    if not path.is_dir() or path.suffix == ".mlpackage":
        raise BadInput(
            "a file alone does not say how pictures, sounds or texts become its inputs",
            where=str(path),
            remedy="give its bundle",
        )
    shapes = {spec.name: (spec.dtype, spec.shape) for spec in read_manifest(path).signature.inputs}
    found = read_preprocessor(path / PREPROCESSOR) if (path / PREPROCESSOR).exists() else None
    text = next((entry for entry in found.inputs if isinstance(entry, Text)), None) if found else None
    return ModelInputs(shapes, found, (path / text.tokenizer).read_bytes() if text else None)


def load_raw(path: Path, model: ModelInputs, seed: int = 0) -> Task:
    """The task of raw data for a model.

    Raises BadInput for data that cannot be read or do not fit the model, NotInstalled for a library that is missing.
    """
    parts = _parts(path)
    make = _maker(path, next(iter(parts.values()))[0][1], model)
    arrays = {name: _arrays(rows, make) for name, rows in parts.items()}
    classes = _classes({label for rows in parts.values() for label, _ in rows}, model.preprocessor)
    if set(arrays) == set(SPLITS):
        for split in arrays.values():
            split[CLASSES] = np.array(classes)
        task = task_of(path.resolve().name, arrays, str(path))
        repeated = 0
    else:
        (together,) = arrays.values()
        twice = duplicates(Split({name: a for name, a in together.items() if name != LABELS}))
        kept = {name: np.delete(a, twice, axis=0) for name, a in together.items()}
        task, repeated = split_at_random(kept, seed, str(path), classes), len(twice)
    said = f"{sum(map(len, task.splits.values()))} samples of {len(task.classes)} classes"
    said += f", {repeated} repeated ones left out" if repeated else ""
    task = replace(task, name=path.resolve().name, description=said)
    check(task, str(path))
    return task


def save(task: Task, folder: Path) -> None:
    """Write a task as a folder that `--data` takes."""
    folder.mkdir()
    for name, split in task.splits.items():
        assert split.labels is not None
        arrays = {**split.inputs, LABELS: split.labels, CLASSES: np.array(task.classes)}
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub reads ** as its bool


Rows = list[tuple[str, Any]]
"""(class, file or text)."""


def _parts(path: Path) -> dict[str, Rows]:
    """The samples by split, or all under the name "": as they lie there, sorted."""
    if not path.is_dir():
        return {"": _texts(path)}
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    is_split = {folder.name for folder in folders} == set(SPLITS)
    found = {f.name: _files(f) for f in folders} if is_split else {"": _files(path)}
    for name, rows in found.items():
        kinds = {_kind(file) for _, file in rows}
        if len(kinds) != 1:
            what = "both pictures and sounds" if kinds else "no picture and no sound"
            raise BadInput(f"it holds {what}", where=str(path / name), remedy=FORM)
    return found


def _files(folder: Path) -> Rows:
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [(c.name, file) for c in classes for file in sorted(c.iterdir()) if _kind(file) and file.is_file()]


def _kind(file: Path) -> str:
    suffix = file.suffix.lower()
    return "picture" if suffix in PICTURES else "sound" if suffix in SOUNDS else ""


def _texts(path: Path) -> Rows:
    """The rows of a table, by the names of its columns."""
    columns: Mapping[str, list[Any]] = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    label = next((name for name in columns if name.lower() in LABEL_COLUMNS), None)
    others = [name for name in columns if name != label]
    text = next((name for name in others if name.lower() in TEXT_COLUMNS), others[0] if len(others) == 1 else None)
    if label is None or text is None:
        raise BadInput(
            f"its columns are {', '.join(columns) or 'none'}"[:200],
            where=str(path),
            remedy="name that of the texts `text` and that of their classes `label`",
        )
    for name in (label, text):
        if None in columns[name]:
            row = columns[name].index(None) + 1
            raise BadInput(f"row {row} has no {name}", where=str(path), remedy="leave it out, or fill it in")
    rows = [(str(a), str(b)) for a, b in zip(columns[label], columns[text], strict=True)]
    if not rows:
        raise BadInput("it has no rows", where=str(path), remedy="give at least five")
    return rows


def _csv(path: Path) -> dict[str, list[str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head, *rows = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot be read ({error})", where=str(path), remedy="write it as CSV in UTF-8") from error
    odd = next((i for i, row in enumerate(rows, 2) if row and len(row) != len(head)), None)
    if odd is not None:
        raise BadInput(f"row {odd} has not {len(head)} columns", where=str(path), remedy="put quotes around texts")
    return {name.strip(): [row[i] for row in rows if row] for i, name in enumerate(head)}


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise NotInstalled("pyarrow is not installed", where=str(path), remedy="pip install pyarrow") from error
    try:
        found: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except Exception as error:  # pyarrow's own kinds, of damaged bytes
        raise BadInput(f"cannot be read ({error!s:.160})", where=str(path), remedy="write it as Parquet") from error
    return found


def _arrays(rows: Rows, make: Make) -> dict[str, np.ndarray]:
    """The inputs of all samples, stacked, and their labels."""
    made: list[Sample] = []
    for _, item in rows:
        made.append(make(item))
        needed = sum(array.nbytes for array in made[0].values()) * len(rows)
        if needed > MOST_BYTES:
            raise BadInput(f"{len(rows)} samples take {needed:,} bytes", where="--data", remedy="give fewer")
    stacked = {name: np.stack([sample[name] for sample in made]) for name in made[0]}
    return {**stacked, LABELS: np.array([label for label, _ in rows])}


def _classes(found: set[str], preprocessor: Preprocessor | None) -> tuple[str, ...]:
    """The classes in the order of the model's outputs, where its preprocessor names them all; else by name."""
    named = next((r.labels for r in preprocessor.outputs if isinstance(r, Classes)), ()) if preprocessor else ()
    if found <= set(named):
        return tuple(named)
    are_numbers = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if are_numbers else 0, name)))


def _maker(path: Path, item: Any, model: ModelInputs) -> Make:
    """What makes the model's inputs of a sample like `item`."""
    if isinstance(item, str):
        return _text_maker(path, model)
    return _picture_maker(path, model) if _kind(item) == "picture" else _sound_maker(path, model)


def _entry(kind: type[Entry], model: ModelInputs) -> Entry | None:
    entries: Sequence[Any] = model.preprocessor.inputs if model.preprocessor else ()
    return next((entry for entry in entries if isinstance(entry, kind)), None)


def _does_not_fit(path: Path, what: str, model: ModelInputs) -> BadInput:
    taken = ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in model.shapes.items())
    return BadInput(
        f"nothing says how {what} become its inputs ({taken})", where=str(path), remedy="give --preprocessor, or arrays"
    )


def _picture_maker(path: Path, model: ModelInputs) -> Make:
    chosen = _entry(Image, model) or _plain_image(model)
    if chosen is None:
        raise _does_not_fit(path, "pictures", model)
    try:
        from PIL import Image as pillow
    except ImportError as error:
        raise NotInstalled("pillow is not installed", where=str(path), remedy="pip install pillow") from error

    def make(file: Path) -> Sample:
        try:
            with pillow.open(file) as opened:
                pixels = np.asarray(opened.convert("RGB"))
        except Exception as error:  # Pillow raises a dozen kinds for damaged bytes, and for a bomb
            raise BadInput(f"no picture ({error!s:.160})", where=str(file), remedy="leave it out") from error
        return {chosen.input: image.to_tensor(pixels, chosen)[0]}

    return make


def _plain_image(model: ModelInputs) -> Image | None:
    """Stretched, and divided by 255, where the model has one input that looks like a picture's."""
    if len(model.shapes) != 1:
        return None
    ((name, (dtype, shape)),) = model.shapes.items()
    sizes = shape[1:]
    if dtype != "float32" or len(sizes) != 3 or not all(isinstance(n, int) for n in sizes):
        return None
    layout = "nchw" if sizes[0] in (1, 3) else "nhwc"
    planes, height, width = sizes if layout == "nchw" else (sizes[2], *sizes[:2])
    if planes not in (1, 3):
        return None
    return Image(name, width, height, channels="gray" if planes == 1 else "rgb", layout=layout, divisor=255.0)


def _sound_maker(path: Path, model: ModelInputs) -> Make:
    chosen = _entry(Audio, model)
    plain = next(iter(model.shapes.items())) if len(model.shapes) == 1 else None
    is_plain = plain and plain[1][0] == "float32" and len(plain[1][1]) in (2, 3) and isinstance(plain[1][1][-1], int)
    if chosen is None and not is_plain:
        raise _does_not_fit(path, "sounds", model)

    def make(file: Path) -> Sample:
        sound, rate = _wav(file)
        if chosen:
            if rate != chosen.sample_rate:
                raise BadInput(f"it has {rate} Hz", where=str(file), remedy=f"resample it to {chosen.sample_rate} Hz")
            return {chosen.input: audio.to_tensor(sound, chosen)[0]}
        assert plain
        name, (_, (_, *shape)) = plain
        kept = sound[: shape[-1]]
        return {name: np.pad(kept, (0, shape[-1] - len(kept))).reshape(shape)}

    return make


def _wav(file: Path) -> tuple[np.ndarray, int]:
    """A sound as float32 `[n]`, -1 to 1, the mean of its channels, and its samples a second."""
    try:
        with wave.open(str(file), "rb") as opened:
            width, channels, rate = opened.getsampwidth(), opened.getnchannels(), opened.getframerate()
            content = opened.readframes(opened.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise BadInput(f"no sound ({error})", where=str(file), remedy="write it as WAV of 16-bit PCM") from error
    if width == 1:
        values = (np.frombuffer(content, np.uint8).astype(np.float32) - 128.0) / 128.0
    elif width in (2, 4):
        values = np.frombuffer(content, f"<i{width}").astype(np.float32) / float(1 << (8 * width - 1))
    else:
        raise BadInput(f"it has {8 * width} bits a sample", where=str(file), remedy="write it as WAV of 16-bit PCM")
    return values.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def _text_maker(path: Path, model: ModelInputs) -> Make:
    from runtimes.processing.tokenizers.wordpiece import WordPiece

    entry = _entry(Text, model)
    if entry is None or model.tokenizer is None:
        raise _does_not_fit(path, "texts", model)
    tokenizer = WordPiece.from_tokenizer_json(model.tokenizer, entry.max_tokens)
    names = (entry.ids, entry.mask, entry.types)

    def make(text: str) -> Sample:
        made = zip(names, tokenizer.encode(text), strict=True)
        return {name: array.astype(model.shapes[name][0]) for name, array in made if name is not None}

    return make
