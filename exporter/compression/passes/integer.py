"""int8 and int4 weights, int8 activations: symmetric codes per output channel, calibrated or dynamic ranges, training.

How the codes are made stands in low_bit/codes.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.tasks import Task
from exporter.compression.analysis.calibration import METHODS, calibrate
from exporter.compression.analysis.emulation import emulated, signal_to_noise_db
from exporter.compression.model import Context, Model, PassReport
from exporter.compression.passes import distill
from exporter.low_bit.codes import Layer, best_clip, granularity_of, largest_scale, low_bit_weight, nearest_codes
from exporter.low_bit.weight import LowBit, LowBitWeight
from exporter.modules.batch_norm import fold_batch_norms
from exporter.modules.weight_uses import CONVOLUTIONS, Use, left_out, watched_weights, weight_uses
from exporter.sources.inputs import reference
from exporter.tracing.program import FlatModule
from exporter.training.loop import TrainingSettings, batches, label_loss, summary, train
from runtimes.errors import BadInput

NAME = "quantize"
NAMED_IN_A_NOTE = 5
LEAST_SNR_DB = 25.0
"""What a linear layer's static activations alone must leave, or "auto" makes it dynamic. Of minilm's layers 0, 3 and 5
(32 calibration samples, against full precision) the feed-forward outputs leave 14 to 23 dB, for a few values of 50 to
200 among small ones, and all others 26 or more."""
TRIAL_SAMPLES = 8


@dataclass(frozen=True)
class Settings:
    """Bits (8 or 4) of linear layers, embeddings and convolutions, grouped ones always 8; and of their activations.

    `activations` "float", "dynamic" or "static" is for linear layers and convolutions alike; with "auto", layers of 8
    bits are "static" where there is data (but for linear layers that this hurts, which become "dynamic") and "dynamic"
    where there is none, which convolutions refuse; with 4 bits linear layers are "dynamic" and convolutions "float".
    Embeddings have no activations to quantize.
    `calibration`, `percentile` and `samples` choose the static ranges; `clip` chooses the scales of 4-bit channels with
    the least squared error. With `training_epochs` the quantized model is trained: on the task's labels when `loss` is
    "labels", to agree with the full-precision model when it is "teacher". `layers_out` are patterns (as of a shell) of
    the layers or weights that stay float.
    """

    bits: int = 8
    embedding_bits: int = 8
    conv_bits: int = 8
    activations: str = "auto"
    calibration: str = "min-max"
    percentile: float = 99.99
    samples: int = 256
    clip: bool = True
    training_epochs: int = 0
    learning_rate: float = 1e-4
    batch_size: int = 32
    loss: str = "teacher"
    layers_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choices = {
            "bits": (8, 4),
            "embedding_bits": (8, 4),
            "conv_bits": (8, 4),
            "activations": ("auto", "float", "dynamic", "static"),
            "calibration": METHODS,
            "loss": ("teacher", "labels"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise BadInput(f"{name} is {value!r}", where=NAME, remedy=f"give one of {', '.join(map(str, allowed))}")
        ranges = {
            "percentile": (50.0 <= self.percentile <= 100.0, "from 50 to 100"),
            "samples": (self.samples >= 1, "of 1 or more"),
            "training_epochs": (self.training_epochs >= 0, "of 0 or more"),
        }
        for name, (fits, remedy) in ranges.items():
            if not fits:
                raise BadInput(f"{name} is {getattr(self, name)}", where=NAME, remedy=f"give a number {remedy}")
        _ = self.training

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

    Raises BadInput where nothing is left to quantize, a pattern fits no layer, data is needed or does not serve, or
    convolutions would compute with dynamic ranges.
    """
    flat = fold_batch_norms(model.flat, keep=model.low_bit)
    uses = {name: used for name, used in weight_uses(flat).items() if name not in model.low_bit}
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
    return Model(flat, {**model.low_bit, **low_bit}), PassReport(NAME, asdict(settings), notes)


def choose_layers(uses: Mapping[str, tuple[Use, ...]], settings: Settings, context: Context) -> dict[str, Layer]:
    """The layers to quantize among the weights used, in their order. A weight has the kind of its first use.

    Raises BadInput as `apply` does.
    """
    kept = left_out(tuple(uses), settings.layers_out, NAME)
    layers = {name: _layer(name, used, settings, context) for name, used in uses.items() if name not in kept}
    if not layers:
        raise BadInput(
            "there is no weight to quantize",
            where=NAME,
            remedy="its linear layers, convolutions and embeddings must be called with parameters, and not be left out",
        )
    return layers


def _layer(name: str, used: tuple[Use, ...], settings: Settings, context: Context) -> Layer:
    kind = used[0].kind
    asked = settings.conv_bits if kind in CONVOLUTIONS else {"linear": settings.bits}.get(kind, settings.embedding_bits)
    grouped = any(use.groups > 1 for use in used)
    if {use.kind for use in used} & {"embedding"}:
        return Layer(kind, asked, "float")
    activations = _activations(name, kind, asked, settings, context)
    return Layer(kind, 8 if grouped else asked, activations, granularity_of(kind, grouped))


def _activations(name: str, kind: str, bits: int, settings: Settings, context: Context) -> str:
    if settings.activations == "auto" and bits == 4:
        return "dynamic" if kind == "linear" else "float"
    chosen = settings.activations
    if chosen == "auto":
        chosen = "static" if context.task else "dynamic"
    if chosen == "dynamic" and kind in CONVOLUTIONS:
        raise BadInput(
            "dynamic int8 is 10 times slower than float on convolutions",
            where=name,
            remedy="give --data for calibrated ranges, or activations: float, or leave the convolutions out",
        )
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
    """Linear layers whose static activations alone leave less than LEAST_SNR_DB of the outputs, made dynamic.

    Transformers have layers with few values far beyond all others, for which no range of a whole tensor serves
    (Bondarenko et al., "Understanding and Overcoming the Challenges of Efficient Transformer Quantization", 2021). They
    are looked for only where all layers together leave less than that.
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
        if snr_db({name: low_bit[name]}) < LEAST_SNR_DB:
            chosen[name] = replace(low_bit[name], activations="dynamic", inputs=None, outputs=None)
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
    minimized = label_loss(context) if labels else distill.distillation_loss(distill.Settings(), context)
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
    notes = [", ".join(f"{count} {what}" for what, count in kinds.items())]
    folded = _norms(before.flat) - _norms(flat)
    if folded:
        notes.append(f"folded {folded} batch normalizations")
    if context.task and any(layer.activations == "static" for layer in layers.values()):
        samples = min(settings.samples, len(context.task.calibration))
        notes.append(f"ranges by {settings.calibration} of {samples} calibration samples of {context.task.name}")
    grouped = [n for n in layers if any(use.groups > 1 for use in uses[n]) and settings.conv_bits < layers[n].bits]
    tied = [n for n in layers if {use.kind for use in uses[n]} > {"embedding"}]
    seen = {*uses, *before.low_bit}
    unseen = [n for n, p in flat.module.named_parameters() if p.ndim > 1 and n not in seen]
    for what, names in (
        ("grouped convolutions stay int8", grouped),
        ("of an embedding and a linear layer, whose activations stay float", tied),
        ("left out", [n for n in uses if n not in layers]),
        ("used in no linear layer, convolution or embedding, stay float", unseen),
    ):
        if names:
            rest = f" and {len(names) - NAMED_IN_A_NOTE} more" if len(names) > NAMED_IN_A_NOTE else ""
            notes.append(f"{what}: {', '.join(names[:NAMED_IN_A_NOTE])}{rest}")
    return tuple(notes)


def _norms(flat: FlatModule) -> int:
    return sum(isinstance(module, _BatchNorm) for module in flat.module.modules())
