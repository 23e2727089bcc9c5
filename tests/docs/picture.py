"""Draws docs/images/report.png: the report of a bench of digits and digits-int8 on this machine, as Chromium shows it.

python -m tests.docs.picture
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.devices.browser import chromium
from tests import warm
from tests.docs.printed import ROOT, Place, exporter_of, run

PICTURE = ROOT / "docs" / "images" / "report.png"
SIZE = (1240, 860)
MOST_BYTES = 200_000


def main() -> None:
    """Export, bench, draw; the latencies in it are those of the machine that it runs on."""
    with tempfile.TemporaryDirectory(prefix="docs-picture") as name:
        folder = Path(name)
        warm.let_children_be_forked(folder, os.getpid())
        bundle = exporter_of(folder)
        bundles = [bundle("digits").name, bundle("digits-int8").name]
        place = Place(folder, {**os.environ, "PYTHONPATH": str(ROOT)}, {})
        words = ["bench", *bundles, "--data", "digits", "--history", "none", "--report", "report.html"]
        code, output = run(["pocketship", *words], place)
        assert code == 0, output
        is_root = os.geteuid() == 0
        shot = [f"--window-size={SIZE[0]},{SIZE[1]}", "--hide-scrollbars", f"--screenshot={PICTURE}"]
        words = [chromium.find(), *chromium.flags(is_root), f"--user-data-dir={folder}/profile", *shot]
        subprocess.run([*words, (folder / "report.html").as_uri()], check=True, capture_output=True, timeout=120)
    size = PICTURE.stat().st_size
    assert size <= MOST_BYTES, f"{size} bytes: a README is to load at once"
    print(output)


if __name__ == "__main__":
    main()
