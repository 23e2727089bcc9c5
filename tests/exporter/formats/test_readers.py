"""Each format's reader, by hand: its sparse encoding, and what every format answers alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exporter.formats import coreml_file, onnx_file, tflite_file
from exporter.formats.contents import KINDS
from exporter.formats.readers import READERS
from exporter.lowering.target import TARGETS
from runtimes.types import FORMATS

EXAMPLE = np.array([[0, 0, 5, 0], [0, 0, 0, 0], [1, 2, 0, 3]], np.float32)


def test_every_format_has_a_reader_that_knows_every_kind_of_layer():
    assert tuple(READERS) == tuple(TARGETS) == FORMATS
    assert all(tuple(reader.readers_of_weights) == KINDS for reader in READERS.values())


def test_every_snippet_loads_its_file():
    for target, reader in READERS.items():
        for low_bit in (False, True):
            assert f'"{TARGETS[target].file_name}"' in reader.snippet(low_bit)
            assert reader.snippet(low_bit).startswith("```python\n") and reader.snippet(low_bit).endswith("```")
    exact = onnx_file.snippet(True)
    assert 'options.add_session_config_entry("session.' in exact and ', "1")  # where x86-64 has no VNNI: int8' in exact
    assert "options" not in onnx_file.snippet(False)


def test_onnx_counts_a_value_and_eight_bytes_of_index():
    assert onnx_file.sparse_bytes(EXAMPLE) == 4 * (4 + 8)
    assert onnx_file.sparse_bytes(EXAMPLE.astype(np.int8)) == 4 * (1 + 8)


def test_tflite_counts_segments_indices_and_values():
    assert tflite_file.sparse_bytes(EXAMPLE) == 4 * 4 + 4 * 1 + 4 * 1  # values, uint8 indices, 3 + 1 uint8 segments
    wide = np.ones((2, 300), np.float32)
    assert tflite_file.sparse_bytes(wide) == 600 * 4 + 600 * 2 + 3 * 2  # 299 and 600 need uint16
    longer = np.ones((1, 70_000), np.int8)
    assert tflite_file.sparse_bytes(longer) == 70_000 * (1 + 4) + 2 * 4
    filters = np.zeros((8, 3, 3, 16), np.float32)  # OHWI: one row a position of each filter
    filters[0, 0, 0, :2] = 1
    assert tflite_file.sparse_bytes(filters) == 2 * (4 + 1) + (8 * 3 * 3 + 1)


def test_tflite_indices_grow_at_the_type_s_limit():
    assert (
        tflite_file.sparse_bytes(np.ones((1, 256), np.int8)) == 256 * 2 + 2 * 2
    )  # index 255 fits, segment 256 does not
    assert tflite_file.sparse_bytes(np.ones((1, 257), np.int8)) == 257 * 3 + 2 * 2


def test_coreml_counts_a_bit_an_element_and_the_values():
    assert coreml_file.sparse_bytes(EXAMPLE) == 2 + 4 * 4  # 12 bits in 2 bytes
    assert coreml_file.sparse_bytes(EXAMPLE.astype(np.float16)) == 2 + 4 * 2


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4), elements=st.sampled_from([0.0, 1.0])))
def test_sparse_never_counts_less_than_the_values_and_grows_with_them(values):
    nonzero = int(np.count_nonzero(values))
    for encoded in (reader.sparse_bytes for reader in READERS.values()):
        assert encoded(values) >= 4 * nonzero
        assert encoded(np.ones_like(values)) >= encoded(values) >= encoded(np.zeros_like(values))
