"""Every refusal a user can meet: one line with cause and mend, the right exit code, and nothing left on disk.

Each row of ROWS is one test, which runs `pocketship` once in a folder of its own.
A hostile payload creates the file `pwned` in that folder, where the comparison of before and after sees it.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

OUTPUT = "new/parents/bundle"
IMPORTS = "import numpy as np\nimport torch\nfrom torch import nn\n"

Setup = Callable[[Path], None]


@dataclass(frozen=True)
class Row:
    """A command that must be refused; `says` are parts of its line, where `HERE` is the line of f.py marked so."""

    name: str
    words: tuple[str, ...]
    says: tuple[str, ...]
    code: int = 2
    factory: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    setup: Setup | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def export(name: str, *words: str, says: tuple[str, ...], target: str = "onnx", output: str = OUTPUT, **facts) -> Row:
    """`pocketship export WORDS` into a folder whose parents do not exist either."""
    return Row(name, ("export", *words, "--target", target, "-o", output), says, **facts)


def factory(name: str, body: str, *words: str, says: tuple[str, ...], **facts) -> Row:
    """`pocketship export f.py:make` where f.py holds `body`."""
    return export(name, "f.py:make", *words, says=says, factory=IMPORTS + body, **facts)


GOOD = "def make():\n    return nn.Linear(4, 3), torch.randn(2, 4)\n"


def forward(lines: str, example: str = "torch.randn(2, 4)") -> str:
    """A factory whose module has one layer and this body of forward()."""
    body = "".join(f"        {line}\n" for line in lines.splitlines())
    return (
        "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layer = nn.Linear(4, 3)\n        self.register_buffer('count', torch.zeros(1))\n"
        f"    def forward(self, x):\n{body}"
        f"def make():\n    return Model(), {example}\n"
    )


# Hostile bytes ---------------------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it creates the file `pwned` in the working folder."""

    def __reduce__(self):
        return open, ("pwned", "w")


HOSTILE = pickle.dumps(Payload(), protocol=2)
CREATE_FILE = "open('pwned', 'w')"


def save_program(path: Path, with_inputs: bool = True) -> None:
    """A good .pt2 with weights, a buffer, a constant and a dynamic axis."""
    path.write_bytes(_program_bytes(with_inputs))


@functools.cache
def _program_bytes(with_inputs: bool) -> bytes:
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)
            self.register_buffer("shift", torch.ones(3))

        def forward(self, x):
            return self.layer(x) + self.shift + torch.tensor([1.0, 2.0, 3.0])

    program = torch.export.export(
        Model().eval(), (torch.randn(2, 4),), dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}}
    )
    if not with_inputs:
        program._example_inputs = None
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def rewrite(
    good: Path, bad: Path, changed: Mapping[str, Callable[[bytes], bytes]], added: Mapping[str, bytes | str]
) -> None:
    """Copy an archive with entries changed and added (as bytes, or a copy of the entry named).

    Names begin at the archive's root folder, with @ outside it.
    """
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        root = source.namelist()[0].split("/")[0]
        for info in source.infolist():
            name, content = info.filename.split("/", 1)[1], source.read(info)
            target.writestr(zipfile.ZipInfo(info.filename), changed.get(name, bytes)(content))
        for name, content in added.items():
            copied = source.read(f"{root}/{content}") if isinstance(content, str) else content
            target.writestr(zipfile.ZipInfo(name[1:] if name.startswith("@") else f"{root}/{name}"), copied)


def edited(change: Callable[[dict], None]) -> Callable[[bytes], bytes]:
    """A change of an entry that is JSON."""

    def apply(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return apply


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    """A change of an entry's text, which must be there."""

    def apply(content: bytes) -> bytes:
        text = content.decode()
        assert old in text, old
        return text.replace(old, new).encode()

    return apply


MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


def _pickled_weight(config: dict) -> None:
    config["config"]["layer.weight"]["use_pickle"] = True


def _pickled_constant(config: dict) -> None:
    next(iter(config["config"].values()))["use_pickle"] = True


def _constant_at(path_name: str) -> Callable[[dict], None]:
    def change(config: dict) -> None:
        next(iter(config["config"].values())).update(path_name=path_name, use_pickle=True, tensor_meta=None)

    return change


def _call(target: str) -> Callable[[dict], None]:
    def change(program: dict) -> None:
        node = {"target": target, "inputs": [], "outputs": [], "metadata": {}, "name": "evil"}
        node["inputs"].append({"name": "", "arg": {"as_string": "pwned"}, "kind": 1})
        program["graph_module"]["graph"]["nodes"].append({**node, "is_hop_single_tensor_return": None})

    return change


def _hidden_size(program: dict) -> None:
    """A size under a key that elsewhere holds free text."""
    values = program["graph_module"]["graph"]["tensor_values"]
    values["metadata"] = {**values["x"], "sizes": [{"as_expr": {"expr_str": CREATE_FILE, "hint": None}}]}


def _imported_enum(program: dict) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    context = json.dumps([{"__enum__": True, "fqn": "payload:Enum", "name": "x"}])
    signature["in_spec"] = signature["in_spec"].replace('"context": "null"', f'"context": {json.dumps(context)}', 1)


SIZE = "Symbol('s77', positive=True, integer=True)"
Archive = tuple[Mapping[str, Callable[[bytes], bytes]], Mapping[str, bytes | str]]
ARCHIVES: dict[str, tuple[Archive, str]] = {
    "pickled weight": (({WEIGHTS: edited(_pickled_weight), "data/weights/weight_0": lambda b: HOSTILE}, {}), "pickle"),
    "pickled constant": (
        ({CONSTANTS: edited(_pickled_constant), "data/constants/tensor_0": lambda b: HOSTILE}, {}),
        "pickle",
    ),
    "custom object": (
        ({CONSTANTS: edited(_constant_at("custom_obj_0"))}, {"data/constants/custom_obj_0": HOSTILE}),
        "custom_obj_0' is no plain tensor",
    ),
    "opaque object": (
        ({CONSTANTS: edited(_constant_at("opaque_obj_0"))}, {"data/constants/opaque_obj_0": HOSTILE}),
        "opaque_obj_0' is no plain tensor",
    ),
    "sample inputs": (
        ({"data/sample_inputs/model.pt": lambda b: HOSTILE}, {}),
        "example inputs are a pickle with code",
    ),
    "old weights": (({}, {"data/weights/model.pt": HOSTILE}), "model.pt' is no plain tensor"),
    "old constants": (({}, {"data/constants/model.pt": HOSTILE}), "model.pt' is no plain tensor"),
    "second model": (({}, {"models/other.json": b"{}", "data/weights/other.pt": HOSTILE}), "is no plain tensor"),
    "compiled library": (({}, {"data/aotinductor/model/model.so": b"\x7fELF"}), "model.so' is no plain tensor"),
    "same name in capitals": (({}, {WEIGHTS.replace("model_", "MODEL_"): b"{}"}), "MODEL_weights_config.json'"),
    "same name twice": (({}, {WEIGHTS: b'{"config": {}}'}), "the same name"),
    "older format": (
        (
            {},
            {
                "@version": b"8.18",
                "@serialized_exported_program.json": MODEL,
                "@serialized_state_dict.pt": HOSTILE,
                "@serialized_constants.pt": HOSTILE,
                "@serialized_example_inputs.pt": HOSTILE,
            },
        ),
        "not an exported program",
    ),
    "code as size": (({MODEL: replaced(SIZE, CREATE_FILE)}, {}), "is code"),
    "code in a size's symbol": (({MODEL: replaced("Symbol('s77'", f'Max(\\"{CREATE_FILE}\\"')}, {}), "is code"),
    "code as hidden size": (({MODEL: edited(_hidden_size)}, {}), "is code"),
    "code as name": (({MODEL: replaced('"name": "x"', f'"name": "x={CREATE_FILE}"')}, {}), "is code"),
    "module to import": (({MODEL: edited(_imported_enum)}, {}), "'__enum__' is code"),
    "function of torch's imports": (({MODEL: edited(_call("torch.os.mkdir"))}, {}), "'torch.os.mkdir' is no operation"),
    "function of an operation": (
        ({MODEL: edited(_call("torch.ops.aten.__init__.__call__"))}, {}),
        "'torch.ops.aten.__init__.__call__' is no operation",
    ),
    "size without end": (({MODEL: replaced(SIZE, "9**9**9**9")}, {}), "size '9**9**9**9' is code"),
    "size that calls": (({MODEL: replaced(SIZE, "Matrix(1,1,breakpoint)")}, {}), "'Matrix(1,1,breakpoint)' is code"),
    "library to load": (({MODEL: edited(_call("torch.ops.load_library"))}, {}), "is no operation"),
    "operation that reads files": (({MODEL: edited(_call("torch.ops.aten.from_file.default"))}, {}), "is no operation"),
}
"""Hostile .pt2 archives, and what the refusal names."""
WORKS_IN_TORCH = {
    "pickled weight",
    "pickled constant",
    "opaque object",
    "sample inputs",
    "old weights",
    "old constants",
    "code as size",
    "code in a size's symbol",
    "older format",
}
"""Those whose payload runs in torch.export.load itself: the others need a call later, or are refused for safety."""


# Files a row needs -----------------------------------------------------------------------------------------------


def _weights(shape: tuple[int, int], cut: int | None = None) -> bytes:
    import torch
    from safetensors.torch import save

    return save({"weight": torch.zeros(shape), "bias": torch.zeros(shape[0])})[:cut]


def _program(with_inputs: bool = True, cut: int | None = None) -> Setup:
    def setup(here: Path) -> None:
        save_program(here / "m.pt2", with_inputs)
        if cut:
            (here / "m.pt2").write_bytes((here / "m.pt2").read_bytes()[:cut])

    return setup


def _hostile_program(name: str) -> Setup:
    def setup(here: Path) -> None:
        save_program(here / "good.pt2")
        rewrite(here / "good.pt2", here / "m.pt2", *ARCHIVES[name][0])
        (here / "payload.py").write_text(f"{CREATE_FILE}\n")

    return setup


def _pipe(name: str) -> Setup:
    def setup(here: Path) -> None:
        (here / name).parent.mkdir(exist_ok=True)
        os.mkfifo(here / name)

    return setup


def _bert(change: Callable[[Path], None]) -> Setup:
    def setup(here: Path) -> None:
        import torch
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=30, **sizes)).save_pretrained(here / "hf")
        change(here / "hf")

    return setup


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _without_a_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if "output.dense" not in n},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def _with_own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "evil"
    config["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"{CREATE_FILE}\n")


def _pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(HOSTILE)


def _bundle_of_somebody(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "letter.txt").write_text("keep me")


def _onnx_file(here: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    (here / "cut.onnx").write_bytes(helper.make_model(graph).SerializeToString()[:-10])
    assert onnx.__version__


def _text(name: str, content: str) -> Mapping[str, bytes]:
    return {name: content.encode()}


def _rows() -> list[Row]:
    weights = {"factory": IMPORTS + GOOD}
    hub = {"HF_HOME": "{outside}/hf"}
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_ETAG_TIMEOUT": "1", **hub}
    return [
        # the command line
        export("unknown source", "minilmm", says=("minilmm: unknown source", "did you mean minilm?")),
        export("unlike any source", "zzzz", says=("zzzz: unknown source", "FILE.py:FACTORY")),
        export(
            "unknown target", "minilm", says=("unknown target 'openvino'", "onnx, tflite, coreml"), target="openvino"
        ),
        export("empty target", "minilm", says=("unknown target ''",), target="onnx,"),
        export("unknown option", "minilm", "--frobnicate", says=("No such option: --frobnicate", "--help")),
        Row("missing source", ("export",), ("Missing argument 'source'", "--help")),
        Row("unknown command", ("exprot", "minilm"), ("No such command 'exprot'",)),
        export("opset no number", "minilm", "--opset", "new", says=("--opset", "should be a valid integer")),
        export("opset too low", "minilm", "--opset", "17", says=("--opset 17", "18 to 23")),
        export("opset too high", "minilm", "--opset", "99", says=("--opset 99", "18 to 23")),
        export("iOS too old", "minilm", "--min-ios", "14", says=("--min-ios 14", "15 to 18")),
        export("no such precision", "minilm", "--coreml-precision", "int8", says=("int8", "float32, float16")),
        export("negative tolerance", "minilm", "--atol", "-1", says=("--atol -1.0",)),
        export("tolerance NaN", "minilm", "--atol", "nan", says=("--atol nan",)),
        export("all wrong", "minilm", "--opset", "1", "--min-ios", "1", says=("--opset 1", "--min-ios 1")),
        # shapes and axes
        factory("shape malformed", GOOD, "--input-shape", "input:2,4", says=("'input:2,4'", "name=1,3,224,224")),
        factory("shape of nothing", GOOD, "--input-shape", "input=", says=("cannot read 'input='",)),
        factory("shape of another", GOOD, "--input-shape", "y=2,4", says=("no input 'y'", "its inputs are input")),
        factory("shape of another rank", GOOD, "--input-shape", "input=2,4,1", says=("has 2 axes, not 3", "input=2,4")),
        factory("shape zero", GOOD, "--input-shape", "input=0,4", says=("cannot have shape [0, 4]",)),
        factory("shape negative", GOOD, "--input-shape", "input=-1,4", says=("cannot read 'input=-1,4'",)),
        factory("shape absurd", GOOD, "--input-shape", f"input={10**15},4", says=("cannot have shape",)),
        factory("shape not taken", GOOD, "--input-shape", "input=2,5", says=("forward() raised", "input=[2, 5]")),
        factory("axis malformed", GOOD, "--dynamic", "input", says=("cannot read 'input'", "name:axis")),
        factory("axis of another", GOOD, "--dynamic", "y:0", says=("no input 'y'",)),
        factory("axis not there", GOOD, "--dynamic", "input:2", says=("no axis 2", "it has 2, from 0")),
        factory("axis that is fixed", GOOD, "--dynamic", "input:1", says=("forward() raised", "--dynamic")),
        # weights
        export("weights missing", "f.py:make", "--weights", "w.safetensors", says=("no such weights",), **weights),
        export(
            "weights empty",
            *("f.py:make", "--weights", "w.safetensors"),
            says=("w.safetensors: the weights are empty",),
            files={"w.safetensors": b""},
            **weights,
        ),
        export(
            "weights truncated",
            *("f.py:make", "--weights", "w.safetensors"),
            says=("w.safetensors: cannot read the weights, truncated or damaged",),
            setup=lambda here: (here / "w.safetensors").write_bytes(_weights((3, 4), -7)),
            **weights,
        ),
        export(
            "weights of another model",
            *("f.py:make", "--weights", "w.safetensors"),
            says=("the weights are of another model", "[7, 4]"),
            setup=lambda here: (here / "w.safetensors").write_bytes(_weights((7, 4))),
            **weights,
        ),
        export(
            "weights with code",
            *("f.py:make", "--weights", "w.pth"),
            says=("w.pth: the file is a pickle that holds code", "safetensors"),
            files={"w.pth": HOSTILE},
            **weights,
        ),
        export(
            "weights garbage",
            *("f.py:make", "--weights", "w.pth"),
            says=("w.pth: ",),
            files={"w.pth": b"garbage" * 100},
            **weights,
        ),
        export("weights for the zoo", "minilm", "--weights", "w.safetensors", says=("minilm: --weights goes with",)),
        export("weights for a program", "m.pt2", "--weights", "w.safetensors", says=("--weights goes with",)),
        # pickles as the source
        *(
            export(f"source {name}", name, says=(f"{name}: the file is a pickle",), files={name: HOSTILE})
            for name in ("model.pt", "model.pth", "model.bin", "model.ckpt")
        ),
        export(
            "source a text", "notes.txt", says=("notes.txt: the file is no source",), files=_text("notes.txt", "hi")
        ),
        # exported programs
        export("program missing", "m.pt2", says=("m.pt2: no such file",)),
        export("program empty", "m.pt2", says=("m.pt2: the file is empty",), files={"m.pt2": b""}),
        export("program garbage", "m.pt2", says=("m.pt2: not an exported program",), files={"m.pt2": b"PK\3\4" * 99}),
        export("program truncated", "m.pt2", says=("m.pt2: not an exported program",), setup=_program(cut=3000)),
        export("program without inputs", "m.pt2", says=("no example inputs",), setup=_program(with_inputs=False)),
        *(
            export(f"program with {name}", "m.pt2", says=("m.pt2: ", fault), setup=_hostile_program(name))
            for name, (_, fault) in ARCHIVES.items()
        ),
        # factories
        export("factory file missing", "f.py:make", says=("f.py: no such file",)),
        export("factory unnamed", "f.py", says=("f.py: the function is missing", "f.py:FACTORY")),
        export("factory misnamed", "f.py:mkae", says=("there is no function 'mkae'",), factory=IMPORTS + GOOD),
        factory("factory raises", "def make():\n    return {}['a']  # HERE\n", says=("f.py:HERE: ", "KeyError: 'a'")),
        factory("factory leaves", "def make():\n    raise SystemExit(0)  # HERE\n", says=("f.py:HERE: ", "SystemExit")),
        factory("file raises", "1 / 0  # HERE\n", says=("f.py:HERE: ", "ZeroDivisionError")),
        factory("file is no Python", "def make(:\n", says=("f.py", "SyntaxError")),
        factory("returns None", "def make():\n    pass\n", says=("f.py:make: the factory returned NoneType",)),
        factory("returns a tensor", "def make():\n    return torch.ones(2)\n", says=("the factory returned Tensor",)),
        factory("returns a module", "def make():\n    return nn.ReLU()\n", says=("the factory returned ReLU",)),
        factory(
            "returns four",
            "def make():\n    return nn.ReLU(), torch.ones(2), {}, 1\n",
            says=("returned tuple of ReLU, Tensor, dict, int", "return (module, example_inputs)"),
        ),
        factory(
            "too many inputs",
            "def make():\n    return nn.ReLU(), (torch.ones(2), torch.ones(2))\n",
            says=("ReLU: the example inputs do not fit forward()", "too many positional arguments"),
        ),
        factory(
            "input of another name",
            "def make():\n    return nn.ReLU(), {'y': torch.ones(2)}\n",
            says=("do not fit forward()", "'input'"),
        ),
        factory("input of numpy", "def make():\n    return nn.ReLU(), np.ones(2)\n", says=("no tensor", "tensor")),
        factory(
            "one input of numpy",
            "def make():\n    return nn.Bilinear(2, 2, 2), (torch.ones(1, 2), np.ones((1, 2)))\n",
            says=("input 'input2' is a ndarray", "torch.Tensor"),
        ),
        factory(
            "input of float64",
            "def make():\n    return nn.ReLU(), torch.ones(2, dtype=torch.float64)\n",
            says=("input 'input' is float64", "float32"),
        ),
        factory("no input", "def make():\n    return nn.ReLU(), ()\n", says=("do not fit forward()",)),
        factory("no tensor", "def make():\n    return nn.ReLU(), 3\n", says=("hold no tensor",)),
        # modules
        factory(
            "forward raises",
            forward("return self.layer(x) @ torch.ones(7)  # HERE"),
            says=("f.py:HERE: forward() raised RuntimeError on inputs x=[2, 4]",),
        ),
        factory("returns a string", forward("self.layer(x)\nreturn 'yes'"), says=("the module returns a str",)),
        factory("returns nothing", forward("self.layer(x)"), says=("the module returns no tensor",)),
        factory(
            "branch on data",
            forward("if x.sum() > 0:  # HERE\n    return self.layer(x)\nreturn x"),
            says=("f.py:HERE: control flow depends on the data `if x.sum() > 0:", "torch.where or torch.cond"),
        ),
        factory(
            "item as size",
            forward("n = int(x.abs().sum().item())  # HERE\nreturn self.layer(x)[:n] * 2"),
            says=("f.py:HERE: control flow depends on the data `n = int(x.abs().sum().item())",),
        ),
        factory(
            "changes a buffer",
            forward("self.count += 1\nreturn self.layer(x) + self.count"),
            says=("Model: forward() changes 'count'", "return the new value"),
        ),
        factory(
            "changes its input",
            forward("x += 1\nreturn self.layer(x)"),
            says=("forward() changes 'x'",),
        ),
        factory(
            "half precision",
            "def make():\n    return nn.Linear(4, 3).half(), torch.ones(1, 4)\n",
            says=("is torch.float16", "module.float()"),
        ),
        factory(
            "no values",
            "def make():\n    return nn.Linear(4, 3, device='meta'), torch.ones(1, 4)\n",
            says=("weight 'weight' has no values (meta device)",),
        ),
        factory(
            "weight NaN",
            "def make():\n    m = nn.Linear(4, 3)\n    m.bias.data[1] = float('nan')\n    return m, torch.ones(1, 4)\n",
            says=("weight 'bias' holds NaN or infinity",),
        ),
        factory(
            "output NaN",
            forward("return self.layer(x) * float('nan')"),
            says=("output 'output' holds NaN or infinity",),
        ),
        factory(
            "operation nobody has",
            forward("return torch.special.bessel_j0(self.layer(x))  # HERE"),
            says=tuple(f"{t} lacks " for t in ("onnx", "tflite", "coreml"))
            + ("bessel_j0.default", "f.py:HERE (return torch.special.bessel_j0", "rewrite those lines"),
            code=5,
            target="all",
        ),
        factory(
            "operation of the user",
            "@torch.library.custom_op('mine::twice', mutates_args=())\n"
            "def twice(x: torch.Tensor) -> torch.Tensor:\n    return x * 2\n"
            "@twice.register_fake\ndef _(x):\n    return torch.empty_like(x)\n"
            + forward("return twice(self.layer(x)) + 1  # HERE"),
            says=("no target has mine.twice.default", "f.py:HERE (return twice("),
            code=5,
        ),
        # Hugging Face
        export("folder empty", "hf", says=("hf: no config.json",), setup=lambda here: (here / "hf").mkdir()),
        export("folder without weights", "hf", says=("hf: ",), setup=_bert(_remove("model.safetensors"))),
        export("folder truncated", "hf", says=("hf: cannot load the model",), setup=_bert(_truncate)),
        export(
            "folder without a layer",
            "hf",
            says=("hf: ", "weights are not in the checkpoint (encoder.layer.0.", "would stay random"),
            setup=_bert(_without_a_layer),
        ),
        export("folder with a pickle", "hf", says=("hf: ",), setup=_bert(_pickled_weights)),
        export("folder with code", "hf", says=("hf: ", "own code", "--trust-remote-code"), setup=_bert(_with_own_code)),
        export("task unknown", "hf", "--task", "juggling", says=("hf: ", "juggling"), setup=_bert(lambda folder: None)),
        export(
            "task without weights", "hf", "--task", "text-classification", says=("random",), setup=_bert(lambda f: 0)
        ),
        export("hub offline", "nobody/nothing", says=("nobody/nothing: ", "hub"), env={"HF_HUB_OFFLINE": "1", **hub}),
        export("hub unreachable", "nobody/nothing", says=("nobody/nothing: ", "hub", "network"), env=closed),
        # timm
        export("timm unknown", "timm:mobilenetv3_smal_050", says=("no such timm model", "mobilenetv3_small_050")),
        export("timm unlike any", "timm:zzzzzzzzzzzz", says=("no such timm model", "timm.list_models()")),
        # the output folder
        export("output exists", "minilm", says=("exists", "--force"), output="mine", setup=_bundle_of_somebody),
        export(
            "output no bundle",
            *("minilm", "--force"),
            says=("mine: the output folder is no bundle",),
            output="mine",
            setup=_bundle_of_somebody,
        ),
        export("output a file", "minilm", says=("is not a folder",), output="a", files=_text("a", "file")),
        export(
            "output a file, forced", "minilm", "--force", says=("is not a folder",), output="a", files=_text("a", "x")
        ),
        export(
            "output a link",
            *("minilm", "--force"),
            says=("link: the output is not a folder",),
            output="link",
            setup=lambda here: (here / "link").symlink_to("elsewhere"),
        ),
        export(
            "parent a file",
            "minilm",
            says=("a: a parent of the output is no folder",),
            output="a/b",
            files=_text("a", "x"),
        ),
        export("parent in /proc", "minilm", says=("/proc/nowhere", "cannot write"), output="/proc/nowhere/bundle"),
        # inspect and verify
        *(
            Row(f"{command} nothing", (command, "absent"), ("absent", fault))
            for command, fault in (("verify", "no bundle here"), ("inspect", "no such bundle or artifact"))
        ),
        Row("verify a file", ("verify", "a"), ("a/manifest.json: no bundle here",), files=_text("a", "x")),
        Row("verify garbage", ("verify", "b"), ("not JSON",), files=_text("b/manifest.json", "\x00\xff")),
        Row(
            "verify truncated", ("verify", "b"), ("not JSON",), files=_text("b/manifest.json", '{"schema_version": 1,')
        ),
        Row("verify a list", ("verify", "b"), ("schema version is None",), files=_text("b/manifest.json", "[]")),
        Row(
            "verify the future",
            ("verify", "b"),
            ("this pocketship reads 1",),
            files=_text("b/manifest.json", '{"schema_version": 99}'),
        ),
        Row(
            "verify too little", ("verify", "b"), ("no field",), files=_text("b/manifest.json", '{"schema_version": 1}')
        ),
        *(
            Row(
                f"verify {name}",
                ("verify", "b"),
                ("b/manifest.json: not JSON (", says),
                files=_text("b/manifest.json", text),
            )
            for name, text, says in (
                ("400 digits", '{"settings": {"atol": ' + "9" * 400 + "}}", "... has more than 64 bits"),
                ("infinite", '{"settings": {"atol": 1e999}}', "1e999 is infinite"),
                ("half a character", '{"files": [{"path": "\\ud800"}]}', "surrogates not allowed"),
                ("deep", "[" * 99_999, "nested more than 64 deep"),
            )
        ),
        Row(
            "verify a pipe",
            ("verify", "b"),
            ("b/manifest.json: no bundle here (not a regular file)",),
            setup=_pipe("b/manifest.json"),
        ),
        Row(
            "compare a pipe", ("compare", "a.json", "a.json"), ("a.json: cannot be read (not a",), setup=_pipe("a.json")
        ),
        Row("inspect a pipe", ("inspect", "a.onnx"), ("a.onnx: not a regular file",), setup=_pipe("a.onnx")),
        export("source a pipe", "m.pt2", says=("m.pt2: not a regular file",), setup=_pipe("m.pt2")),
        export(
            "name not in UTF-8", "caf\udce9.py:make", says=(r"'caf\udce9.py:make': the word is not in UTF-8; rename",)
        ),
        export("output not in UTF-8", "minilm", says=(r"'b\udcff': the word is not in UTF-8",), output="b\udcff"),
        export(
            "factory not in UTF-8",
            "latin.py:make",
            says=("latin.py: the factory raised SyntaxError", "can't decode byte 0xe9"),
            files={"latin.py": b"def make():\n    return '\xe9'\n"},
        ),
        *(
            export(
                f"recipe {name}", "minilm", "--recipe", "r.yaml", says=("r.yaml: ", says), files=_text("r.yaml", text)
            )
            for name, text, says in (
                ("deep", "passes:\n" + "- " * 9999, "nested more than 16 deep"),
                ("a date that is none", "passes: [{prune: {sparsity: 9999-99-99}}]", "sparsity is '9999-99-99'"),
                ("aliases", "a: &a [0]\npasses: [*a, *a]", "write it out"),
            )
        ),
        export("atol 400 digits", "minilm", "--atol", "9" * 400, says=("--atol inf is no tolerance",)),
        export("atol infinite", "minilm", "--atol", "1e999", says=("--atol inf is no tolerance",)),
        Row("inspect garbage bundle", ("inspect", "b"), ("not JSON",), files=_text("b/manifest.json", "{")),
        Row("inspect absent", ("inspect", "a.onnx"), ("a.onnx: no such bundle or artifact",)),
        Row("inspect empty", ("inspect", "a.onnx"), ("a.onnx: the file is empty",), files={"a.onnx": b""}),
        Row("inspect garbage", ("inspect", "a.onnx"), ("a.onnx: not a onnx file",), files={"a.onnx": b"\xff" * 99}),
        Row("inspect truncated", ("inspect", "cut.onnx"), ("cut.onnx: not a onnx file",), setup=_onnx_file),
        Row("inspect no TFLite", ("inspect", "a.tflite"), ("not a TFLite file",), files={"a.tflite": b"garbage" * 9}),
        Row("inspect cut TFLite", ("inspect", "a.tflite"), ("a.tflite: ",), files={"a.tflite": b"\x1c\0\0\0TFL3\0\0"}),
        Row("inspect empty package", ("inspect", "a.mlpackage"), ("a.mlpackage: ",), files={"a.mlpackage/x": b""}),
        Row(
            "inspect garbage package",
            ("inspect", "a.mlpackage"),
            ("a.mlpackage: ",),
            files={"a.mlpackage/Data/com.apple.CoreML/model.mlmodel": b"\xff" * 50},
        ),
    ]


ROWS = {row.name: row for row in _rows()}


def listing(folder: Path) -> dict[str, bytes | str]:
    """Every file with its bytes, every link with its target, every folder."""
    return {
        str(path.relative_to(folder)): f"link to {path.readlink()}"
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        if path.is_dir()
        else "pipe"
        for path in sorted(folder.rglob("*"))
    }


def prepare_folder(row: Row, here: Path) -> None:
    """Write the files of a row."""
    for name, content in row.files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content)
    if row.factory:
        (here / "f.py").write_text(row.factory)
    if row.setup:
        row.setup(here)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")  # which one hostile archive holds
@pytest.mark.parametrize("name", ROWS)
def test_it_is_refused(name: str, pocketship, tmp_path: Path) -> None:
    """One line on stderr with cause and mend, the exit code, nothing on stdout, and the folder as it was."""
    row, folder, outside = ROWS[name], tmp_path / "here", tmp_path / "outside"
    folder.mkdir(), outside.mkdir()
    prepare_folder(row, folder)
    before = listing(folder)
    quiet = ("--quiet",) if row.words[0] == "export" else ()
    env = {key: value.format(outside=outside) for key, value in row.env.items()}
    refusal = pocketship(*row.words, *quiet, cwd=folder, **env)
    lines = refusal.stderr.strip().splitlines()
    assert refusal.returncode == row.code, refusal.stderr
    assert len(lines) == 1, refusal.stderr
    assert lines[0].startswith("pocketship: ") and "; " in lines[0]
    here = next((i for i, text in enumerate(row.factory.splitlines(), 1) if text.endswith("# HERE")), 0)
    for part in row.says:
        assert part.replace("HERE", str(here)) in lines[0]
    assert len(lines[0].replace(str(tmp_path), "")) < 600
    assert refusal.stdout == ""
    assert listing(folder) == before


@pytest.mark.slow
def test_the_hostile_programs_are_hostile(tmp_path: Path) -> None:
    """torch.export.load itself runs the payload of those that claim it: the refusals above refuse something."""
    for i, name in enumerate(sorted(WORKS_IN_TORCH)):
        (tmp_path / str(i)).mkdir()
        _hostile_program(name)(tmp_path / str(i))
    script = (
        "import contextlib, os, sys, torch\n"
        "for folder in sys.argv[1:]:\n"
        "    os.chdir(folder)\n"
        "    with contextlib.suppress(Exception):\n"
        "        torch.export.load('m.pt2')\n"
    )
    folders = [str(tmp_path / str(i)) for i in range(len(WORKS_IN_TORCH))]
    subprocess.run([sys.executable, "-c", script, *folders], capture_output=True, check=True, timeout=120)
    ran = {name for i, name in enumerate(sorted(WORKS_IN_TORCH)) if (tmp_path / str(i) / "pwned").exists()}
    assert ran == WORKS_IN_TORCH


@pytest.fixture
def read_only(tmp_path: Path):
    """A folder on a file system that is mounted read-only."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root can mount a read-only file system")
    folder = tmp_path / "read-only"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("output", ["bundle", "new/bundle"])
def test_an_output_that_cannot_be_written_is_refused(output: str, read_only: Path, refused) -> None:
    """The folder, or its parent, lies on a read-only file system."""
    line = refused("export", "minilm", "-o", read_only / output)
    assert "cannot write (Read-only file system)" in line and "give -o a folder you may write" in line
    assert listing(read_only) == {}


def test_an_exported_program_that_is_good_is_exported(tmp_path: Path, pocketship) -> None:
    """The twin of the hostile ones: weights, a buffer, a constant, a dynamic axis, rewritten entry by entry."""
    save_program(tmp_path / "good.pt2")
    rewrite(tmp_path / "good.pt2", tmp_path / "m.pt2", {}, {"extra/notes.txt": b"hello"})
    done = pocketship("export", "m.pt2", "--target", "onnx", "-o", "bundle", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
