"""A name in code for any name of a bundle: valid in every language here, and none that the templates use themselves."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from exporter.embed.escape import Safe

LONGEST = 64
"""Characters of an identifier, which becomes the name of a file, too."""
KEYWORDS = frozenset(
    """abstract alignas alignof and any arguments as asm assert associatedtype async auto await base become bitand
    bitor bool boolean break byte case catch char class close co_await co_return co_yield compl concept const
    const_cast consteval constexpr constinit continue debugger decltype def default defer deinit del delete do
    double dynamic_cast elif else enum errno eval except explicit export extends extension extern fallthrough
    false fileprivate final finally float for friend from fun func function global goto guard if implements
    import in init inline inout instanceof int interface internal is lambda let linux long match module
    mutable namespace native new nil noexcept none nonlocal not not_eq null nullptr object open operator or
    or_eq override package pass precedencegroup private protected protocol public raise register
    reinterpret_cast repeat requires rethrows return run self short signed sizeof static static_assert
    static_cast stderr stdin stdout strictfp struct subscript super switch synchronized template this
    thread_local throw throws transient true try type typealias typedef typeid typename typeof undefined union
    unix unsigned using val var virtual void volatile wchar_t when where while with xor xor_eq yield and_eq""".split()  # noqa: SIM905
)
"""Words that are no name, or a macro's, in some language here; a name that is one of them gets an underscore."""
PACKAGE_WORDS = frozenset(
    """abstract as assert boolean break byte case catch char class const continue default do double else enum extends
    false final finally float for fun goto if implements import in instanceof int interface is long native new null
    object package private protected public return short static strictfp super switch synchronized this throw throws
    transient true try typealias typeof val var void volatile when while""".split()  # noqa: SIM905
)
"""Words that no part of a package of Java and Kotlin may be."""
TENSOR_WORDS = ("inputs",)
"""What the methods that take the model's tensors call something else."""
ENTRY_WORDS = tuple(
    """inputs outputs tokens ids mask types given np std classes embedding postprocess image_input audio_input
    series_input image_tensor audio_tensor series_tensor from_image_data class_scores embedding_of understood""".split()  # noqa: SIM905
)
"""The same for the methods that take what preprocessor.json says."""
RESULT_WORDS = ("inputs", "outputs", "np", "postprocess", "image_input", "audio_input", "series_input")
"""The same for what they give back."""
SUFFIXES = ("tokenizer", "tokens", "processor", "options", "labels")
"""What the templates add to a name for more of their own."""
TYPES = frozenset(
    """Activation AndroidAssets Any Array ArrayBuffer ArrayList Arrays AssetManager Assets AudioOptions
    AudioProcessor AutoCloseable BigInt Bitmap Bitmaps Bool Boolean Buffer Bundle Bundled Byte
    ByteArrayOutputStream ByteBuffer ByteOrder Callable Channels Character Class ClassScores Codes Collections
    Context CoreGraphics CoreML CropRounding Data DataType Dict Double Embeddings Engine Enum Error Exception
    Field File FileManager Float FloatBuffer Foundation Function Generic Golden GoldenTests HashMap
    IOException ImageOptions ImageProcessor Implementation Infinity InputStream Inputs InstrumentationRegistry
    Int IntBuffer Integer Interpolation Interpreter Iterable JSON Keep Layout LinkedHashMap List LiteRtEngine
    Log Long LongBuffer Map Mapping Math MelLayout ModelException NaN None Number Object OnnxEngine OnnxTensor
    OnnxValue Optional Options OrtEnvironment OrtException OrtSession Outputs Ort Override Package
    PackageDescription Padding Path Pixels Plane Pooling Postprocess Prediction Process Promise Protocol Proxy
    Record Reflect RegExp Resize Response Result RunWith Runtime Sample Scaling Self SelfTest Series
    SeriesOptions SeriesProcessor Set Short StandardCharsets String Swift Symbol System Tables Tensor
    TensorInfo Test Thread Tokens Tuple Type UInt URL Unicode Void Weights WordPiece WordPieceOptions XCTest
    XCTestCase""".lower().split()
)
"""Classes of the libraries' own, and of what they import, in lower case: their files' names may be without case."""
LIBRARIES = frozenset(sys.stdlib_module_names) | frozenset(
    """ai_edge_litert aux con coremltools nul numpy onnxruntime pip pocketship prn runtimes setuptools tflite_runtime
    wheel audio image index page postprocess preprocessor self_test series service_worker wordpiece all clean
    data help install main ort std test abort abs basename bind calloc ceil clock connect cos cosh dirname div
    exp fabs floor free gamma index link listen log malloc pow printf pause pipe rand random read remove
    rename rewind round send sin sinh sleep sqrt sync system tan tanh time truncate wait write""".split()  # noqa: SIM905
)
"""Modules of Python, files of the libraries' own, targets of CMake, devices of Windows, functions of C."""


def snake(name: str) -> Safe:
    """An identifier in snake_case for any name; never empty, a keyword or starting with a digit."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+", name)
    plain = "_".join(words).lower() or "model"
    plain = f"n{plain}" if plain[0].isdigit() else plain
    plain = plain if len(plain) <= LONGEST else _short(plain)
    return Safe(f"{plain}_" if plain in KEYWORDS else plain)


def camel(name: str) -> Safe:
    """The same in camelCase."""
    first, *others = snake(name).rstrip("_").split("_")
    joined = first + "".join(word.capitalize() for word in others)
    return Safe(f"{joined}_" if joined in KEYWORDS else joined)


def pascal(name: str) -> Safe:
    """The same in PascalCase."""
    return Safe("".join(word.capitalize() for word in snake(name).rstrip("_").split("_")))


def constant(name: str) -> Safe:
    """The same in CONSTANT_CASE."""
    return Safe(snake(name).upper())


def unique(names: Iterable[str], taken: Iterable[str] = (), suffixes: Iterable[str] = ()) -> tuple[Safe, ...]:
    """An identifier for each name, in order: a number is added where two would be the same in any case style.

    `taken` are names that none may have; with `suffixes` none is another one that has one of them appended.
    """
    humps = ("", *map(pascal, suffixes))
    found: set[str] = {camel(name) for name in taken}
    own: list[Safe] = []
    for name in names:
        plain, number = snake(name), 2
        while not found.isdisjoint(_forms(plain, humps)):
            plain, number = Safe(f"{_short(snake(name))}_{number}"), number + 1
        found.update(_forms(plain, humps))
        own.append(plain)
    return tuple(own)


def _short(plain: str) -> str:
    """With room for a number behind it."""
    return plain[: LONGEST - len("_999999")].rstrip("_")


def _forms(plain: str, humps: Iterable[str]) -> list[str]:
    return [f"{camel(plain)}{hump}" for hump in humps]


def library(name: str) -> Safe:
    """What the library of a bundle of this name is called: its package, folder and files."""
    plain = snake(name)
    return Safe(f"{plain}_model") if plain in LIBRARIES else plain


def class_of(library: str) -> Safe:
    """The class of a library."""
    plain = pascal(library)
    return Safe(f"{plain}Model") if plain.lower() in TYPES else plain
