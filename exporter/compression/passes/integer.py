"""int8 and int4 weights, int8 activations: symmetric codes per output channel, calibrated or dynamic ranges, training.

How the codes are made stands in low_bit/codes.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.tasks.task import Task
from exporter.compression.analysis.calibration import Method, calibrate
from exporter.compression.analysis.emulation import emulated, signal_to_noise_db
from exporter.compression.model import Model, PassReport, differs, listed
from exporter.low_bit.codes import Layer, best_clip, granularity_of, largest_scale, low_bit_weight, nearest_codes
from exporter.low_bit.weight import LowBit, LowBitWeight
from exporter.modules.batch_norm import fold_batch_norms
from exporter.modules.weight_uses import CONVOLUTIONS, Use, left_out, uses_to_round, watched_weights
from exporter.sources.inputs import reference
from exporter.tracing.flat_module import FlatModule
from exporter.training import distillation
from exporter.training.batches import batches
from exporter.training.context import Context
from exporter.training.loop import TrainingSettings, summary, train
from exporter.training.losses import label_loss
from exporter.training.settings import CHECKED, Count, CountOrZero, Patterns, ProperShare
from runtimes.errors import BadInput

NAME = "quantize"
LEAST_SNR_DB = 25.0
"""What static activations must leave, or "auto" makes linear layers dynamic. All together leave 10 dB in minilm, 38 in
digits, 41 in italypower. Alone, minilm's feed-forward outputs leave 15 to 24 dB, for a few values of 50 to 200 among
small ones, and its other layers 28 or more, which add up to 20. A dynamic range for each row, as LiteRT takes it, keeps
0.96 of minilm's ten nearest neighbours, as the same in static ranges but for those outputs 0.92."""
TRIAL_SAMPLES = 8


@checked_dataclass(frozen=True, config=CHECKED)
class Settings:
    """Bits (8 or 4) of linear layers, embeddings and convolutions, grouped ones always 8; and of their activations.

    `activations` are "float", "dynamic" (convolutions stay "float", since it would make them slower) or "static"; with
    "auto", layers of 8 bits are "static" where there is data, but where this hurts linear layers are all "dynamic";
    without data, and with 4 bits, it is "dynamic".
    Embeddings have no activations to quantize.
    `calibration`, `percentile` and `samples` choose the static ranges; `clip` chooses the scales of 4-bit channels with
    the least squared error. With `training_epochs` the quantized model is trained: on the task's labels when `loss` is
    "labels", to agree with the full-precision model when it is "teacher". `layers_out` are patterns (as of a shell) of
    the layers or weights that stay float.
    """

    bits: Literal[8, 4] = 8
    embedding_bits: Literal[8, 4] = 8
    conv_bits: Literal[8, 4] = 8
    activations: Literal["auto", "float", "dynamic", "static"] = "auto"
    calibration: Method = "min-max"
    percentile: Annotated[float, Field(ge=50, le=100)] = 99.99
    samples: Count = 256
    clip: bool = True
    training_epochs: CountOrZero = 0
    learning_rate: ProperShare = 1e-4
    batch_size: Count = 32
    loss: Literal["teacher", "labels"] = "teacher"
    layers_out: Patterns = ()

    @property
    def training(self) -> TrainingSettings | None:
        """What the training loop needs of them; None without training."""
        if not self.training_epochs:
            return None
        return TrainingSettings(self.training_epochs, self.learning_rate, self.batch_size)


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Quantize every weight of a linear layer, convolution or embedding that is not low-bit yet.

    Batch normalization is folded into the layer before it first. Static ranges are those of the model whose weights are
    quantized already; training keeps them.

    Raises BadInput where nothing is left to quantize, a pattern fits no layer, or data is needed or does not serve.
    """
    flat = fold_batch_norms(model.flat, keep=model.low_bit)
    uses = uses_to_round(flat, model.low_bit)
    layers = choose_layers(uses, settings, context)
    latent = {n: p.detach().clone() for n, p in flat.module.named_parameters() if n in layers}
    clips = {n: best_clip(latent[n], layer.bits, settings.clip, layer.granularity) for n, layer in layers.items()}
    low_bit = {n: low_bit_weight(latent[n], layer, clips[n]) for n, layer in layers.items()}
    _set(flat, _values(low_bit))
    low_bit = _with_ranges(flat, low_bit, settings, context)
    if settings.activations == "auto" and context.task:
        low_bit = _dynamic_where_static_hurts(flat, low_bit, context.task, context)
    notes = _notes(model, flat, uses, low_bit, settings, context)
    if settings.training:
        _set(flat, latent)
        notes = (*notes, _train(flat, {**model.low_bit, **low_bit}, clips, settings.training, settings.loss, context))
        trained = dict(flat.module.named_parameters())
        fresh = {n: low_bit_weight(trained[n], layer, clips[n]) for n, layer in layers.items()}
        low_bit = {n: replace(w, codes=fresh[n].codes, scale=fresh[n].scale) for n, w in low_bit.items()}
        _set(flat, _values(low_bit))
    quantized = Model(flat, {**model.low_bit, **low_bit})
    return quantized, PassReport(NAME, asdict(settings), differs(model, quantized), notes)


def choose_layers(uses: Mapping[str, tuple[Use, ...]], settings: Settings, context: Context) -> dict[str, Layer]:
    """The layers to quantize among the weights used, in their order. A weight has the kind of its first use.

    Raises BadInput as `apply` does.
    """
    kept = left_out(tuple(uses), settings.layers_out, NAME)
    layers = {name: _layer(used, settings, context) for name, used in uses.items() if name not in kept}
    if not layers:
        raise BadInput(
            "there is no weight to quantize",
            where=NAME,
            remedy="its linear layers, convolutions and embeddings must be called with parameters, and not be left out",
        )
    return layers


def _layer(used: tuple[Use, ...], settings: Settings, context: Context) -> Layer:
    kind = used[0].kind
    asked = settings.conv_bits if kind in CONVOLUTIONS else {"linear": settings.bits}.get(kind, settings.embedding_bits)
    grouped = any(use.groups > 1 for use in used)
    if {use.kind for use in used} & {"embedding"}:
        return Layer(kind, asked, "float")
    activations = _activations(kind, asked, settings, context)
    return Layer(kind, 8 if grouped else asked, activations, granularity_of(kind, grouped))


def _activations(kind: str, bits: int, settings: Settings, context: Context) -> str:
    """How a layer takes its activations: convolutions in no dynamic ranges, which make them slower than float."""
    chosen = settings.activations
    if chosen == "auto":
        chosen = "static" if context.task and bits == 8 else "dynamic"
    if chosen == "dynamic" and kind in CONVOLUTIONS:
        return "float"
    if chosen == "static" and context.task is None:
        raise BadInput("static activations need calibration data", where=NAME, remedy="name a task with --data")
    return chosen


# --- the module ----------------------------------------------------------------------------------------------------


def _values(low_bit: LowBit) -> dict[str, Tensor]:
    return {name: torch.from_numpy(weight.value) for name, weight in low_bit.items()}


def _set(flat: FlatModule, values: Mapping[str, Tensor]) -> None:
    parameters = dict(flat.module.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _with_ranges(
    flat: FlatModule, low_bit: dict[str, LowBitWeight], settings: Settings, context: Context
) -> dict[str, LowBitWeight]:
    static = [name for name, weight in low_bit.items() if weight.activations == "static"]
    if not static or context.task is None:
        return low_bit
    samples = context.task.calibration.inputs
    ranges = calibrate(flat, samples, settings.calibration, settings.percentile, settings.samples, static)
    return low_bit | {n: replace(low_bit[n], inputs=i, outputs=o) for n, (i, o) in ranges.items()}


def _dynamic_where_static_hurts(
    flat: FlatModule, low_bit: dict[str, LowBitWeight], task: Task, context: Context
) -> dict[str, LowBitWeight]:
    """All linear layers made dynamic where static activations together leave less than LEAST_SNR_DB of the outputs.

    Transformers have layers with few values far beyond all others, for which no range of a whole tensor serves
    (Bondarenko et al., "Understanding and Overcoming the Challenges of Efficient Transformer Quantization", 2021); the
    other layers lose little each, but add up. Those that leave LEAST_SNR_DB alone keep their ranges, for a format whose
    dynamic range is that of a whole tensor, too (see `representation`).
    """
    inputs, _ = next(batches(flat, task.calibration, TRIAL_SAMPLES))
    exact = reference(flat, inputs)

    def snr_db(tried: LowBit) -> float:
        with emulated(flat, tried):
            return signal_to_noise_db(exact, reference(flat, inputs))

    static = [n for n, w in low_bit.items() if w.kind == "linear" and w.activations == "static"]
    if not static or snr_db(low_bit) >= LEAST_SNR_DB:
        return low_bit
    chosen = dict(low_bit)
    for done, name in enumerate(static, 1):
        chosen[name] = replace(low_bit[name], activations="dynamic")
        if snr_db({name: low_bit[name]}) < LEAST_SNR_DB:
            chosen[name] = replace(chosen[name], inputs=None, outputs=None)
        context.progress("trying static activations", done, len(static))
    return chosen


def _train(
    flat: FlatModule,
    low_bit: LowBit,
    clips: Mapping[str, Tensor],
    settings: TrainingSettings,
    loss: str,
    context: Context,
) -> str:
    """Train the full-precision weights under their own quantization; a note of what it did.

    The forward pass computes with s * q, s taken anew from the weights, and with quantized activations; the gradient
    passes the rounding as if it were not there (see `emulation.quantized`). Weights of earlier passes stay.
    """

    def rounded(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        if use.name not in clips:
            return value, weight
        bits, granularity = low_bit[use.name].bits, low_bit[use.name].granularity
        scale = largest_scale(weight, bits, clips[use.name], granularity)
        codes = nearest_codes(weight.detach(), scale, bits, granularity)
        nearest = codes * granularity.along(scale, tuple(weight.shape))
        return value, weight + (nearest - weight).detach()

    fixed = [p for n, p in flat.module.named_parameters() if n in low_bit and n not in clips and p.requires_grad]
    labels = loss == "labels"
    minimized = label_loss(context) if labels else distillation.distillation_loss(distillation.Settings(), context)
    for parameter in fixed:
        parameter.requires_grad_(False)
    try:
        with watched_weights(flat.module, rounded), emulated(flat, low_bit):
            report = train(flat, context, minimized, settings, label="quantization-aware training")
    finally:
        for parameter in fixed:
            parameter.requires_grad_(True)
    return f"quantization-aware training: {summary(report)}"


def _notes(
    before: Model,
    flat: FlatModule,
    uses: Mapping[str, tuple[Use, ...]],
    layers: LowBit,
    settings: Settings,
    context: Context,
) -> tuple[str, ...]:
    """What a reader must know: the layers by kind, and everything that is not as the settings alone say."""
    kinds = Counter(
        f"{layer.kind} int{layer.bits}"
        + (f" with {layer.activations} activations" if layer.activations != "float" else "")
        for layer in layers.values()
    )
    by_kind = ", ".join(f"{count} {what}" for what, count in kinds.items())
    notes = [by_kind + _of_float_convolutions(layers, settings, context)]
    folded = _norms(before.flat) - _norms(flat)
    if folded:
        notes.append(f"folded {folded} batch normalizations")
    if context.task and any(layer.inputs for layer in layers.values()):
        samples = min(settings.samples, len(context.task.calibration))
        notes.append(f"ranges by {settings.calibration} of {samples} calibration samples of {context.task.name}")
    ranged = sum(layer.activations == "dynamic" and layer.inputs is not None for layer in layers.values())
    if ranged:
        notes.append(f"{ranged} dynamic layers keep theirs, for formats whose dynamic range is that of a whole tensor")
    grouped = [n for n in layers if any(use.groups > 1 for use in uses[n]) and settings.conv_bits < layers[n].bits]
    tied = [n for n in layers if {use.kind for use in uses[n]} > {"embedding"}]
    seen = {*uses, *before.low_bit}
    other = [n for n, p in flat.module.named_parameters() if p.ndim > 1 and n not in seen]
    for what, names in (
        ("grouped convolutions stay int8", grouped),
        ("of an embedding and a linear layer, whose activations stay float", tied),
        ("left out", [n for n in uses if n not in layers]),
        ("used in no linear layer, convolution or embedding, stay float", other),
    ):
        if names:
            notes.append(f"{what}: {listed(names)}")
    return tuple(notes)


def _of_float_convolutions(layers: LowBit, settings: Settings, context: Context) -> str:
    """What the stage's line adds where convolutions compute in float though int8 was asked for."""
    float_ones = any(layer.kind in CONVOLUTIONS and layer.activations == "float" for layer in layers.values())
    if float_ones and settings.activations == "dynamic":
        return "; convolutions compute in float: dynamic ranges would make them slower"
    if float_ones and settings.activations == "auto" and settings.conv_bits == 8 and not context.task:
        return "; convolutions compute in float: calibrated ranges need --data"
    return ""


def _norms(flat: FlatModule) -> int:
    return sum(isinstance(module, _BatchNorm) for module in flat.module.modules())
