"""The command line: mounts every command; an error is one line and an exit code. Imports nothing heavy before."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from benchmarks.commands.accuracy import app as evaluating
from benchmarks.commands.bench import app as benching
from benchmarks.commands.report import app as reporting
from exporter.commands.bundles import app as checking
from exporter.commands.delivery import app as delivering
from exporter.commands.embedding import app as embedding
from exporter.commands.exporting import app as exporting
from exporter.commands.models import app as listing
from exporter.commands.sealing import app as sealing
from exporter.commands.suite import app as running
from runtimes.errors import BadInput, PocketshipError

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
APPS = (exporting, checking, listing, evaluating, benching, reporting, running, embedding, delivering, sealing)
for commands in APPS:
    app.add_typer(commands)


@app.callback()
def context(context: typer.Context) -> None:
    """Hand the measuring commands what only the exporter can find out."""

    def kernels_of(path: Path) -> Any:
        from exporter.inspection.kernels import kernels_of as find

        return find(path)

    context.obj = kernels_of


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
