"""The commands `verify`, `inspect` and `schema`: mounted by exporter/cli.py; nothing heavy is imported before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import Formats, in_group
from benchmarks.commands.words import parse_formats
from benchmarks.console import out, print_json, say_next
from exporter.commands.common_options import JsonOption, QuietOption, say_unchecked
from exporter.commands.screen import print_checks, print_not_proven, print_report
from runtimes.errors import BadInput, NotInstalled, NotRun, ParityFailed

if TYPE_CHECKING:
    from runtimes.verify import Check

app = typer.Typer()


@app.command(**in_group("Look at it", "pocketship verify minilm-bundle --target onnx"))
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="Refuse a bundle that the owner of this key did not sign.")
    ] = None,
    target: Formats = "all",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 3 where a column agrees but nothing proves it, with 6 where a runtime is missing.",
        ),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a bundle again: every file, what it says, and every artifact's parity in its own runtime here."""
    from exporter.delivery.signature import check_claimed
    from runtimes.bundle import read_manifest
    from runtimes.verify import verify as run

    formats = parse_formats(target)
    manifest = read_manifest(bundle)
    if formats and not any(artifact.format in formats for artifact in manifest.artifacts):
        there = ", ".join(artifact.format for artifact in manifest.artifacts)
        raise BadInput(f"no artifact is {target}", where="--target", remedy=f"the bundle has {there}")
    say_unchecked(None, check_claimed(bundle, public_key))
    checks = run(bundle, manifest, formats)
    if as_json:
        print_json({"path": str(bundle), "checks": checks})
    elif not quiet:
        listed = {artifact.path for artifact in manifest.artifacts} | {file.path for file in manifest.files}
        print_checks(checks, listed)
        print_not_proven({check.path: check.parity for check in checks if check.parity})
        for check in checks:
            if check.not_run:
                out().print(f"not run: {check.path}: {check.not_run}", soft_wrap=True)
    _raise_verdict(checks, str(bundle), strict)
    if not (as_json or quiet):
        say_next("measure it", "bench", bundle)


def _raise_verdict(checks: Sequence[Check], bundle: str, strict: bool) -> None:
    """Raise what verify found: what ran decides.

    Raises ParityFailed for a fault, and where `strict` for what is not proven, either; NotRun where no artifact could
    be run, and where `strict` for a single one.
    """
    faults = [check.fault for check in checks if check.fault]
    if faults:
        raise ParityFailed("; ".join(faults), where=bundle, remedy="do not ship it, export it again")
    doubtful = [
        f"{check.path}: {line}" for check in checks if check.parity for line in check.parity.not_proven if strict
    ]
    if doubtful:
        raise ParityFailed(
            f"not proven: {'; '.join(doubtful)}",
            where=bundle,
            remedy="export it with inputs that move it, or leave out --strict",
        )
    not_run = [f"{check.path}: {check.not_run}" for check in checks if check.not_run]
    if not_run and not any(check.parity for check in checks):
        raise NotRun(f"nothing could be run here, so nothing is proven: {'; '.join(not_run)}", where=bundle)
    if not_run and strict:
        raise NotRun(f"not run: {'; '.join(not_run)}", where=bundle, remedy="or leave out --strict")


@app.command(**in_group("Look at it", "pocketship inspect minilm-bundle/model.onnx --tensors 20"))
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle folder or an artifact.")],
    tensors: Annotated[int, typer.Option(help="How many of the largest tensors to list.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Print an artifact's signature, its operations, its size by tensor, and what its low-bit weights really run on."""
    from exporter.inspection.kernels import kernels_of, to_json
    from exporter.inspection.report import inspect as read
    from runtimes.bundle import read_manifest

    if not path.exists():
        raise BadInput("no such bundle or artifact", where=str(path), remedy="check the path")
    is_bundle = path.is_dir() and path.suffix != ".mlpackage"
    paths = [path / artifact.path for artifact in read_manifest(path).artifacts] if is_bundle else [path]
    reports, not_read = [], {}
    for artifact in paths:
        try:
            reports.append((read(artifact), kernels_of(artifact)))
        except NotInstalled as error:  # this machine lacks what reads one format: the others are read all the same
            if not is_bundle:
                raise
            not_read[artifact.name] = f"{error.what}; {error.remedy}"
    if not reports:
        lacking = "; ".join(f"{name}: {reason}" for name, reason in not_read.items())
        raise NotInstalled(f"nothing can be read here: {lacking}", where=str(path))
    if as_json:
        rows = [{**asdict(report), "kernels": to_json(found)} for report, found in reports]
        print_json([*rows, *({"path": str(path / name), "not_read": why} for name, why in not_read.items())])
        return
    for report, found in reports:
        print_report(report, found, tensors)
    for name, why in not_read.items():
        out().print(f"not read: {name}: {why}", soft_wrap=True)
    if is_bundle:
        say_next("prove it again here", "verify", path)


@app.command(**in_group("Look at it", "pocketship schema --results"))
def schema(
    results: Annotated[bool, typer.Option("--results", help="Of a file of bench results instead.")] = False,
    preprocessor: Annotated[bool, typer.Option("--preprocessor", help="Of preprocessor.json instead.")] = False,
) -> None:
    """Print the JSON Schema of manifest.json, of a file of bench results, or of preprocessor.json."""
    from benchmarks.results.result import result_schema
    from exporter.bundle.schema import manifest_schema, preprocessor_schema

    print_json(result_schema() if results else preprocessor_schema() if preprocessor else manifest_schema())
