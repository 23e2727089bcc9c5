"""The commands `report` and `compare`: mounted by exporter/cli.py; imports nothing heavy before they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.options import in_group
from benchmarks.console import print_json, say_next, terminal
from runtimes.errors import BadInput

if TYPE_CHECKING:
    from benchmarks.results.result import Result

app = typer.Typer()


@app.command("report", **in_group("Measure it", "pocketship report results.json --output report.html"))
def report_command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.json...", help="Results that bench wrote; without any, the history.")
    ] = [],  # noqa: B006
    history: Annotated[str | None, typer.Option(help="SQLAlchemy URL of a history, to take its results, too.")] = None,
    since: Annotated[str | None, typer.Option(help="Only results from this day on, as 2026-11-25.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this .md file, too.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the plots to this .png file, too.")] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "pocketship bench report",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Write results as one HTML page that needs nothing else: what executed what, how fast, how right, how large."""
    from benchmarks.report import write_html, write_markdown, write_png

    for path in (output, markdown, png):
        check_writable(path)
    results = gathered(files, history, since)
    if not results:
        raise BadInput(
            "there are no results", where=(since and f"--since {since}") or "", remedy="bench something first"
        )
    written = [output]
    write_html(results, output, title)
    if markdown:
        write_markdown(results, markdown, title)
        written.append(markdown)
    if png:
        write_png(results, png, title)
        written.append(png)
    if not quiet:
        names = ", ".join(map(str, written))
        terminal().print(f"{len(results)} results in {names}", soft_wrap=True)
        say_next("see what is shown to differ between two runs", "compare", "OLD.json", "NEW.json")


@app.command("compare", **in_group("Measure it", "pocketship compare main.json branch.json --fail-over 5%"))
def compare_command(
    old: Annotated[Path, typer.Argument(metavar="A.json", help="The old results.")],
    new: Annotated[Path, typer.Argument(metavar="B.json", help="The new results.")],
    fail_over: Annotated[
        str | None,
        typer.Option(help="Exit with 4 where something is worse beyond the noise and by more than this, as 5%."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the table to this .md file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Compare two files of results: ratios with their 95% intervals, "no difference shown" inside the noise."""
    from benchmarks.report.comparison import comparison_table, comparisons_to_json, print_comparisons, remarks
    from benchmarks.results.compare import check_limit, check_matched, compare, parse_limit
    from benchmarks.results.result import read_results

    limit = None if fail_over is None else parse_limit(fail_over)
    check_writable(output)
    comparisons = compare(read_results(old), read_results(new))
    check_matched(comparisons, f"{old}, {new}")
    if output:
        from benchmarks.report.markdown import escaped, table
        from runtimes.writing import write_file

        lines = [*table(comparison_table(comparisons)), "", *(f"- {escaped(line)}" for line in remarks(comparisons))]
        write_file(output, [("\n".join(lines) + "\n").encode("utf-8", "replace")])
    if as_json:
        print_json(comparisons_to_json(comparisons))
    elif not quiet:
        print_comparisons(comparisons)
    check_limit(comparisons, limit)
    if not (as_json or quiet):
        say_next("draw both", "report", old, new)


def gathered(files: list[Path], history: str | None, since: str | None) -> tuple[Result, ...]:
    """The results of the files and of the history, each once; of the user's own history where neither is given."""
    from benchmarks.results.result import read_results

    found = [result for path in files for result in read_results(path)]
    if not history and files and since is None:
        return tuple({result.id: result for result in found}.values())
    from benchmarks.results.history import select, url_of, utc

    if since is not None:
        first = utc(since, "--since")
        found = [result for result in found if utc(result.started_at, f"result {result.id}") >= first]
    url = url_of(history) if history or not files else None
    kept = select(url, since=since) if url else ()
    return tuple({result.id: result for result in (*found, *kept)}.values())


def check_writable(path: Path | None) -> None:
    """Raise BadInput for a file that could not be written, before anything else is done."""
    if path and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise BadInput("cannot be written", where=str(path), remedy="give a file in a folder that exists")
    if path and path.exists() and not path.is_file():
        raise BadInput("cannot be written (it is no plain file)", where=str(path), remedy="give another place")
