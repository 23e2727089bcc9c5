"""Errors a user can act on: one line that says what, where and what to do; each class is one exit code."""

from __future__ import annotations

import errno
from typing import Optional

MARK = "\ufffd"
"""Stands for a character that is not printed."""


def shown(text: str) -> str:
    """Text as one line of which a terminal only shows letters: everything else becomes a mark, ends of lines too."""
    return text if text.isprintable() else "".join(c if c.isprintable() else MARK for c in text)


class PocketshipError(Exception):
    """An error with its cause, place and mend; printed as one line, never as a traceback.

    A runtime's own words, and names out of a foreign file, may hold what commands a terminal: here it is shown as text.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        what, where, remedy = (shown(" ".join(text.split())) for text in (what, where, remedy))
        self.what, self.where, self.remedy = what, where, remedy
        self.log_tail = ""  # the end of a child's output, for --debug
        line = f"{where}: {what}" if where else what
        super().__init__(f"{line}; {remedy}" if remedy else line)


class BadInput(PocketshipError):
    """The source, an option, the weights or the output folder cannot be used as given."""

    exit_code = 2


class NotInstalled(BadInput):
    """A library or a runtime that this machine lacks."""


class ParityFailed(PocketshipError):
    """An artifact does not compute what the PyTorch model computes, or could not be run at all."""

    exit_code = 3


class LimitNotMet(PocketshipError):
    """A limit that the user set is not met."""

    exit_code = 4


class UnsupportedOperation(PocketshipError):
    """The model holds an operation that a target lacks."""

    exit_code = 5


class NotRun(PocketshipError):
    """Nothing is wrong, and nothing proven either: this machine lacks a runtime that was asked for."""

    exit_code = 6


EXTRAS = {
    **dict.fromkeys(("asyncssh", "jinja2", "matplotlib", "onnx", "onnx_ir", "packaging", "pydantic"), "bench"),
    **dict.fromkeys(("qrcode", "sqlalchemy", "yaml"), "bench"),
    **dict.fromkeys(("cryptography", "zstandard"), "delivery"),
    **dict.fromkeys(("torch", "onnxscript", "litert_torch", "ai_edge_quantizer"), "export"),
    **dict.fromkeys(("optimum", "transformers", "safetensors", "torch_pruning"), "export"),
    "onnxruntime": "onnxruntime",
    "ai_edge_litert": "litert",
    "coremltools": "coreml",
    **dict.fromkeys(("timm", "sklearn", "skimage", "aeon", "sentence_transformers"), "demo"),
}
"""Optional libraries, by the extra of pocketship that brings each."""
PACKAGES = {"yaml": "pyyaml", "sklearn": "scikit-learn", "skimage": "scikit-image", "google": "protobuf"}
"""Those that are installed by another name than they are imported by."""
OURS = ("runtimes", "benchmarks", "exporter")
FOLDER = "use a folder that you may write"
TOO_FEW = {
    errno.EMFILE: "allow more open files: ulimit -n 1024",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs",
    errno.EAGAIN: "allow more processes: ulimit -u",
}
"""Errors that come of the machine's limits, whatever was to be done."""
SYSTEM = {
    **TOO_FEW,
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space on the disk",
    errno.EFBIG: "allow larger files: ulimit -f unlimited",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), FOLDER),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "check the path"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "use a shorter path"),
}
"""What the system's errors are mended by."""


def refusal_of(error: BaseException) -> Optional[BadInput]:
    """What a user can do about an error of Python's own that no code nearer to it has worded; None for any other."""
    if isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
        if not name or name in OURS:
            return None
        package = PACKAGES.get(name, name.replace("_", "-"))
        wanted = f"'pocketship[{EXTRAS[name]}]'" if name in EXTRAS else package
        missing = isinstance(error, ModuleNotFoundError)
        what = f"{package} is not installed" if missing else f"{package} cannot be imported ({error})"
        return NotInstalled(what, remedy=f"pip install {wanted}")
    if isinstance(error, RuntimeError) and "torchvision::nms" in str(error):
        what = "torchvision is of another build than torch (one for CUDA, one without), and cannot be imported"
        return NotInstalled(what, remedy="install both from one index, as https://pytorch.org/get-started says")
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # of pathlib, for a user without an entry
        return BadInput("this user has no home folder", remedy="set HOME to a folder that you may write")
    if isinstance(error, UnicodeError):
        return BadInput(f"a name or a text is not in UTF-8 ({error!s:.200})", remedy="rename it, or write it in UTF-8")
    if isinstance(error, OSError) and error.errno in SYSTEM:
        where = "" if error.filename is None else str(error.filename)
        return BadInput(error.strerror or str(error), where=where, remedy=SYSTEM[error.errno])
    return None
