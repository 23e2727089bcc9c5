"""Print the bench of the README: a model and its int8 twin here, in a browser, on an emulated Raspberry Pi."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.rigs.pi import MODELS, emulated_pi

POCKETSHIP = str(Path(sys.executable).with_name("pocketship"))
BUILD = Path("build") / "show"


def main() -> None:
    """Export what is missing, then bench on one after the other: all at once would be no measurement."""
    bundles = []
    for name, words in {"digits": (), "digits-int8": ("--quantize", "int8", "--no-measure")}.items():
        bundles.append(str(BUILD / name))
        if not (BUILD / name).exists():
            export = [POCKETSHIP, "export", "digits", "--target", "onnx,tflite", "--quiet"]
            subprocess.run([*export, *words, "-o", bundles[-1]], check=True)
    bench = [POCKETSHIP, "bench", *bundles, "--data", "digits", "--history", "none"]
    subprocess.run([*bench, "-o", str(BUILD / "local.json")], check=True)
    subprocess.run([*bench, "--on", "browser", "-o", str(BUILD / "browser.json")], check=True)
    with tempfile.TemporaryDirectory() as folder, emulated_pi(MODELS["4"], Path(folder), counts=True) as pi:
        reached = ["--on", pi.target, "--identity", str(pi.identity), "--known-hosts", str(pi.known_hosts)]
        quick = ["--seconds", "1", "--processes", "1", "--warmup", "5", "--limit", "20"]
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path("build/rigs/cache").resolve())}
        subprocess.run([*bench, *reached, *quick, "-o", str(BUILD / "pi.json")], check=True, env=environment)
    results = [str(BUILD / f"{name}.json") for name in ("local", "browser", "pi")]
    subprocess.run([POCKETSHIP, "report", *results, "-o", str(BUILD / "report.html")], check=True)


if __name__ == "__main__":
    main()
