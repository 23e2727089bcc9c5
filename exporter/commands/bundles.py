"""The commands `verify`, `inspect` and `schema`: mounted by exporter/cli.py; nothing heavy is imported before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.console import in_words, out, print_json
from exporter.commands.common_options import JsonOption, QuietOption
from exporter.commands.screen import print_report
from runtimes.errors import BadInput, ParityFailed

app = typer.Typer()


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="Refuse a bundle that the owner of this key did not sign.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a bundle again: every file's hash, and every artifact's parity in its own runtime on this machine."""
    from runtimes.bundle import read_manifest
    from runtimes.verify import verify as run

    manifest = read_manifest(bundle)
    if public_key is not None:
        from exporter.delivery.signature import check_signature

        check_signature(bundle, public_key)
    checks = run(bundle, manifest)
    if as_json:
        print_json({"path": str(bundle), "checks": checks})
    elif not quiet:
        from rich.table import Table

        table = Table("file", "hash", "parity", "max abs error", "computed by", box=None, pad_edge=False)
        for check in checks:
            proof = check.parity
            table.add_row(
                check.path,
                "ok" if check.intact else "CHANGED",
                "-" if not check.is_artifact else proof.verdict if proof else "not run",
                f"{proof.max_abs_error:.1e}" if proof else "",
                in_words(proof.executed_by) if proof else "",
            )
        out().print(table)
    faults = [check.fault for check in checks if check.fault]
    if faults:
        raise ParityFailed("; ".join(faults), where=str(bundle), remedy="do not ship it, export it again")
    not_run = [check for check in checks if check.not_run]
    if not_run:
        names = ", ".join(check.path for check in not_run)
        raise BadInput(f"{names} could not be run here: {not_run[0].not_run}", where=str(bundle))


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle folder or an artifact.")],
    tensors: Annotated[int, typer.Option(help="How many of the largest tensors to list.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Print an artifact's signature, its operations, its size by tensor, and what its low-bit weights really run on."""
    from exporter.inspection.kernels import kernels_of, to_json
    from exporter.inspection.report import inspect as read
    from runtimes.bundle import read_manifest

    is_bundle = path.is_dir() and path.suffix != ".mlpackage"
    paths = [path / artifact.path for artifact in read_manifest(path).artifacts] if is_bundle else [path]
    reports = [(read(p), kernels_of(p)) for p in paths]
    if as_json:
        print_json([{**asdict(report), "kernels": to_json(found)} for report, found in reports])
        return
    for report, found in reports:
        print_report(report, found, tensors)


@app.command()
def schema(
    results: Annotated[bool, typer.Option("--results", help="Of a file of bench results instead.")] = False,
    preprocessor: Annotated[bool, typer.Option("--preprocessor", help="Of preprocessor.json instead.")] = False,
) -> None:
    """Print the JSON Schema of manifest.json, of a file of bench results, or of preprocessor.json."""
    from benchmarks.results.result import result_schema
    from exporter.bundle.schema import manifest_schema, preprocessor_schema

    print_json(result_schema() if results else preprocessor_schema() if preprocessor else manifest_schema())
