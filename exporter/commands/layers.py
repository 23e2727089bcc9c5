"""`pocketship sensitivity`: the figures of compression/analysis/sensitivity.py, of a child process, and their plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.ledger.plot import FAINT, HUES, INK, save
from exporter.low_bit.weight import LARGEST_CODE
from exporter.processes.children import Children, memory_limit_bytes, value_of
from runtimes import child
from runtimes.errors import BadInput
from runtimes.records import from_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIMEOUT_S = 24 * 3600.0
MARKERS = {8: "o", 4: "s", 2: "D"}
COLOURS = {8: HUES["linear"], 4: HUES["embedding"], 2: HUES["conv"]}


@dataclass(frozen=True)
class Layer:
    """A weight, and by the number of bits what rounding it alone does; see `sensitivity.LayerSensitivity`.

    `snr_db` is infinity where nothing changes, and `score` empty without a task that has labels.
    """

    name: str
    kind: str
    parameters: int
    snr_db: dict[str, float]
    score: dict[str, float]


def layers_of(
    source: str,
    *,
    data: str | None,
    bits: Sequence[int],
    weights: str | None = None,
    task: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> tuple[Layer, ...]:
    """The layers of a model, the most sensitive first; the model is loaded and run in a child process.

    Raises BadInput for a source, a task or weights that cannot be used.
    """
    job = {
        "source": source,
        "options": {"task": task, "weights": weights, "trust_remote_code": trust_remote_code},
        "data": data,
        "bits": list(bits),
        "seed": seed,
    }
    with Children() as children:
        outcome = child.call(
            "exporter.commands.layers:layers_in_child",
            job,
            timeout_s=TIMEOUT_S,
            memory_limit_bytes=memory_limit_bytes(),
            on_event=lambda event: on_progress(*event["progress"]),
            on_start=children.add,
        )
        value = value_of(outcome, f"{source}: measuring its layers")
    return tuple(from_json(Layer, layer) for layer in value["layers"])


def layers_in_child(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The child's side of `layers_of`."""
    from benchmarks.tasks import load_task
    from exporter.compression.analysis.sensitivity import sensitivities
    from exporter.compression.model import Model
    from exporter.load import load
    from exporter.sources.source import SourceOptions
    from exporter.stages.prepare import make_ready
    from exporter.tracing.flat_module import FlatModule
    from exporter.training.context import Context

    task = load_task(job["data"]) if job["data"] else None
    source = load(job["source"], SourceOptions(**job["options"]))
    make_ready(source.module)
    model = Model(FlatModule(source.module, source.args, source.kwargs))
    context = Context(model.flat, task, job["seed"], progress=lambda *moved: emit({"progress": list(moved)}))
    return {"layers": [asdict(layer) for layer in sensitivities(model, context, job["bits"])]}


def parse_bits(text: str) -> tuple[int, ...]:
    """`8,4,2` as numbers, in that order.

    Raises BadInput for a number of bits that no pass rounds to.
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if word not in map(str, LARGEST_CODE)]
    if wrong:
        allowed = ", ".join(map(str, LARGEST_CODE))
        raise BadInput(f"no weight has {wrong[0]!r} bits", where="--bits", remedy=f"give some of {allowed}")
    return tuple(dict.fromkeys(map(int, words)))


def check_plot(path: Path) -> None:
    """Raise BadInput, before any work, for a file that the plot cannot be written to."""
    if path.suffix != ".png":
        raise BadInput("the plot is a PNG", where=str(path), remedy="give a name that ends in .png")
    if not path.absolute().parent.is_dir():
        raise BadInput("no such folder", where=str(path.parent), remedy="make it first")


def draw_layers(layers: Sequence[Layer], bits: Sequence[int], title: str, path: Path) -> None:
    """Write the plot: a line for each layer, a mark for each number of bits; the same layers give the same bytes."""
    save([partial(_signal_to_noise, layers, bits)], len(layers), title, path)


def _signal_to_noise(layers: Sequence[Layer], bits: Sequence[int], axes: Axes) -> None:
    found = [value for layer in layers for value in layer.snr_db.values() if math.isfinite(value)]
    exact_db = max(found, default=0.0) + 10.0
    for width in bits:
        figures = [min(layer.snr_db[str(width)], exact_db) for layer in layers]
        label = f"{width} bits" + (" (ternary)" if width == 2 else "")
        axes.scatter(figures, range(len(layers)), s=45, c=COLOURS[width], marker=MARKERS[width], label=label, zorder=3)
    for place, layer in enumerate(layers):
        if any(math.isinf(layer.snr_db[str(width)]) for width in bits):
            axes.text(exact_db, place, "   exact", va="center", color=INK)
    axes.set_yticks(range(len(layers)), [short(layer.name) for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title("Signal to noise of the outputs, dB, with one layer rounded", loc="right")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.0), borderaxespad=2.4, ncols=len(bits), frameon=False)


def short(name: str, characters: int = 34) -> str:
    """The end of a long name, where the layer is."""
    return name if len(name) <= characters else "…" + name[1 - characters :]
