"""Fixtures: one lowering in this process, and what an artifact computes in its own runtime, past our own gate."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

MODELS = Path(__file__).resolve().parent.parent / "models.py"
FORMATS = ("onnx", "tflite", "coreml")


@pytest.fixture(scope="session")
def models():
    """The module tests/models.py."""
    spec = importlib.util.spec_from_file_location("pocketship_test_models", MODELS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def as_exported(models):
    """Module and example of a factory of tests/models.py, with the weights that `pocketship export` gives them."""

    def make(name: str) -> tuple[torch.nn.Module, Any]:
        torch.manual_seed(0)
        module, example = getattr(models, name)()
        return module.eval(), example

    return make


@dataclass(frozen=True)
class Lowered:
    """A file of one format, and the traced program behind it."""

    path: Path
    program: Any


@pytest.fixture(scope="session")
def lower_here(tmp_path_factory):
    """Trace a module and lower it to one target in this process: the converters are imported once, not once a test."""

    def lower(module, example, target, *, dynamic=(), metadata=None, **chosen) -> Lowered:
        from exporter.lowering.target import TARGETS
        from exporter.sources.inputs import with_free_axes
        from exporter.sources.source import arguments
        from exporter.tracing.flat_module import FlatModule
        from exporter.tracing.program import DynamicAxis, load_program, save_program, trace

        folder = tmp_path_factory.mktemp(target)
        flat = FlatModule(module.eval(), *arguments(example))
        axes = [DynamicAxis(*axis) for axis in dynamic]
        save_program(trace(flat, with_free_axes(flat.example, axes), axes), folder / "program.pt2")
        settings = TARGETS[target].settings(**chosen)
        road = importlib.import_module(TARGETS[target].module)
        program = road.prepare(load_program(folder / "program.pt2"), settings)
        lacking = road.unsupported(program)
        assert lacking == (), lacking
        path = folder / TARGETS[target].file_name
        road.lower(program, path, settings, metadata or {})
        return Lowered(path, program)

    return lower


def run_directly(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name, computed with the runtime itself, none of our code between (Core ML: our evaluator)."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        wanted = runner.get_input_details()
        assert set(wanted) == set(inputs)
        return runner(**{name: inputs[name].astype(details["dtype"]) for name, details in wanted.items()})
    from runtimes.session import open_session

    return open_session(path).run(inputs)


@pytest.fixture(scope="session")
def outputs_of():
    """`run_directly`."""
    return run_directly


@pytest.fixture(scope="session")
def computes():
    """Assert that an artifact gives `expected` for `inputs`, within `tolerance` of the largest value of an output."""

    def check(path: Path, inputs: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
        got = run_directly(path, {name: np.asarray(value) for name, value in inputs.items()})
        assert set(got) == set(expected)
        for name, value in expected.items():
            want = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
            assert got[name].shape == want.shape, name
            assert np.isfinite(got[name]).all(), name
            error = float(np.abs(got[name].astype(np.float64) - want).max())
            assert error <= tolerance * float(np.abs(want).max()), (path.name, name, error)

    return check


@pytest.fixture(scope="session")
def manifest_of():
    """The manifest of a bundle as JSON gives it."""
    return lambda bundle: json.loads((bundle / "manifest.json").read_text())


@pytest.fixture(scope="session")
def kept_inside():
    """What an artifact stores about itself under the key "pocketship", read with the format's own library."""

    def read(path: Path) -> Any:
        if path.suffix == ".onnx":
            import onnx

            found = {p.key: p.value for p in onnx.load(path).metadata_props}
        elif path.suffix == ".tflite":
            from ai_edge_litert import schema_py_generated as schema

            model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
            found = {m.name.decode(): bytes(model.buffers[m.buffer].data).decode() for m in model.metadata}
        else:
            from coremltools.proto import Model_pb2

            raw = (path / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes()
            found = dict(Model_pb2.Model.FromString(raw).description.metadata.userDefined)
        return json.loads(found["pocketship"])

    return read
