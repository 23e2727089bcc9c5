"""WordPiece against Hugging Face's tokenizers: every code point, the conformance file, every option, every refusal."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from exporter.families.minilm import model_folder
from runtimes.errors import BadInput
from runtimes.processing.tokenizers.wordpiece import WordPiece

CONFORMANCE = Path(__file__).resolve().parents[3] / "conformance"
TOKENIZER_JSON = (model_folder() / "tokenizer.json").read_bytes()
MAX_TOKENS = 128


def both(max_tokens: int = MAX_TOKENS, **options: bool | None) -> tuple[WordPiece, Tokenizer]:
    """Ours and theirs, with the same options of the normalizer."""
    value = json.loads(TOKENIZER_JSON)
    value["normalizer"].update(options)
    theirs = Tokenizer.from_str(json.dumps(value))
    theirs.no_padding()
    theirs.enable_truncation(max_tokens)
    return WordPiece.from_tokenizer_json(json.dumps(value).encode(), max_tokens), theirs


OURS, THEIRS = both()
STRINGS = [line.split("\t") for line in (CONFORMANCE / "text.tsv").read_text().splitlines()]


def generator_of(name: str):
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", CONFORMANCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_conformance_file_has_no_difference():
    assert len(STRINGS) >= 2000
    different = [h for h, ids in STRINGS if OURS.tokens(bytes.fromhex(h)) != [int(i) for i in ids.split()]]
    assert different == []


def test_the_conformance_file_is_what_its_generator_writes():
    if unicodedata.unidata_version != "14.0.0":
        pytest.skip("its generator needs Python 3.11's names of characters")
    assert [f"{h}\t{ids}" for h, ids in STRINGS] == list(generator_of("text").lines())


@pytest.mark.slow
def test_the_tables_are_what_their_generator_writes():
    generator = generator_of("unicode_tables")
    assert list(generator.lines()) == generator.PLACE.read_text().splitlines()


@pytest.fixture
def untraced():
    """Off with the tracer of coverage, under which a million code points take ten minutes."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


BLOCK = 0x1000


@pytest.mark.slow
@pytest.mark.matrix(one_in=6)
@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("block", range(0, 0x110000, BLOCK), ids=hex)
def test_every_code_point_is_as_the_library_has_it(block):
    different = []
    for code in (code for code in range(block, block + BLOCK) if not 0xD800 <= code < 0xE000):
        text = f"a{chr(code)}b {chr(code)}"
        if OURS.tokens(text) != THEIRS.encode(text).ids:
            different.append(hex(code))
    assert different == []


@pytest.mark.parametrize(
    "options",
    [
        dict(zip(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), chosen, strict=True))
        for chosen in itertools.product((True, False), (True, False), (True, False, None), (True, False))
    ],
    ids=str,
)
def test_every_option_is_as_the_library_has_it(options):
    ours, theirs = both(**options)
    texts = [bytes.fromhex(h).decode("utf-8", "replace") for h, _ in random.Random(1).sample(STRINGS, 400)]
    assert [t for t in texts if ours.tokens(t) != theirs.encode(t).ids] == []


@settings(max_examples=300)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(["", "[SEP]", " ", "\u0301\u0327"])
)
def test_any_text_is_as_the_library_has_it(text, between):
    joined = between.join(text)
    assert OURS.tokens(joined) == THEIRS.encode(joined).ids


def test_the_normalizer_itself_is_as_the_library_has_it_where_the_vocabulary_would_hide_it():
    """Unknown words are one token, whatever they are made of."""
    theirs = normalizers.BertNormalizer().normalize_str
    for h, _ in STRINGS:
        text = bytes.fromhex(h).decode("utf-8", "replace")
        ours = text
        for step in OURS._steps:
            ours = step(ours)
        assert ours == theirs(text), h


def test_padding_mask_and_types():
    ids, mask, types = both(8)[0].encode("hello world")
    assert ids.tolist() == [101, 7592, 2088, 102, 0, 0, 0, 0]
    assert mask.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert types.tolist() == [0] * 8
    assert {array.dtype.name for array in (ids, mask, types)} == {"int64"}


def test_lone_surrogates_become_replacement_characters():
    ours = both(clean_text=False)[0]
    assert ours.tokens("a\ud800\udfffb") == ours.tokens("a\ufffd\ufffdb")


def test_a_long_text_takes_time_in_proportion():
    assert len(OURS.tokens("word " * 200_000)) == MAX_TOKENS
    assert OURS.tokens("x" * 1_000_000) == [101, 100, 102]


def test_bert_processing_is_read_as_the_template():
    value = json.loads(TOKENIZER_JSON)
    value["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]}
    assert WordPiece.from_tokenizer_json(json.dumps(value).encode(), 8).tokens("hello") == [101, 7592, 102]


def changed(path: str, new: object) -> bytes:
    value = json.loads(TOKENIZER_JSON)
    *folders, last = path.split(".")
    part = value
    for folder in folders:
        part = part[int(folder) if folder.isdigit() else folder]
    part[int(last) if last.isdigit() else last] = new
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "its model is None"),
        (changed("model.type", "BPE"), "its model is 'BPE'"),
        (changed("normalizer", {"type": "NFC"}), "its normalizer is 'NFC'"),
        (changed("normalizer", None), "its normalizer is None"),
        (changed("normalizer.lowercase", "yes"), "lowercase is 'yes'"),
        (changed("normalizer.strip_accents", 3), "lacks a field"),
        (changed("model.max_input_chars_per_word", 0), "lacks a field"),
        (changed("model.continuing_subword_prefix", None), "lacks a field"),
        (changed("pre_tokenizer", {"type": "Whitespace"}), "its pre_tokenizer is 'Whitespace'"),
        (changed("model.vocab", {"a": 1}), "ids are not 0, 1, 2"),
        (changed("model.vocab", {"a": 0, "b\n": 1}), "cannot be a line"),
        (changed("model.vocab", {"a": 0, "\ud800": 1}), "it is not JSON"),
        (changed("model.unk_token", "[NONE]"), "its token unk is '\\[NONE\\]'"),
        (changed("added_tokens", None), "no list of added tokens"),
        (changed("added_tokens.0.content", "[MORE]"), "'\\[MORE\\]' is not in the vocabulary"),
        (changed("added_tokens.0.lstrip", True), "is lstrip"),
        (changed("added_tokens.0.normalized", True), "is normalized"),
        (changed("post_processor", {"type": "ByteLevel"}), "its post_processor is 'ByteLevel'"),
        (changed("post_processor", {"type": "BertProcessing"}), "names no tokens"),
        (changed("post_processor.single", [{"Sequence": {"id": "A", "type_id": 0}}]), "template for one text"),
        (changed("padding", {"direction": "Left", "pad_token": "[PAD]", "pad_id": 0}), "its padding"),
    ],
)
def test_what_is_not_described_is_refused(data, said):
    with pytest.raises(BadInput, match=said) as refused:
        WordPiece.from_tokenizer_json(data, MAX_TOKENS)
    assert refused.value.where == "tokenizer.json" and refused.value.remedy


def test_no_room_for_a_text_is_refused():
    with pytest.raises(BadInput, match="no room"):
        WordPiece.from_tokenizer_json(TOKENIZER_JSON, 2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed("padding", [1]), "not to the right"),
        (changed("truncation", {"direction": "Left", "max_length": 128}), "cut long texts on the right"),
        (changed("truncation", [1]), "cut long texts on the right"),
        (changed("padding.pad_token", [1]), "its padding is by"),
        (changed("padding.pad_type_id", 1), "pad_type_id is 1"),
        (changed("model.vocab", {"a": 0, "b": "x"}), "ids are not 0, 1, 2"),
        (changed("model.vocab", {"a": 0, "b": True}), "ids are not 0, 1, 2"),
        (changed("added_tokens.0.content", [1]), "is not in the vocabulary"),
        (changed("model.unk_token", ["a"]), "its token unk"),
        (changed("normalizer.strip_accents", 1), "lacks a field"),
        (changed("post_processor.single", 7), "template for one text"),
        (changed("post_processor.single.1.Sequence.id", "B"), "template for one text"),
        (changed("post_processor.special_tokens.[CLS].ids", [103]), "'\\[CLS\\]' is not the vocabulary's"),
        (changed("post_processor.special_tokens.[CLS].ids", [101, 103]), "'\\[CLS\\]' is not the vocabulary's"),
        (changed("post_processor.special_tokens", {}), "'\\[CLS\\]' is not the vocabulary's"),
        (
            changed("post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 101]}),
            "'\\[SEP\\]' is not the vocabulary's",
        ),
    ],
)
def test_what_would_give_other_ids_or_crash_is_refused(data, said):
    with pytest.raises(BadInput, match=said):
        WordPiece.from_tokenizer_json(data, MAX_TOKENS)
