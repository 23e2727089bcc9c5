"""A Hugging Face classifier as a web page that works offline: `python huggingface_to_web.py [FOLDER or ORG/NAME]`.

Without a word it makes a folder as `save_pretrained` writes it: a tiny BERT with random weights, which knows nothing
and needs no network. Serve the page with `python -m http.server --directory web-page`.
"""

import sys
from pathlib import Path

import torch

import exporter
from exporter.embed.write import embed


def tiny_bert(folder):
    """A folder with config.json, model.safetensors and a tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.5,  # with less a model without training says nearly the same of every text
        id2label={0: "good", 1: "bad"},
        label2id={"good": 0, "bad": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)


def main():
    """Export the model to ONNX, then write the page around it."""
    if len(sys.argv) > 1:
        source = sys.argv[1]
    else:
        source = "tiny-bert"
        tiny_bert(Path(source))
    bundle = exporter.export(source, targets="onnx", output="web-bundle", task="text-classification", force=True)
    page = embed(bundle.path, "web", "web-page", force=True)
    print(f"{page.cls}.{page.method}: {', '.join(page.artifacts)}, {page.files} files")


if __name__ == "__main__":
    main()
