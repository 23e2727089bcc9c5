"""What the site has beside the Markdown of docs/: reference pages made from the code; links that lead out of docs/."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)]*)?\)")
SCRIPT = re.compile(r"\(examples/(\w+\.py)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/schemas.md", content=schemas_page()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Blocks that tests leave out look like others; a link out of docs/ names the file; examples show their code."""
    markdown = markdown.replace("```console notest", "```console")
    if page.file.src_uri == "examples.md":
        for name in SCRIPT.findall(markdown):
            code = (DOCS / "examples" / name).read_text(encoding="utf-8")
            markdown += f"\n## {name}\n\n```python\n{code}```\n"
    return LINK.sub(lambda link: _within(link, page.file.src_uri), markdown)


def _within(link: re.Match[str], source: str) -> str:
    """A link that stays in docs/ as it is; for any other the name of its file, which must be there."""
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), link[2]))
    if target.startswith("docs/"):
        return link[0]
    if not (ROOT / target).exists():
        raise PluginError(f"{source}: the link to {link[2]} leads nowhere")
    return f"{link[1]} (`{target}`)"


# Commands ---------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Each command with what it takes, as the command line itself declares it."""
    sys.path.insert(0, str(ROOT))
    import typer

    from exporter.cli import app

    commands = typer.main.get_command(app).commands
    lines = ["# Commands", "", "`pocketship COMMAND --help` prints the same. Every command takes `--debug`, too.", ""]
    for name, command in sorted(commands.items()):
        lines += [f"## {name}", "", str(command.help).strip(), "", *_usage(name, command.params), ""]
    return "\n".join(lines)


def _usage(name: str, params: list[Any]) -> Iterator[str]:
    arguments = [p for p in params if p.param_type_name == "argument"]
    options = [p for p in params if p.param_type_name == "option" and p.name != "help"]
    words = "".join(f" {_metavar(p)}" for p in arguments)
    yield f"```console\n$ pocketship {name}{words}{' [OPTIONS]' if options else ''}\n```\n"
    if arguments:
        yield "| argument | what it is |\n|---|---|"
        yield from (f"| `{_metavar(p)}` | {_text(p.help)} |" for p in arguments)
        yield ""
    if options:
        yield "| option | what it does | default |\n|---|---|---|"
        for p in options:
            names = ", ".join(f"`{word}`" for word in (*p.opts, *p.secondary_opts))
            yield f"| {names} | {_text(p.help)} | {_default(p)} |"


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper()) + ("..." if param.nargs == -1 and not param.metavar else "")


def _default(param: Any) -> str:
    if param.default in (None, False, [], ()) or callable(param.default):
        return ""
    value = ", ".join(map(str, param.default)) if isinstance(param.default, list | tuple) else str(param.default)
    return f"`{value}`"


def _text(text: str | None) -> str:
    """Text of a table's cell, with nothing that Markdown would read."""
    return re.sub(r"([|<*_\[])", r"\\\1", text or "")


# JSON Schemas -----------------------------------------------------------------------------------------------------

SCHEMAS = {
    "manifest": ("manifest.json", "manifest.md"),
    "preprocessor": ("preprocessor.json", "preprocessor.md"),
    "results": ("results.json", "results.md"),
}


def schemas_page() -> str:
    """The fields of each JSON Schema of docs/, by object."""
    lines = ["# JSON Schemas", "", "`pocketship schema` prints them (`--preprocessor`, `--results`).", ""]
    for name, (file, page) in SCHEMAS.items():
        schema = json.loads((DOCS / f"{name}.schema.json").read_text(encoding="utf-8"))
        lines += [f"## {file}", "", f"[{name}.schema.json](../{name}.schema.json); [what it means](../{page}).", ""]
        lines += _object(file, schema)
        for title, definition in schema.get("$defs", {}).items():
            lines += [f"### {title} ({file})", "", *_object(title, definition)]
    return "\n".join(lines)


def _object(title: str, schema: Mapping[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield "| field | type | must be there |\n|---|---|---|"
    for name, field in schema.get("properties", {}).items():
        yield f"| `{name}` | {_type(field)} | {'yes' if name in required else ''} |"
    yield ""


def _type(field: Mapping[str, Any]) -> str:
    """A schema in words: the name of an object, a constant, a list of something, one of several."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(map(_type, options))
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}" if isinstance(field.get("items"), dict) else "list"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"by name: {_type(field['additionalProperties'])}"
    return str(field.get("type", "anything"))
