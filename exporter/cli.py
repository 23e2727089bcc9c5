"""The command line: reads options, calls one function a command, prints tables; imports nothing heavy before that."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from benchmarks.commands.accuracy import app as evaluating
from benchmarks.commands.bench import app as benching
from benchmarks.commands.report import app as reporting
from benchmarks.console import in_words, out, print_json
from exporter.commands.delivery import app as delivering
from exporter.commands.embedding import app as embedding
from exporter.commands.screen import Progress, print_bundle, print_layers, print_plan, print_report
from exporter.commands.sealing import app as sealing
from exporter.commands.suite import app as running
from runtimes.errors import BadInput, ParityFailed, PocketshipError

INTERRUPTED = 130
TERMINATED = 143
USAGE_ERRORS: type[Any] = typer.BadParameter.__bases__[0]
"""By this the parser reports a wrong command line; typer brings a click of its own and does not export it by name."""

app = typer.Typer(
    name="pocketship",
    help="Take a compact PyTorch model to phones and boards: ONNX, TFLite, Core ML, each proven equal to the original.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (evaluating, benching, reporting, running, embedding, delivering, sealing):
    app.add_typer(commands)


@app.callback()
def context(context: typer.Context) -> None:
    """Hand the measuring commands what only the exporter can find out."""

    def kernels_of(path: Path) -> Any:
        from exporter.inspection.kernels import kernels_of as find

        return find(path)

    context.obj = kernels_of


TargetOption = Annotated[
    list[str],
    typer.Option("--target", "--format", "-t", help="onnx, tflite, coreml or all; repeat it or separate by commas."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def main() -> NoReturn:
    """Run the command line; every error a user can act on is one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        code = app(standalone_mode=False) or 0  # typer catches Ctrl-C itself and hands back 130
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except PocketshipError as error:
        if debug:
            _print_debug(error)
        print(f"pocketship: {error}", file=sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("pocketship: interrupted; a bundle is written whole or not at all", file=sys.stderr)
        code = INTERRUPTED
    except Terminated:
        print("pocketship: terminated; a bundle is written whole or not at all", file=sys.stderr)
        code = TERMINATED
    except USAGE_ERRORS as error:
        print(f"pocketship: {error.format_message().rstrip('.')}; see pocketship --help", file=sys.stderr)
        code = BadInput.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output left: nobody to tell
        code = 1
    except Exception as error:
        if debug:
            raise
        print(
            f"pocketship: internal error, {type(error).__name__}: {' '.join(str(error).split())}; "
            "run it again with --debug and report what it prints",
            file=sys.stderr,
        )
        code = PocketshipError.exit_code
    for number in (signal.SIGINT, signal.SIGTERM):  # too late to interrupt anything but Python's own exit handlers
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


class Terminated(SystemExit):
    """SIGTERM: leave through every clean-up."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


def _print_debug(error: PocketshipError) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)
    if error.log_tail:
        print(error.log_tail, file=sys.stderr)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A zoo name (pocketship zoo), a Hugging Face folder or org/name, timm:NAME, FILE.py:FACTORY, FILE.pt2."
        ),
    ],
    target: TargetOption = ["all"],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write; by default NAME-bundle.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task of a Hugging Face model, if not its own.")] = None,
    weights: Annotated[str | None, typer.Option(help="A safetensors file for timm:NAME or FILE.py:FACTORY.")] = None,
    preprocessor: Annotated[
        Path | None, typer.Option(help="How inputs are made and outputs read: a file as docs/preprocessor.md has it.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset, 18 to 23; by default 20, or what low-bit weights need.")
    ] = None,
    min_ios: Annotated[
        int | None,
        typer.Option(help="Least iOS version for Core ML, 15 to 18; by default 16, or what low-bit weights need."),
    ] = None,
    coreml_precision: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    input_shape: Annotated[list[str], typer.Option(help="Shape of an input, as name=1,3,224,224; repeat it.")] = [],  # noqa: B006
    dynamic: Annotated[list[str], typer.Option(help="An axis of any length, as name:axis; repeat it.")] = [],  # noqa: B006
    atol: Annotated[
        float | None, typer.Option(help="Largest absolute error; by default 1e-4 (fp16: 1e-2) of the largest output.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a Hugging Face model run its own code.")
    ] = False,
    prune: Annotated[
        str | None,
        typer.Option(help="Prune: 0.8 (the smallest weights), 2:4 (of each four), structured:0.5 (half the FLOPs)."),
    ] = None,
    low_rank: Annotated[
        str | None, typer.Option(help="Factor linear layers: 3 (PELA's ratio), or fwsvd:3 (weighted by Fisher).")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8, int8-dynamic, int8-static, int8-weights, int4 or ternary.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML file with the passes in order (docs/recipes.md).")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A task, a folder of arrays or FILE.py:FUNCTION; a zoo model has a task of its own."),
    ] = None,
    max_drop: Annotated[str | None, typer.Option(help="Refuse a larger loss of the task's metric, as 1%.")] = None,
    max_size: Annotated[str | None, typer.Option(help="Refuse a larger artifact, as 3MB.")] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Refuse less speed-up over the original, as 1.5, on this machine.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Score and time each stage of a recipe, for its report.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of training and sampling.")] = 0,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="Sign the bundle with this key (pocketship keygen).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Trace and check every target, write nothing.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export a model to ONNX, TFLite and Core ML, prove each file equal to it, and write a bundle."""
    from benchmarks.commands.words import parse_bytes, parse_percent
    from exporter import pipeline
    from exporter.compression.recipe import recipe_of
    from exporter.stages.options import Options, parse_dynamic, parse_shapes, parse_targets

    options = Options(
        targets=parse_targets(target),
        output=output,
        preprocessor=preprocessor,
        sign=sign,
        task=task,
        weights=weights,
        opset=opset,
        min_ios=min_ios,
        coreml_precision=coreml_precision,
        input_shapes=parse_shapes(input_shape),
        dynamic=parse_dynamic(dynamic),
        atol=atol,
        trust_remote_code=trust_remote_code,
        force=force,
        recipe=recipe_of(recipe, prune, low_rank, quantize),
        data=data,
        seed=seed,
        measure=measure,
        max_drop=None if max_drop is None else parse_percent(max_drop),
        max_size_bytes=None if max_size is None else parse_bytes(max_size),
        min_speedup=min_speedup,
    )
    with Progress(quiet) as shown:
        if dry_run:
            prepared = pipeline.plan(source, options, on_stage=shown.stage)
        else:
            bundle = pipeline.export_with(source, options, on_stage=shown.stage, on_progress=shown.progress)
    if dry_run:
        print_plan(prepared, options.targets, as_json, quiet)
        return
    if as_json:
        print_json({"path": str(bundle.path), **asdict(bundle.manifest)})
    elif not quiet:
        print_bundle(bundle.manifest, bundle.path)


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
def sensitivity(
    source: Annotated[str, typer.Argument(help="A model, as for export.")],
    data: Annotated[str | None, typer.Option(help="A task, as for export, whose calibration samples are run.")] = None,
    bits: Annotated[str, typer.Option(help="The numbers of bits to try: some of 8,4,2.")] = "8,4,2",
    plot: Annotated[Path | None, typer.Option(help="Write the plot to this .png file.")] = None,
    task: Annotated[str | None, typer.Option(help="The task of a Hugging Face model, if not its own.")] = None,
    weights: Annotated[str | None, typer.Option(help="A safetensors file for timm:NAME or FILE.py:FACTORY.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let a Hugging Face model run its own code.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print how much each layer alone, in few bits, changes the outputs: which can bear 2 bits, and which cannot."""
    from exporter.commands.layers import check_plot, draw_layers, layers_of, parse_bits
    from exporter.families import ZOO

    widths = parse_bits(bits)
    if plot:
        check_plot(plot)
    own = ZOO[source].data if source in ZOO else None
    with Progress(quiet) as shown:
        layers = layers_of(
            source,
            data=data or own,
            bits=widths,
            weights=weights,
            task=task,
            trust_remote_code=trust_remote_code,
            seed=seed,
            on_progress=shown.progress,
        )
    if plot:
        draw_layers(layers, widths, source, plot)
    if as_json:
        print_json(layers)
    elif not quiet:
        print_layers(layers, widths)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what works on this machine, and what to install for the rest."""
    from exporter.commands.doctor import examine

    checks = examine()
    if as_json:
        print_json(checks)
    else:
        from rich.table import Table

        table = Table("what", "state", "found", "to mend", box=None, pad_edge=False)
        for check in checks:
            table.add_row(check.what, "ok" if check.works else "missing", check.found, check.remedy)
        out().print(table)
    broken = [check.what for check in checks if not check.works and check.required]
    if broken:
        raise BadInput(f"export cannot work here: {', '.join(broken)}", remedy="see the last column")


@app.command()
def zoo(as_json: JsonOption = False) -> None:
    """List the models that come with real weights."""
    from exporter.families import ZOO

    if as_json:
        print_json(ZOO)
        return
    from rich.table import Table

    table = Table("name", "task", "licence", "weights from", "--data", "what it is", box=None, pad_edge=False)
    for name, model in ZOO.items():
        table.add_row(name, model.task, model.license, model.package, model.data, model.description)
    out().print(table)


@app.command()
def schema(
    results: Annotated[bool, typer.Option("--results", help="Of a file of bench results instead.")] = False,
    preprocessor: Annotated[bool, typer.Option("--preprocessor", help="Of preprocessor.json instead.")] = False,
) -> None:
    """Print the JSON Schema of manifest.json, of a file of bench results, or of preprocessor.json."""
    from benchmarks.results.result import result_schema
    from exporter.bundle.schema import manifest_schema, preprocessor_schema

    print_json(result_schema() if results else preprocessor_schema() if preprocessor else manifest_schema())
