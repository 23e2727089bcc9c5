"""Files of others: what is no regular file, too large, or JSON that could not be written again is refused at once."""

from __future__ import annotations

import json
import os

import pytest

from runtimes.files import parse_json, read_regular


def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)


def test_a_folder_a_socket_and_nothing(tmp_path):
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"1,099,511,627,776 bytes are more than 16,777,216"):
        read_regular(tmp_path / "sparse")


@pytest.mark.parametrize("value", [{"a": [1, -2.5, True, None, "é\U0001f600", 2**63, -(2**63)]}, 1e308, "", [[]] * 9])
def test_what_json_writes_is_read(value):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("NaN", "NaN is no JSON"),
        ('{"a": [{"b": 1, "b": 1}]}', "an object has two equal keys"),
        ("1e999", "1e999 is infinite"),
        (".5", "Expecting value"),
        ("-123456789.0E+400", r"-123456789.0E\+400 is infinite"),
        ("9" * 400, r"99999999999999999999\.\.\. has more than 64 bits"),
        ("9" * 5000, "has more than 64 bits"),
        ("18446744073709551616", "has more than 64 bits"),
        (r'["\ud800"]', "surrogates not allowed"),
        ("[" * 65 + "]" * 65, "nested more than 64 deep"),
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 100_000, "nested more than 64 deep"),
        ("[" + "[]," * (1 << 20) + "0]", "more than 1,048,576 lists and objects"),
        ("\x00", "Expecting value"),
    ],
)
def test_what_could_not_be_written_again_is_refused(text, cause):
    with pytest.raises(ValueError, match=cause):
        parse_json(text.encode())


def test_bytes_that_are_no_text():
    with pytest.raises(ValueError, match="can't decode"):
        parse_json(b'"\xff"')
