"""Our own export with the parity gate taken out, to measure what the gate costs. For this benchmark only."""

import sys
from pathlib import Path

from exporter import export
from runtimes import parity
from runtimes.signature import ExecutedBy, Signature
from runtimes.types import Parity


def no_gate(artifact, golden, limits, **_):
    """Claim that every artifact is right, with the signature of the traced program."""
    return signatures[0], Parity(0.0, 0.0, 1.0, None, 1.0, 0.0, 1, ExecutedBy("none", "", "off-device"), "pass")


signatures: list[Signature] = []


def remember(model, artifact, where):
    """Stand in for the comparison of signatures: the artifact's is not read."""
    return model


if __name__ == "__main__":
    from exporter.stages import targets

    signatures.append(Signature((), ()))
    parity.prove = no_gate
    targets.agree = remember
    export(sys.argv[1], output=Path(sys.argv[2]))
