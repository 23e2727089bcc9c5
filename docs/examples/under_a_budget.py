"""The first recipe that fits a budget: `python under_a_budget.py`.

Recipes are tried from the mildest to the hardest. A limit that is not met is an exception with the stage and the figure
in it, and nothing is written; so is an artifact that computes wrongly.
"""

import exporter
from runtimes.errors import LimitNotMet

RECIPES = ("int8", "int4", "ternary")
MOST_DROP = 0.02


def main():
    """Try them in order, keep the first that fits."""
    for recipe in RECIPES:
        try:
            bundle = exporter.export(
                "digits",
                targets="onnx",
                output="digits-small",
                quantize=recipe,
                max_size="250KB",
                max_drop=MOST_DROP,
                force=True,
            )
        except LimitNotMet as error:
            print(f"{recipe}: {error}")
            continue
        (artifact,) = bundle.manifest.artifacts
        accuracy = bundle.manifest.ledger[-1].accuracy
        print(f"{recipe}: {artifact.size_bytes:,} bytes, {accuracy.metric} {accuracy.value:.1%}")
        return
    raise SystemExit("no recipe fits: allow more bytes, or a larger loss")


if __name__ == "__main__":
    main()
