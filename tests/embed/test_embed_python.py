"""The Python library: it computes what the original does from raw inputs, and its self-test can fail."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import json, sys, numpy as np
sys.path.insert(0, sys.argv[1])
module = __import__(sys.argv[2])
"""


def ask(library, name: str, code: str):
    """What `code` prints as JSON, in a process that knows the library and nothing of this project."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT + code, str(library), name], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "rnet", "basicmotions", "minilm", "hearer", "cnn", "two_inputs"])
@pytest.mark.parametrize("artifact", ["onnx", "tflite"])
def test_the_self_test_finds_the_error_that_verify_finds(name, artifact, library_of, error_in_python):
    code = f"""
model = [v for v in vars(module).values() if isinstance(v, type) and hasattr(v, "self_test")][0]({artifact!r})
found = model.self_test()
print(json.dumps([found.max_abs_error, found.passed, found.samples]))
"""
    error, passed, samples = ask(library_of(name, "python"), name, code)
    assert passed and samples >= 3
    assert error == pytest.approx(error_in_python(name, artifact), rel=0.2, abs=1e-9)


def test_a_golden_value_that_was_changed_fails_the_self_test(library_copy):
    library = library_copy("digits", "python")
    path = library / "digits/data/golden.bin"
    content = bytearray(path.read_bytes())
    content[-2] ^= 0x40  # of the last logit
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-m", "digits"], cwd=library, capture_output=True, text=True)
    assert done.returncode == 1 and "FAIL" in done.stdout


def test_a_score_beside_boxes_that_was_changed_fails_though_it_is_within_the_outputs_own_tolerance(library_copy):
    library = library_copy("detector", "python")
    path = library / "detector/data/golden.bin"
    content = bytearray(path.read_bytes())
    (score,) = np.frombuffer(content[-4:], "<f4")
    content[-4:] = np.array([score + 0.01], "<f4").tobytes()
    path.write_bytes(content)
    code = """
found = module.Detector().self_test()
print(json.dumps([found.passed, found.wrong, found.errors["found"] < found.tolerances["found"]]))
"""
    assert ask(library, "detector", code) == [False, ["found"], True]
    done = subprocess.run([sys.executable, "-m", "detector"], cwd=library, capture_output=True, text=True)
    assert done.returncode == 1 and "WRONG, in whole or in a column or channel" in done.stdout


def test_nan_never_passes(library_copy):
    library = library_copy("digits", "python")
    path = library / "digits/data/golden.bin"
    content = bytearray(path.read_bytes())
    content[-4:] = np.array([np.nan], "<f4").tobytes()
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-m", "digits"], cwd=library, capture_output=True, text=True)
    assert done.returncode == 1 and "inf" in done.stdout


def test_digits_are_read_from_pictures(library_of):
    from sklearn.datasets import load_digits

    code = """
from sklearn.datasets import load_digits
model = module.Digits()
data = load_digits()
right = 0
for image, label in zip(data.images[:50], data.target[:50]):
    pixels = np.repeat((image * 255 / 16).round().astype(np.uint8)[:, :, None], 3, axis=2)
    right += model.predict(pixels).label == str(label)
print(right)
"""
    assert load_digits().images.shape[1:] == (8, 8)
    assert ask(library_of("digits", "python"), "digits", code) >= 48


def test_a_sentence_becomes_the_vector_that_sentence_transformers_gives(library_of, bundle_of):
    import onnxruntime
    from tokenizers import Tokenizer

    text = "Où est la gare? [SEP] 東京 naïve 👍"
    code = f"print(json.dumps(module.Minilm('onnx').embed({text!r}).tolist()))"
    found = np.array(ask(library_of("minilm", "python"), "minilm", code))
    tokenizer = Tokenizer.from_file(str(bundle_of("minilm") / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    encoded = tokenizer.encode(text)
    feeds = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    session = onnxruntime.InferenceSession(bundle_of("minilm") / "model.onnx")
    (want,) = session.run(None, {name: np.array([ids], np.int64) for name, ids in feeds.items()})
    np.testing.assert_allclose(found, want[0], atol=1e-5)


def test_labels_are_what_they_were_and_not_code(library_of, nasty):
    code = """
found = module.Cnn().predict(np.zeros((50, 60, 3), np.uint8))
print(json.dumps([list(found.labels), found.label in found.labels, len(found.scores)]))
"""
    assert ask(library_of("cnn", "python"), "cnn", code) == [list(nasty), True, 5]


def test_a_sound_becomes_scores_as_transformers_would_prepare_it(library_of, bundle_of):
    import onnxruntime
    from transformers import audio_utils

    sound = (np.random.default_rng(0).standard_normal(3000) * 0.1).astype(np.float32)
    code = f"print(json.dumps(module.Hearer().predict(np.array({sound.tolist()}, np.float32)).scores.tolist()))"
    found = ask(library_of("hearer", "python"), "hearer", code)
    mel = audio_utils.spectrogram(
        sound[:2000], audio_utils.window_function(160, "hann"), 160, 80, 256, power=2.0, center=True, log_mel="log",
        mel_filters=audio_utils.mel_filter_bank(129, 16, 0.0, 4000.0, 8000), mel_floor=1e-10,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(bundle_of("hearer") / "model.onnx")
    (want,) = session.run(None, {"mel": ((mel + 4) / 4).astype(np.float32)[None, None, :, :26]})
    np.testing.assert_allclose(found, want[0], atol=1e-5)


def test_wrong_inputs_are_refused(library_of):
    code = """
model = module.Digits()
said = []
for wrong in (
    lambda: model.run(np.zeros((1, 3, 32, 31), np.float32)),
    lambda: module.Digits("coreml"),
    lambda: model.predict(np.zeros((3, 3))),
):
    try:
        wrong()
    except Exception as error:
        said.append(str(error))
print(json.dumps(said))
"""
    shape, missing, picture = ask(library_of("digits", "python"), "digits", code)
    assert "the model takes [1, 3, 32, 32]" in shape and "no model in format 'coreml'" in missing
    assert "is no picture" in picture


def test_a_model_without_a_preprocessor_is_run_with_its_tensors(library_of):
    code = """
ones = np.ones((3, 6), np.float32)
print(json.dumps(module.TwoInputs().run(a=ones, b=ones).difference.shape))
"""
    assert ask(library_of("two_inputs", "python"), "two_inputs", code) == [3, 5]
