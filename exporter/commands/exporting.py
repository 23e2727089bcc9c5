"""The command `export`: mounted by exporter/cli.py; imports nothing heavy before it runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import print_json
from exporter.commands.common_options import (
    JsonOption,
    QuietOption,
    StrictOption,
    TaskOption,
    TrustRemoteCodeOption,
    WeightsOption,
)
from exporter.commands.screen import Progress, print_bundle, print_plan

app = typer.Typer()

TargetOption = Annotated[
    list[str],
    typer.Option("--target", "--format", "-t", help="onnx, tflite, coreml or all; repeat it or separate by commas."),
]


@app.command(**in_group("Make a bundle", "pocketship export minilm --target onnx,tflite --output minilm-bundle"))
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
    task: TaskOption = None,
    weights: WeightsOption = None,
    preprocessor: Annotated[
        Path | None, typer.Option(help="How inputs are made and outputs read: a file as docs/preprocessor.md has it.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="The names of the classes: a file of one a line.")] = None,
    image: Annotated[
        str | None, typer.Option(help="How a picture becomes the input: size=224,mean=0.5:0.5:0.5,std=0.2:0.2:0.2.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="The tokenizer.json of a text model of your own.")] = None,
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
    trust_remote_code: TrustRemoteCodeOption = False,
    prune: Annotated[
        str | None,
        typer.Option(help="Prune: 0.8 (the smallest weights), 2:4 (of each four), structured:0.5 (half the FLOPs)."),
    ] = None,
    low_rank: Annotated[
        str | None, typer.Option(help="Factor linear layers: 3 (PELA's ratio), or fwsvd:3 (weighted by Fisher).")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="float16, int8, int8-dynamic, int8-static, int8-weights, int4 or ternary.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A YAML file with the passes in order (docs/recipes.md).")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A task, a folder of arrays, pictures or sounds, a .csv, FILE.py:FUNCTION; of a zoo model its own."
        ),
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
    strict: StrictOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Trace and check every target, write nothing.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export a model to ONNX, TFLite and Core ML, prove each file equal to it, and write a bundle."""
    from benchmarks.commands.words import parse_bytes, parse_percent
    from exporter import pipeline
    from exporter.compression.recipe import recipe_of
    from exporter.stages.options import options_of, parse_dynamic, parse_shapes, parse_targets

    options = options_of(
        targets=parse_targets(target),
        output=output,
        preprocessor=preprocessor,
        labels=labels,
        image=image,
        tokenizer=tokenizer,
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
        strict=strict,
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
