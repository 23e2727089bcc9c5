"""What is compared in distillation: outputs and hidden states of a student and its teacher; it needs no labels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from exporter.tracing.flat_module import FlatModule, Tensors
from exporter.training.batches import batches, held_out_parts
from exporter.training.context import Context
from exporter.training.loop import TrainingSettings
from exporter.training.losses import Loss, as_logits, class_output
from exporter.training.settings import CHECKED, Count, NotNegative, Patterns, Positive, ProperShare, ShareBelowOne
from runtimes.errors import BadInput

Comparison = Literal["auto", "soft", "jensen-shannon", "embedding", "hidden"]


@dataclass(frozen=True, config=CHECKED)
class Settings:
    """`loss` says how outputs are compared: "soft" and "jensen-shannon" as class probabilities, "embedding" as vectors.

    "auto" is "soft" where an output has one column a class of the task, else "embedding". "hidden" compares hidden
    states alone; `hidden_weight` adds them to any other loss. `hidden_layers` are patterns of module names like
    `encoder.layer.*`; without any, the elements of the outermost nn.ModuleList and nn.Sequential count.
    """

    loss: Comparison = "auto"
    temperature: Positive = 1.0
    hidden_weight: NotNegative = 0.0
    hidden_layers: Patterns = ()
    epochs: Count = 10
    learning_rate: ProperShare = 3e-4
    batch_size: Count = 32
    weight_decay: ShareBelowOne = 0.01
    warmup: ShareBelowOne = 0.1

    @property
    def training(self) -> TrainingSettings:
        """What the training loop needs of them."""
        return TrainingSettings(self.epochs, self.learning_rate, self.batch_size, self.weight_decay, self.warmup)


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """-sum_c p_T(c) log p_S(c), the mean over the rows of logits `[rows, classes]`; its gradient is (p_S - p_T) / rows.

    The loss of "Well-Read Students Learn Better: On the Importance of Pre-training Compact Models" (Turc et al., 2019),
    after "Distilling the Knowledge in a Neural Network" (Hinton et al., 2015).
    """
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """(KL(p_S || m) + KL(p_T || m)) / 2 with m = (p_S + p_T) / 2, the mean over the rows of logits `[rows, classes]`.

    Symmetric, zero at equality and never above ln 2; the loss of "Beyond Self-Supervision: A Simple Yet Effective
    Network Distillation Alternative to Improve Backbones" (SSLD; Cui et al., 2021), which needs no labels.
    """
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    log_m = torch.logaddexp(log_s, log_t) - math.log(2)
    return ((log_s.exp() * (log_s - log_m) + log_t.exp() * (log_t - log_m)).sum(-1) / 2).mean()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """sum (s - t)^2 / sum t^2 over tensors of one shape; for unit vectors it is 2 (1 - cosine), the mean over them."""
    return (student - teacher).square().sum() / teacher.square().sum().clamp_min(torch.finfo(teacher.dtype).tiny)


def chosen_loss(settings: Settings, context: Context) -> Comparison:
    """`settings.loss`, with "auto" decided by what the teacher gives for a sample of the train split."""
    if settings.loss != "auto":
        return settings.loss
    fit, _ = held_out_parts(context)
    inputs, _ = next(batches(context.teacher, fit, 1))
    return "embedding" if class_output(_wanted(context, inputs), _classes(context)) is None else "soft"


def distillation_loss(settings: Settings, context: Context) -> Loss:
    """The loss between the outputs of a student and those of `context.teacher`, which is run for each batch.

    "soft" and "jensen-shannon" compare the class logits divided by the temperature T, times T^2 (Hinton et al., 2015);
    every other floating-point output of the same shape adds its `relative_error`, and with "embedding" all of them do.

    Raises BadInput for "hidden", which looks inside the student (`hidden_states_too`); the loss raises it where the
    teacher has nothing to compare.
    """
    kind, classes = chosen_loss(settings, context), _classes(context)
    if kind == "hidden":
        raise BadInput("hidden states are not compared here", where="loss", remedy="give soft, jensen-shannon or auto")
    compare = {"soft": soft_cross_entropy, "jensen-shannon": jensen_shannon}.get(kind)

    def loss(outputs: Tensors, inputs: Tensors, labels: Tensor | None) -> Tensor:
        wanted = _wanted(context, inputs)
        scores = class_output(wanted, classes) if compare else None
        terms = []
        for name, output in outputs.items():
            target = wanted.get(name)
            if target is None or target.shape != output.shape or not target.is_floating_point():
                continue
            if compare and name == scores:
                t = settings.temperature
                terms.append(compare(as_logits(output) / t, as_logits(target) / t) * t**2)
            else:
                terms.append(relative_error(output, target))
        if not terms or (compare and scores not in outputs):
            raise BadInput(
                f"the outputs {', '.join(wanted)} cannot be compared by {kind}", where="loss", remedy="give auto"
            )
        return torch.stack(terms).sum()

    return loss


@contextlib.contextmanager
def hidden_states_too(student: FlatModule, settings: Settings, context: Context) -> Iterator[Loss]:
    """While it is active, the distillation loss of `student`, its hidden states included where the settings want them.

    Hidden states are the outputs of modules that have one name and give one shape in student and teacher; each adds its
    `relative_error`, all together their mean (as in "Patient Knowledge Distillation for BERT Model Compression", Sun et
    al., 2019, whose states are normalized one by one). Raises BadInput where no module fits.
    """
    kind = chosen_loss(settings, context)
    if kind != "hidden" and not settings.hidden_weight:
        yield distillation_loss(settings, context)
        return
    names = _matching(student.module, context.teacher.module, settings.hidden_layers)
    outputs_loss = None if kind == "hidden" else distillation_loss(settings, context)
    with _recorded(student.module, names) as ours, _recorded(context.teacher.module, names) as theirs:

        def loss(outputs: Tensors, inputs: Tensors, labels: Tensor | None) -> Tensor:
            if outputs_loss is None:
                _wanted(context, inputs)
                return _hidden_error(ours, theirs)
            return outputs_loss(outputs, inputs, labels) + settings.hidden_weight * _hidden_error(ours, theirs)

        yield loss


def zeros_kept(module: nn.Module) -> Callable[[int, int], None]:
    """A step that sets back to zero every weight that is exactly zero now, in parameters of two or more axes."""
    zeros = [(p, mask) for p in module.parameters() if p.ndim > 1 and bool((mask := p.detach() == 0).any())]

    @torch.no_grad()
    def step(done: int, total: int) -> None:
        for parameter, mask in zeros:
            parameter.masked_fill_(mask, 0.0)

    return step


def _classes(context: Context) -> tuple[str, ...]:
    return context.task.classes if context.task else ()


@torch.no_grad()
def _wanted(context: Context, inputs: Tensors) -> Tensors:
    return context.teacher.compute(inputs)


def _matching(student: nn.Module, teacher: nn.Module, patterns: Sequence[str]) -> list[str]:
    theirs = {name for name, _ in teacher.named_modules()}
    if patterns:
        names = [n for n, _ in student.named_modules() if any(fnmatchcase(n, p) for p in patterns)]
    else:
        names = _outermost_elements(student)
    if not theirs & set(names):
        raise BadInput(
            f"student and teacher share no module named {', '.join(patterns) or 'in a ModuleList or Sequential'}",
            where="hidden_layers",
            remedy="give patterns of module names",
        )
    return [name for name in names if name in theirs]


def _outermost_elements(module: nn.Module) -> list[str]:
    """The names of the elements of every ModuleList and Sequential that lies in no other."""
    lists = [n for n, m in module.named_modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]
    outermost = [n for n in lists if not any(n != o and n.startswith(f"{o}." if o else "") for o in lists)]
    return [f"{n}.{child}".lstrip(".") for n in outermost for child, _ in module.get_submodule(n).named_children()]


@contextlib.contextmanager
def _recorded(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The first tensor that each named submodule returned last; a block often returns its hidden state in a tuple."""
    states: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(layer: nn.Module, args: Any, output: Any) -> None:
            tensors = [v for v in tree_leaves(output) if isinstance(v, Tensor)]
            if tensors:
                states[name] = tensors[0]

        return record

    handles = [module.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _hidden_error(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    same = [n for n, v in ours.items() if n in theirs and v.shape == theirs[n].shape and v.is_floating_point()]
    if not same:
        raise BadInput(
            f"student and teacher have no hidden states of one shape ({', '.join(ours)})",
            where="hidden_layers",
            remedy="give patterns of modules that kept their width",
        )
    return torch.stack([relative_error(ours[name], theirs[name]) for name in same]).mean()
