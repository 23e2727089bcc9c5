"""A local Hugging Face folder or a hub id: task, model class and dummy inputs from optimum, nothing remote executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from exporter.sources.preprocessing import NotDescribed, of_image_processor, of_tokenizer
from exporter.sources.source import Source
from exporter.sources.weights import weights_facts
from runtimes.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCES = (
    "The ferry to the island leaves at seven, an hour before the market opens.",
    "Where can I change a flat tyre after midnight?",
    "Phones and small boards run compact models; what they need is a file that is right, a number that was measured, "
    "and an app that agrees with the notebook it came from.",
    "ok",
)
"""Real inputs for text models: long, short, a question, one word."""

DEFAULT_TOKENS = 128


def tokenize(
    tokenizer: Tokenizer, sentences: Sequence[str], batch: int, length: int
) -> tuple[dict[str, torch.Tensor], ...]:
    """One sample a sentence, each `[batch, length]` int64, padded or cut; a batch holds the sentences in turn."""
    padding = tokenizer.padding or {}
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(
        length=length, pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]")
    )
    samples = []
    for i in range(len(sentences)):
        encoded = tokenizer.encode_batch([sentences[(i + j) % len(sentences)] for j in range(batch)])
        samples.append(
            {
                "input_ids": torch.tensor([e.ids for e in encoded]),
                "attention_mask": torch.tensor([e.attention_mask for e in encoded]),
                "token_type_ids": torch.tensor([e.type_ids for e in encoded]),
            }
        )
    return tuple(samples)


def load(source: str, task: str | None, trust_remote_code: bool) -> Source:
    """The model of a folder or hub id, for its own task or for `task`.

    Raises BadInput when it is missing, damaged, holds other weights than its configuration asks for, wants remote code
    that was not allowed, or optimum knows no export configuration for it.
    """
    try:
        import optimum.exporters.onnx.model_configs  # noqa: F401  (registers the configurations)
        import transformers
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        raise BadInput(
            "transformers or optimum is missing", where=source, remedy="pip install 'pocketship[export]'"
        ) from error
    local = Path(source).is_dir()
    if local and not (Path(source) / "config.json").is_file():
        raise BadInput("no config.json in this folder", where=source, remedy="give a folder that save_pretrained wrote")
    remote: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": local}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **remote)
        architecture = (config.architectures or [None])[0]
        own_class = getattr(transformers, architecture or "", None)
        if task is None and own_class is None and not trust_remote_code:
            raise BadInput("its configuration names no model class", where=source, remedy="give --task")
        task = TasksManager.map_from_synonym(task or TasksManager.infer_task_from_model(own_class or source))
        task = task.removesuffix("-with-past")
        model_class = TasksManager.get_model_class_for_task(task, model_type=config.model_type, library="transformers")
        if own_class and TasksManager.map_from_synonym(TasksManager.infer_task_from_model(own_class)).startswith(task):
            model_class = own_class
        config.use_cache = False
        model, loaded = model_class.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, **remote
        )
    except BadInput:
        raise
    except Exception as error:  # transformers, huggingface_hub and safetensors raise a dozen kinds
        raise _refusal(source, local, error) from error
    _check_complete(source, loaded)
    constructor = _export_config(source, model, task, TasksManager)
    export_config = constructor(model.config)
    tokenizer = _tokenizer(source, remote)
    example = _example(export_config, model, tokenizer)
    return Source(
        name=Path(source).resolve().name if local else source.replace("/", "--"),
        kind="huggingface",
        module=model,
        kwargs=example,
        samples=_text_samples(tokenizer, example) if tokenizer and "input_ids" in example else None,
        weights="pretrained",
        task=task,
        license=_license(source) if local else None,
        files={"tokenizer.json": tokenizer.to_str(pretty=True).encode()} if tokenizer else {},
        **_preprocessor(source, model, tokenizer, tuple(example), remote),
        **weights_facts(model),
    )


def _refusal(source: str, local: bool, error: Exception) -> BadInput:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return BadInput(
            "the model wants to run its own code", where=source, remedy="add --trust-remote-code if you trust it"
        )
    if not local:
        return BadInput(
            f"cannot be loaded from the hub ({text[:160]})",
            where=source,
            remedy="check the id and the network, or give a local folder",
        )
    return BadInput(
        f"cannot load the model ({type(error).__name__}: {text[:200]})",
        where=source,
        remedy="give a folder that save_pretrained wrote, with whole weights",
    )


def _check_complete(source: str, loaded: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that leaves weights at random: transformers only warns."""
    for kind in ("missing_keys", "mismatched_keys"):
        keys = sorted(map(str, loaded.get(kind) or ()))
        if keys:
            raise BadInput(
                f"{len(keys)} weights are not in the checkpoint ({keys[0]}) and would stay random",
                where=source,
                remedy="give --task for a task that the checkpoint was trained for",
            )


def _export_config(source: str, model: Any, task: str, tasks: Any) -> Any:
    try:
        return tasks.get_exporter_config_constructor("onnx", model=model, task=task, library_name="transformers")
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"optimum has no export configuration for it ({' '.join(str(error).split())[:160]})",
            where=source,
            remedy="give another --task, or export it as FILE.py:FACTORY",
        ) from error


def _tokenizer(source: str, remote: Mapping[str, Any]) -> Tokenizer | None:
    """The model's fast tokenizer, or None where it has none."""
    from transformers import AutoTokenizer

    try:
        return getattr(AutoTokenizer.from_pretrained(source, **remote), "backend_tokenizer", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not a text model: AutoTokenizer says so by one of these


def _example(export_config: Any, model: Any, tokenizer: Tokenizer | None) -> dict[str, torch.Tensor]:
    """Dummy inputs of batch 1, in the order of the model's forward()."""
    limit = getattr(model.config, "max_position_embeddings", None) or DEFAULT_TOKENS
    torch.manual_seed(0)
    import random

    import numpy as np

    random.seed(0)
    np.random.seed(0)
    dummy = export_config.generate_dummy_inputs(
        framework="pt", batch_size=1, sequence_length=min(DEFAULT_TOKENS, limit)
    )
    ordered = export_config.ordered_inputs(model)
    return {name: dummy[name] for name in ordered if name in dummy}


def _text_samples(tokenizer: Tokenizer, example: Mapping[str, torch.Tensor]) -> Any:
    def samples(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, torch.Tensor], ...]:
        batch, length = shapes["input_ids"]
        text = tokenize(tokenizer, SENTENCES, batch, length)
        return tuple({name: sample.get(name, example[name]) for name in example} for sample in text)

    return samples


def _preprocessor(
    source: str, model: Any, tokenizer: Tokenizer | None, names: tuple[str, ...], remote: Mapping[str, Any]
) -> dict[str, Any]:
    """How the model's inputs are made, or why that cannot be said: fields of its Source."""
    from transformers import AutoImageProcessor

    id2label = getattr(model.config, "id2label", None) or {}
    labels = [str(id2label[i]) for i in sorted(id2label)] if type(model).__name__.endswith("Classification") else []
    try:
        if tokenizer is not None:
            return {"preprocessor": of_tokenizer(tokenizer.to_str().encode(), names, labels)}
        try:
            processor = AutoImageProcessor.from_pretrained(source, use_fast=False, **remote)
        except (OSError, ValueError, KeyError, TypeError, ImportError):
            return {}  # neither a text nor an image model
        return {"preprocessor": of_image_processor(processor.to_dict(), labels)}
    except NotDescribed as reason:
        return {"not_described": str(reason)}


def _license(folder: str) -> str | None:
    """The licence that the model card's front matter names."""
    card = Path(folder) / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    return next((line.split(":", 1)[1].strip(" \t\"'") for line in lines[:40] if line.startswith("license:")), None)
