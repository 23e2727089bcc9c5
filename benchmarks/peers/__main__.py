"""The command line of the comparisons with peers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.peers.bench import PARTS, bench_peers
from benchmarks.peers.compress import MODELS as COMPRESSED
from benchmarks.peers.compress import compress_peers
from benchmarks.peers.export import MODELS as EXPORTED
from benchmarks.peers.export import export_peers

COMPARISONS = {
    "export": (export_peers, EXPORTED),
    "compress": (compress_peers, tuple(COMPRESSED)),
    "bench": (bench_peers, PARTS),
}
"""name -> the function that runs it, and the models, or for bench the parts, that it takes."""


def main() -> None:
    """Run one comparison; prints its tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (medians are over them)")
    parser.add_argument("--models", help="comma-separated, or parts of bench; by default all of the comparison")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args()
    compare, known = COMPARISONS[options.comparison]
    models = options.models.split(",") if options.models else list(known)
    if options.rounds < 1 or not set(models) <= set(known):
        parser.error(f"--rounds is at least 1, --models are {', '.join(known)}")
    results = compare(options.rounds, models)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
