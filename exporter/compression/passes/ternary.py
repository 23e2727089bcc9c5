"""Ternary weights: w = s * {-1, 0, +1}, one s a channel, by rounding, error compensation, or training.

Rounding alone costs most models much of their accuracy; error compensation layer by layer (see `error_compensation`)
amends most of that, and training some of the rest: the forward pass computes with the ternary weights, the gradient
passes the rounding as if it were not there (the straight-through estimator of Bengio et al., "Estimating or Propagating
Gradients Through Stochastic Neurons for Conditional Computation", 2013), and the full-precision model is the teacher.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from exporter.compression.analysis.error_compensation import compensated_codes, input_hessian
from exporter.compression.analysis.sensitivity import sensitivities
from exporter.compression.model import Model, PassReport, differs
from exporter.low_bit.codes import Layer, best_clip, granularity_of, low_bit_weight, ternarize
from exporter.low_bit.weight import LARGEST_CODE, PER_CHANNEL, Granularity, LowBitWeight
from exporter.modules.batch_norm import fold_batch_norms
from exporter.modules.weight_uses import Use, uses_to_round, watched_weights
from exporter.tracing.flat_module import FlatModule
from exporter.training import distillation
from exporter.training.batches import batches, padding_trimmer
from exporter.training.context import Context
from exporter.training.distillation import Comparison
from exporter.training.loop import Step, summary, train
from exporter.training.settings import (
    CHECKED,
    Count,
    NotNegative,
    Patterns,
    Positive,
    ProperShare,
    Share,
    ShareBelowOne,
)
from runtimes.errors import BadInput

NAME = "ternary"
TERNARY, FLOAT = 2, 32
"""Bits."""
LayerBits = Annotated[dict[str, Literal[2, 4, 8, 32]], Field(description="2, 4, 8 or 32 by patterns")]


@dataclass(frozen=True, config=CHECKED)
class Settings:
    """How the weights become ternary, and which do not.

    `method` is "round", "compensate" (rounding with error compensation on `samples` calibration inputs, with `damping`)
    or "train" (starting from what "compensate" gives). The first and the last weight that the model uses have
    `first_last_bits`, unless one holds more than `first_last_share` of the weights; embeddings have `embedding_bits`,
    or 8 where they hold less than `small_embedding_share`; grouped convolutions have 8. Of the others, which are
    ternary, the `sensitive_share` that costs most has `sensitive_bits` (see `sensitivity`). Above all, `layer_bits`
    gives 2, 4, 8 or 32 (float) by patterns (as of a shell) of the names of layers or weights. `activations` is of the
    linear layers: "dynamic" or "float". The others are those of `distill`.
    """

    method: Literal["train", "compensate", "round"] = "train"
    first_last_bits: Literal[8, 4, 2] = 8
    first_last_share: Share = 1.0
    embedding_bits: Literal[8, 4, 2] = 8
    small_embedding_share: Share = 0.005
    sensitive_share: ShareBelowOne = 0.0
    sensitive_bits: Literal[8, 4] = 8
    layer_bits: LayerBits = field(default_factory=dict)
    activations: Literal["dynamic", "float"] = "dynamic"
    samples: Count = 128
    damping: Positive = 0.1
    loss: Comparison = "auto"
    temperature: Positive = 1.0
    hidden_weight: NotNegative = 0.0
    hidden_layers: Patterns = ()
    epochs: Count = 10
    learning_rate: ProperShare = 1e-3
    batch_size: Count = 32

    @property
    def distill(self) -> distillation.Settings:
        """What `distill` needs of them."""
        return distillation.Settings(
            loss=self.loss,
            temperature=self.temperature,
            hidden_weight=self.hidden_weight,
            hidden_layers=self.hidden_layers,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
        )


def apply(model: Model, settings: Settings, context: Context) -> tuple[Model, PassReport]:
    """Make weights of linear layers and convolutions ternary, and round the others that it chooses to int8 or int4.

    Batch normalization is folded into the layer before it first. A weight that is exactly zero stays zero. In training,
    the scale of a ternary channel is taken anew at each step (see `ternarize`), and what has more bits stays as it was
    rounded. At the end every parameter is `scale * codes` to the last bit.

    Raises BadInput where no weight would be ternary, a pattern fits no layer, or data is missing or does not serve.
    """
    if settings.method != "round" and context.task is None:
        raise BadInput(
            f"method {settings.method} needs data", where=NAME, remedy="name a task with --data, or give round"
        )
    flat = fold_batch_norms(model.flat, keep=model.low_bit)
    layers, chosen = choose_layers(Model(flat, model.low_bit), settings, context)
    notes = [*chosen]
    zeros = distillation.zeros_kept(flat.module)
    if settings.method != "round":
        notes += _compensate(flat, layers, settings, context)
    if settings.method == "train":
        notes += _train(flat, model, layers, zeros, settings, context)
    else:
        notes.append(
            "without training, ternary weights cost most models much of their accuracy: method train regains it"
        )
    ternary = Model(flat, {**model.low_bit, **_round(flat, layers)})
    return ternary, PassReport(NAME, asdict(settings), differs(model, ternary), tuple(notes))


def choose_layers(model: Model, settings: Settings, context: Context) -> tuple[dict[str, Layer], tuple[str, ...]]:
    """What becomes of each weight that is used and not low-bit yet, in order of first use, and notes for the reader.

    Raises BadInput as `apply` does.
    """
    uses = uses_to_round(model.flat, model.low_bit)
    names, shares = list(uses), _shares(model, uses)
    ends = {name for name in (*names[:1], *names[-1:]) if shares[name] <= settings.first_last_share}
    bits = {name: _bits(used, name in ends, shares[name], settings) for name, used in uses.items()}
    sensitive = _sensitive(model, [n for n, b in bits.items() if b == TERNARY], settings, context)
    bits |= dict.fromkeys(sensitive, settings.sensitive_bits)
    bits |= _bits_by_pattern(names, settings)
    if TERNARY not in bits.values():
        raise BadInput(
            f"none of {len(uses)} weights would be ternary",
            where=NAME,
            remedy="set first_last_bits to 2, or give layers 2 bits in layer_bits",
        )
    layers = {n: _layer(uses[n], b, settings) for n, b in bits.items() if b != FLOAT}
    counts = Counter(f"{layer.kind} {_word(layer.bits)}" for layer in layers.values())
    notes = [", ".join(f"{count} {what}" for what, count in counts.items())]
    notes += [f"left float: {', '.join(n for n, b in bits.items() if b == FLOAT)}"] if FLOAT in bits.values() else []
    notes += [f"most sensitive, {_word(settings.sensitive_bits)}: {', '.join(sensitive)}"] if sensitive else []
    return layers, tuple(notes)


def _layer(used: tuple[Use, ...], bits: int, settings: Settings) -> Layer:
    granularity = granularity_of(used[0].kind, grouped=any(use.groups > 1 for use in used))
    return Layer(used[0].kind, bits, _activations(used, settings), granularity)


def _word(bits: int) -> str:
    return "ternary" if bits == TERNARY else f"int{bits}"


def _bits(used: tuple[Use, ...], first_or_last: bool, share: float, settings: Settings) -> int:
    if any(use.kind == "embedding" for use in used):
        return 8 if share < settings.small_embedding_share else settings.embedding_bits
    if any(use.groups > 1 for use in used):
        return 8
    return settings.first_last_bits if first_or_last else TERNARY


def _shares(model: Model, uses: Mapping[str, tuple[Use, ...]]) -> dict[str, float]:
    """The share of the weights that each one holds."""
    sizes = {n: p.numel() for n, p in model.flat.module.named_parameters() if n in uses}
    return {name: size / sum(sizes.values()) for name, size in sizes.items()}


def _bits_by_pattern(names: list[str], settings: Settings) -> dict[str, int]:
    """The bits that `layer_bits` gives, the last pattern that fits a name being the one that counts."""
    found: dict[str, int] = {}
    for pattern, bits in settings.layer_bits.items():
        fitting = [n for n in names if any(fnmatch.fnmatchcase(x, pattern) for x in (n, n.rpartition(".")[0]))]
        if not fitting:
            raise BadInput(
                f"layer_bits {pattern!r} fits no layer", where=NAME, remedy=f"the layers are {', '.join(names)[:400]}"
            )
        found |= dict.fromkeys(fitting, bits)
    return found


def _activations(used: tuple[Use, ...], settings: Settings) -> str:
    """Float where the weight is an embedding too: a format has one carrier for both."""
    return settings.activations if {use.kind for use in used} == {"linear"} else "float"


def _sensitive(model: Model, names: list[str], settings: Settings, context: Context) -> list[str]:
    """The share of `names` that costs most, each alone ternary, on the calibration split."""
    count = round(settings.sensitive_share * len(names))
    if not count:
        return []
    return [layer.name for layer in sensitivities(model, context, (TERNARY,)) if layer.name in names][:count]


def _low_bit(weight: Tensor, layer: Layer) -> LowBitWeight:
    if layer.bits != TERNARY:
        return low_bit_weight(weight, layer, best_clip(weight.detach(), layer.bits, granularity=layer.granularity))
    codes, scale = ternarize(weight, layer.granularity)
    return LowBitWeight(codes, scale, TERNARY, layer.kind, layer.activations, granularity=layer.granularity)


@torch.no_grad()
def _round(flat: FlatModule, layers: Mapping[str, Layer]) -> dict[str, LowBitWeight]:
    """Put low-bit values into the module; a ternary value stays as it is."""
    parameters = dict(flat.module.named_parameters())
    low_bit = {name: _low_bit(parameters[name], layer) for name, layer in layers.items()}
    for name, weight in low_bit.items():
        parameters[name].copy_(torch.from_numpy(weight.value))
    return low_bit


@torch.no_grad()
def _compensate(flat: FlatModule, layers: Mapping[str, Layer], settings: Settings, context: Context) -> list[str]:
    """Round layer by layer in order of use, each ternary one for the inputs that the rounded ones before give it."""
    assert context.task is not None
    split = context.task.calibration.rows(slice(settings.samples))
    if not len(split):
        raise BadInput("the calibration split is empty", where=context.task.name, remedy="give at least one sample")
    trim = padding_trimmer(flat, split)
    samples = [trim(inputs) for inputs, _ in batches(flat, split, 1)]  # by itself, a sequence has no padding at all
    parameters, plain = dict(flat.module.named_parameters()), []
    for done, (name, layer) in enumerate(layers.items()):
        context.progress("error compensation", done, len(layers))
        hessian = input_hessian(flat, name, samples) if layer.bits == TERNARY else None
        if hessian is None:
            _round(flat, {name: layer})
            plain += [name] * (layer.bits == TERNARY)
            continue
        if not bool(torch.isfinite(hessian).all()):
            raise BadInput(f"{name} meets NaN or infinity on calibration data", where=NAME, remedy="clean the data")
        parameters[name].copy_(compensated(parameters[name], hessian, settings.damping))
    context.progress("error compensation", len(layers), len(layers))
    return [f"no error compensation, just rounding: {', '.join(plain)}"] if plain else []


def compensated(weight: Tensor, hessian: Tensor, damping: float) -> Tensor:
    """The ternary value of a weight `[channels, ...]`: the scales of `ternarize`, and `compensated_codes`.

    The scales are not fitted to the outputs: that shrinks them, and through the layers of a transformer it adds up.
    """
    rows = weight.detach().flatten(1)
    scale = torch.from_numpy(ternarize(rows)[1])
    codes = compensated_codes(rows, hessian, scale, LARGEST_CODE[TERNARY], damping)
    return (codes.float() * scale[:, None]).view(weight.shape)


class _StraightThrough(torch.autograd.Function):
    """The value forwards, the gradient as if it were the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(weight: Tensor, granularity: Granularity = PER_CHANNEL) -> Tensor:
    """The ternary value of a weight, exactly; its gradient goes to the weight unchanged."""
    codes, scale = ternarize(weight, granularity)
    value = torch.from_numpy(LowBitWeight(codes, scale, TERNARY, "linear", granularity=granularity).value)
    return _StraightThrough.apply(weight, value)


def _train(
    flat: FlatModule, model: Model, layers: Mapping[str, Layer], zeros: Step, settings: Settings, context: Context
) -> list[str]:
    """Train with the ternary weights as they would be, while what has more bits stays as it was rounded."""

    def before(use: Use, value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        layer = layers.get(use.name)
        if layer is None or layer.bits != TERNARY:
            return value, weight
        return value, straight_through(weight, layer.granularity)

    _round(flat, layers)
    settled = {*model.low_bit, *(name for name, layer in layers.items() if layer.bits != TERNARY)}
    fixed = [p for n, p in flat.module.named_parameters() if n in settled and p.requires_grad]
    for parameter in fixed:
        parameter.requires_grad_(False)
    chosen = settings.distill
    try:
        with watched_weights(flat.module, before), distillation.hidden_states_too(flat, chosen, context) as loss:
            report = train(flat, context, loss, chosen.training, label=NAME, after_step=zeros)
    finally:
        for parameter in fixed:
            parameter.requires_grad_(True)
    return [f"trained with the loss {distillation.chosen_loss(chosen, context)}: {summary(report)}"]
