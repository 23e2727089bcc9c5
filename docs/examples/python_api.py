"""Export, verify, run and embed from Python, without a command line: `python python_api.py`."""

import numpy as np
import torch
from torch import nn

import exporter
from exporter.embed.write import embed_all
from runtimes.bundle import read_manifest
from runtimes.golden import read_golden
from runtimes.session import open_session
from runtimes.verify import verify


def main():
    """A module in memory becomes a bundle; its files are checked, run, and made into two libraries."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))
    bundle = exporter.export((module, torch.randn(1, 16)), output="mlp", force=True)

    manifest = read_manifest(bundle.path)
    for check in verify(bundle.path, manifest):
        assert not check.fault, check.fault
    golden = read_golden(bundle.path / manifest.artifacts[0].golden)
    for artifact in manifest.artifacts:
        session = open_session(bundle.path / artifact.path)
        ((name, output),) = session.run(golden.inputs[0]).items()
        error = np.abs(output - golden.outputs[0][name]).max()
        print(f"{artifact.format}: {name} {list(output.shape)}, right to a thousandth: {error < 1e-3}")
        session.close()

    for library in embed_all(bundle.path, {"cpp": "mlp-cpp", "python": "mlp-py"}, name="mlp", force=True):
        print(f"{library.platform}: {library.cls}.{library.method}, {', '.join(library.artifacts)}")


if __name__ == "__main__":
    main()
