"""Strings that would do harm as code, and a library that says one of them in any field of what a template is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from exporter.embed import describe, names
from exporter.embed.describe import EmbeddedArtifact, Library, Sample, TextOptions
from exporter.embed.escape import Safe
from exporter.embed.write import PLATFORMS
from runtimes.processing.preprocessor import Audio, Classes, Embedding, Image, Preprocessor, Series, Text
from runtimes.signature import Signature, TensorSpec
from runtimes.types import Accuracy, LedgerRow, Manifest, Origin, RecipeStep

HOSTILE = (
    '"', "'", "`", '"""', "'''", "\\", "\\\\", '\\"', '"; import os; os.abort() #', '""" + print("run") + """',
    'x"""\nimport os\nos.abort()\n"""', "\n", "\r\n#include </etc/passwd>", "\r", "\x0b\x0c", "\u2028alert(1)//",
    "\u2029", "\x85", "*/", "*\\ class Injected {} /*", "*\\/", "/* */ /*", "*//*", "//", "#",
    "\\u002a/ class Injected {} ", "\\u000aclass Injected {}", "\\u0022;x();\\u0022", "??/", "??/\nint injected;",
    "trailing \\", "${injected()}", "$injected {{ injected }} {% raw %} #{injected}", "\\(injected())",
    "</script><script>alert(1)</script>", "<!-- --> ]]> &amp; <img src=x onerror=alert(1)>",
    "| a | b |\n|---|---|\n# heading\n- [link](http://x.example) **b**", "``` \n```js\ninjected()\n```",
    "\x00\x07\x1b]52;c;AAAA\x07\x1b[2J", "\ud800 \udfff \ud83d", "\u202e\u2066 reversed", "%s %n %x",
    "../../../../tmp/escaped", "class", "constructor", "__proto__", "", " ", "é 中 👍", "9" * 400,
    "\\uuuu002a/ class Injected {}", "\ufeff\u200b", "https://x.example www.x.example a@x.example <https://y.example>",
    "@param {@code injected} @Override",
)  # fmt: skip
"""Quotes, comments' ends, line breaks, escapes that a lexer reads early, templates, markup, controls, no Unicode."""
KEYS = ("ids", "mask", "types", "picture", "mel", "steps")
DATA_FIELDS = (
    "title", "version", "source", "weights", "weights_sha256", "task", "license", "precision", "sha256",
    "computed_by", "file", "label 0", "label 1", "prefix", "special", "input ids", "input mask", "input types",
    "input picture", "input mel", "input steps", "output scores", "output vector", "output rest", "step", "setting",
    "setting value", "stage", "ledger format", "metric", "golden name",
)  # fmt: skip
"""Fields that are printed as data."""
NAME_FIELDS = ("name", "entry text", "entry image", "entry sound", "entry series", "result classes", "result embedding")
"""Fields that are printed as identifiers alone, as the names of inputs and outputs are, too."""
WORD_FIELDS = (
    "channels", "layout", "resize", "interpolation", "crop_rounding", "padding", "log", "mel layout", "keep", "scaling",
    "activation", "pooling", "dtype",
)  # fmt: skip
"""Fields that hold one of a few words, and are names in some language: what is no word is refused there."""

OPTIONAL_FIELDS = ("task", "license", "input mask", "input types")
"""Fields for which nothing is to be printed where they are empty."""

Say = Callable[[str, str], str]
"""What a field says, by its name and what it says where nobody means harm."""


def harmless(field: str, text: str) -> str:
    return text


def saying(hostile: str, *fields: str) -> Say:
    """The hostile string in these fields, in all others what they say otherwise."""
    return lambda field, text: hostile if field in fields else text


def library(platform: str, say: Say = harmless) -> Library:
    """A library with everything that a template can print: each kind of entry and result, recipe and ledger."""
    ids, mask, types, picture, mel, steps = (say(f"input {key}", key) for key in KEYS)
    given = (
        TensorSpec(ids, say("dtype", "int64"), (1, 8)), TensorSpec(mask, "int64", (1, 8)),
        TensorSpec(types, "int64", (1, 8)), TensorSpec(picture, "float32", (1, 3, 4, 5)),
        TensorSpec(mel, "float32", (1, 1, 16, 6)), TensorSpec(steps, "float32", (1, 2, 3)),
    )  # fmt: skip
    scores, vector, rest = (say(f"output {key}", key) for key in ("scores", "vector", "rest"))
    outputs = (
        TensorSpec(scores, "float32", (1, 2)),
        TensorSpec(vector, "float32", (1, 8, 4)),
        TensorSpec(rest, "int64", (1,)),
    )
    preprocessor = Preprocessor(
        (
            Text(8, ids, mask, types, name=say("entry text", "text")),
            Image(
                picture, 5, 4, say("channels", "rgb"), say("layout", "nchw"), say("resize", "stretch"), 0,
                say("interpolation", "bilinear"), say("crop_rounding", "even"), name=say("entry image", "image"),
            ),
            Audio(
                mel, 8000, 800, 160, 160, 256, 16, 0.0, 4000.0, padding=say("padding", "reflect"),
                log=say("log", "log10"), range=8.0, layout=say("mel layout", "mel_time"),
                name=say("entry sound", "sound"),
            ),
            Series(
                steps, 2, 3, say("keep", "last"), scaling=say("scaling", "standard"), mean=(0.5, 1e-30), std=(1.0, 2.0),
                name=say("entry series", "series"),
            ),
        ),
        (
            Classes(scores, (say("label 0", "hum"), say("label 1", "hiss")), say("activation", "softmax"),
                    name=say("result classes", "classes")),
            Embedding(vector, say("pooling", "mean"), mask, True, name=say("result embedding", "embedding")),
        ),
    )  # fmt: skip
    accuracy = Accuracy(say("metric", "accuracy"), 0.9, 0.8, 0.95, 100)
    manifest = Manifest(
        1,
        say("title", "everything"),
        Origin(
            say("source", "model.py:everything"), "python", say("weights_sha256", "ab" * 32),
            say("weights", "as given"), 12345, say("task", "hearing"), say("license", "MIT"),
        ),
        Signature(given, outputs),
        (),
        (),
        {"torch": "2"},
        recipe=(RecipeStep(say("step", "quantize"), {say("setting", "bits"): say("setting value", "8")}),),
        ledger=(LedgerRow(0, say("stage", "original"), say("ledger format", "onnx"), 1, 1, 1, 1, 1, {}, accuracy),),
    )  # fmt: skip
    bundle = Path("bundle")
    inputs, tensors = describe._tensors(given, bundle), describe._tensors(outputs, bundle)
    entries, results = describe._named(preprocessor, tensors)
    own = names.library(say("name", "everything"))
    return Library(
        name=own,
        cls=names.class_of(own),
        package=describe._checked_package(f"pocketship.{own}"),
        title=manifest.name,
        version=say("version", "1.2.3"),
        manifest=manifest,
        method=Safe("predict"),
        artifacts=tuple(_artifact(form, inputs, tensors, say) for form in PLATFORMS[platform].formats),
        inputs=inputs,
        outputs=tensors,
        entries=entries,
        results=results,
        text=TextOptions(
            True, False, True, True, say("prefix", "##"), 100, 1, 2, 3, 0,
            ((say("special", "[CLS]"), 2), ("[SEP]", 3)), 8,
        ),
        kinds=frozenset(entry.kind for entry in (*entries, *results)),
        files={"vocab.txt": b"", "golden.bin": b""},
    )  # fmt: skip


def _artifact(
    form: str, inputs: tuple[describe.Tensor, ...], outputs: tuple[describe.Tensor, ...], say: Say
) -> EmbeddedArtifact:
    given, wanted = (
        tuple(
            describe.GoldenTensor(say("golden name", t.name), t.field, t.dtype, t.shape, t.count, 8 * i)
            for i, t in enumerate(tensors)
        )
        for tensors in (inputs, outputs)
    )
    return EmbeddedArtifact(
        format=form,
        file=say("file", "model.bin"),
        source=Path("model.bin"),
        size_bytes=1000,
        sha256=say("sha256", "cd" * 32),
        precision=say("precision", "float32"),
        max_abs_error=1e-7,
        computed_by=say("computed_by", "runtime 1.0 (physical)"),
        inputs=tuple(replace(t, dtype="int32") if t.dtype == "int64" and form == "tflite" else t for t in inputs),
        outputs=outputs,
        samples=(Sample(given, wanted),) * 2,
        tolerances={t.name: 1e-4 for t in outputs},
        allowed=wanted,
    )
