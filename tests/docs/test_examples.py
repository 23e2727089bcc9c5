"""Each script of docs/examples runs in a fresh folder and prints what it promises."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.docs.printed import ROOT, Document, Place, Step, place_for, run

EXAMPLES = ROOT / "docs" / "examples"
OWN = r"(onnx|tflite) +(original|quantize) +[\d,]+ bytes  accuracy \d+\.\d%\n"
PRINTED = {
    "own_classifier.py": f"({OWN}){{4}}",
    "huggingface_to_web.py": r"\w+\.predict: model\.onnx, \d+ files\n",
    "audio_to_pi.py": r"\S*model\.onnx: pass, no latency, emulated\n",
    "under_a_budget.py": r"int8: .* more than --max-size allows .*\nint4: 2\d\d,\d{3} bytes, accuracy 9[78]\.\d%\n",
    "python_api.py": (
        r"(?:(?:onnx|tflite|coreml): \w+ \[1, 4\], right to a thousandth: True\n){3}"
        r"cpp: Mlp\.run, model\.onnx\npython: Mlp\.run, model\.onnx, model\.tflite\n"
    ),
}
"""name -> what it prints, as a regular expression; what libraries say on stderr stands before it."""
WORDS = {"audio_to_pi.py": ("ssh://pi@raspberrypi",)}
MARKS = {"huggingface_to_web.py": (pytest.mark.browser,), "audio_to_pi.py": (pytest.mark.device,)}


def printed(name: str, place: Place) -> str:
    shutil.copy(EXAMPLES / name, place.folder)
    code, output = run(["python", name, *map(place.real, WORDS.get(name, ()))], place)
    assert code == 0, output
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in PRINTED])
def test_an_example_does_what_it_says(name):
    command = " ".join(["python", name, *WORDS.get(name, ())])
    with place_for(Document([], parts=[Step(command, 0, 0, [])]), bundle=lambda name: Path(os.devnull)) as place:
        output = printed(name, place)
    assert re.search(rf"^(?:{PRINTED[name]})\Z", output, re.MULTILINE), output


def test_every_example_is_run_and_told_of():
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(PRINTED)
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(examples/(\w+\.py)\)", page)) == set(PRINTED)
