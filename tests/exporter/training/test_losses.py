"""The loss on labels: which output it takes, and as what."""

from __future__ import annotations

import torch

from exporter.training.losses import as_logits, class_output


def test_probabilities_become_their_logarithms_and_softmax_gives_them_back():
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.0, 5.0]])
    torch.testing.assert_close(as_logits(logits.softmax(1)), logits.log_softmax(1))
    assert as_logits(logits) is logits and as_logits(logits.abs()).equal(logits.abs())


def test_the_class_output_is_the_one_with_a_column_a_class():
    outputs = {"box": torch.zeros(2, 4), "other": torch.zeros(2, 3), "logits": torch.zeros(2, 3)}
    assert class_output(outputs, ("a", "b", "c")) == "logits"
    assert class_output(outputs, ("a", "b", "c", "d")) == "box"
    assert class_output(outputs, ("a", "b")) is None and class_output(outputs, ()) is None
