"""The commands `sensitivity`, `zoo` and `doctor`: mounted by exporter/cli.py; nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.console import out, print_json
from exporter.commands.common_options import JsonOption, QuietOption, TaskOption, TrustRemoteCodeOption, WeightsOption
from exporter.commands.screen import Progress, print_layers
from runtimes.errors import BadInput

app = typer.Typer()


@app.command()
def sensitivity(
    source: Annotated[str, typer.Argument(help="A model, as for export.")],
    data: Annotated[str | None, typer.Option(help="A task, as for export, whose calibration samples are run.")] = None,
    bits: Annotated[str, typer.Option(help="The numbers of bits to try: some of 8,4,2.")] = "8,4,2",
    plot: Annotated[Path | None, typer.Option(help="Write the plot to this .png file.")] = None,
    task: TaskOption = None,
    weights: WeightsOption = None,
    trust_remote_code: TrustRemoteCodeOption = False,
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
    task_of_zoo = ZOO[source].data if source in ZOO else None
    with Progress(quiet) as shown:
        layers = layers_of(
            source,
            data=data or task_of_zoo,
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
