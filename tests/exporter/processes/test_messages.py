"""A message is there whole or not at all, and is waited for."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from exporter.processes.messages import POLL_S, is_posted, post, receive


def test_a_message_is_waited_for_and_read_whole(tmp_path):
    place, message = tmp_path / "message.json", {"settings": {"opset": 20}, "names": ["é"]}
    found: list = []
    reader = threading.Thread(target=lambda: found.append(receive(place)))
    reader.start()
    time.sleep(3 * POLL_S)
    assert not is_posted(place) and found == []
    post(place, message)
    reader.join(timeout=10)
    assert found == [message] and is_posted(place)
    assert [p.name for p in tmp_path.iterdir()] == ["message.json"]


def test_a_message_that_is_being_written_is_not_there_yet(tmp_path, monkeypatch):
    place, seen = tmp_path / "message.json", []
    rename = Path.rename

    def renamed(self, target):
        seen.append((is_posted(place), json.loads(self.read_text())))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    post(place, [1, 2])
    assert seen == [(False, [1, 2])] and receive(place) == [1, 2]


def test_a_message_may_say_nothing_and_come_twice(tmp_path):
    post(tmp_path / "stop")
    post(tmp_path / "stop")
    assert is_posted(tmp_path / "stop") and (tmp_path / "stop").read_bytes() == b""
