"""Read YAML as plain data: lists, mappings, texts and numbers; no aliases, which make gigabytes of lines, no tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtimes.errors import BadInput, NotInstalled
from runtimes.files import read_regular

MOST_BYTES = 1 << 16
"""A recipe has some hundred bytes, a fleet of a hundred boards ten thousand; a byte takes a microsecond or ten."""
DEEPEST = 16
LONGEST_WORD = 1000


def read_yaml(path: Path, what: str, remedy: str) -> Any:
    """What a file of YAML holds; `what` and `remedy` are for the refusal.

    Raises BadInput for a file that is missing or no plain data, and NotInstalled without PyYAML.
    """
    try:
        import yaml
    except ImportError as error:
        raise NotInstalled(
            "pyyaml is not installed", where=str(path), remedy="pip install 'pocketship[bench]'"
        ) from error

    class Plain(yaml.SafeLoader):
        """Without dates, which stay text, and with all bounds checked before a value is made."""

        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
            for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
                raise ValueError(f"line {line}: write it out, *names and &names are not read")
            if event.tag is not None:
                raise ValueError(f"line {line}: !tags are not read")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_WORD:
                raise ValueError(f"line {line}: a word of {len(event.value)} characters")
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"line {line}: nested more than {DEEPEST} deep")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_yaml_int(self, node: Any) -> int:
            value: int = super().construct_yaml_int(node)
            if not -(1 << 63) <= value < 1 << 63:
                raise ValueError(f"line {node.start_mark.line + 1}: {node.value:.20}... has more than 64 bits")
            return value

    Plain.add_constructor("tag:yaml.org,2002:int", Plain.construct_yaml_int)

    try:
        loader = Plain(read_regular(path, MOST_BYTES).decode("utf-8"))
        return loader.get_single_data()
    except OSError as error:
        raise BadInput(f"cannot read the {what} ({error.strerror})", where=str(path), remedy=remedy) from error
    except (ValueError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise BadInput(f"cannot read the {what} ({cause:.160})", where=str(path), remedy=remedy) from error
