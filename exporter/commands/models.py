"""The commands `sensitivity`, `zoo` and `doctor`: mounted by exporter/cli.py; nothing heavy is imported before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import out, print_json, say_next
from benchmarks.tables import print_table, table_of
from exporter.commands.common_options import JsonOption, QuietOption, TaskOption, TrustRemoteCodeOption, WeightsOption
from exporter.commands.screen import Progress, print_layers
from runtimes.errors import BadInput

app = typer.Typer()


@app.command(**in_group("Make a bundle", "pocketship sensitivity digits --plot layers.png"))
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
        say_next("make it small", "export", source, "--quantize", "int8")


@app.command(**in_group("Make a bundle", "pocketship doctor"))
def doctor(as_json: JsonOption = False) -> None:
    """Say what works on this machine, and what to install for the rest."""
    from exporter.commands.doctor import abilities, examine

    checks = examine()
    if as_json:
        print_json(checks)
    else:
        rows = [(c.what, "ok" if c.works else "missing", c.found, c.remedy) for c in checks]
        print_table(table_of(("what", "state", "found", "to mend"), rows))
        out().print(abilities(checks), soft_wrap=True)
    broken = [check.what for check in checks if not check.works and check.required]
    if broken:
        raise BadInput(f"export cannot work here: {', '.join(broken)}", remedy="see the last column")
    if not as_json:
        say_next("see what comes along", "zoo")


@app.command(**in_group("Make a bundle", "pocketship zoo"))
def zoo(as_json: JsonOption = False) -> None:
    """List the models that come with real weights."""
    from exporter.families import ZOO

    if as_json:
        print_json(ZOO)
        return
    rows = [(name, m.task, m.license, m.package, m.data, m.description) for name, m in ZOO.items()]
    print_table(table_of(("name", "task", "licence", "weights from", "--data", "what it is"), rows))
    say_next("export one", "export", next(iter(ZOO)))
