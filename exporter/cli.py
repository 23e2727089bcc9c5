"""The command line: mounts every command; an error is one line and an exit code. Imports nothing heavy before."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from benchmarks.commands.accuracy import app as evaluating
from benchmarks.commands.bench import app as benching
from benchmarks.commands.report import app as reporting
from benchmarks.console import complain, out, print_log
from exporter.commands.bundles import app as checking
from exporter.commands.delivery import app as delivering
from exporter.commands.embedding import app as embedding
from exporter.commands.exporting import app as exporting
from exporter.commands.groups import EXIT_CODES, Headings
from exporter.commands.models import app as listing
from exporter.commands.sealing import app as sealing
from exporter.commands.starting import app as starting
from exporter.commands.suite import app as running
from runtimes.errors import BadInput, PocketshipError, refusal_of

INTERRUPTED = 130
TERMINATED = 143
USAGE_ERRORS: type[Any] = typer.BadParameter.__bases__[0]
"""By this the parser reports a wrong command line; typer brings a click of its own and does not export it by name."""

HELP = ["-h", "--help"]


def _program() -> typer.Typer:
    return typer.Typer(
        name="pocketship",
        cls=Headings,
        epilog=EXIT_CODES,
        context_settings={"help_option_names": HELP},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


app = _program()
APPS = (
    exporting,
    starting,
    listing,
    checking,
    evaluating,
    benching,
    reporting,
    running,
    embedding,
    delivering,
    sealing,
)
for commands in APPS:
    app.add_typer(commands)


def _print_version(asked: bool) -> None:
    if asked:
        from exporter.bundle.versions import tool_versions

        out().print(f"pocketship {tool_versions().get('pocketship', '(not installed, run from its folder)')}")
        raise typer.Exit


@app.callback()
def context(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="After an error, print its traceback and the log.")] = False,
) -> None:
    """Take a compact PyTorch model to phones and boards: ONNX, TFLite, Core ML, each proven equal to the original."""

    def kernels_of(path: Path) -> Any:
        from exporter.inspection.kernels import kernels_of as find

        return find(path)

    context.obj = kernels_of


def outline() -> typer.Typer:
    """The commands without their parameters: a list of them shows none, and reading them takes time."""
    listed = _program()
    listed.callback()(context)
    for commands in APPS:
        for found in commands.registered_commands:

            def nothing() -> None: ...

            assert found.callback is not None
            nothing.__name__, nothing.__doc__ = found.callback.__name__, found.callback.__doc__
            listed.command(found.name, rich_help_panel=found.rich_help_panel)(nothing)
    return listed


def main() -> NoReturn:
    """Run the command line; every error a user can act on is one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    _print_anything()
    try:
        _check_words(sys.argv[1:])
        program = outline() if set(sys.argv[1:]) <= set(HELP) else app
        code = program(standalone_mode=False) or 0  # typer catches Ctrl-C itself and hands back 130
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except PocketshipError as error:
        if debug:
            print_log(_traceback_of(error) + error.log_tail)
        complain(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted; a bundle is written whole or not at all")
        code = INTERRUPTED
    except Terminated:
        complain("terminated; a bundle is written whole or not at all")
        code = TERMINATED
    except USAGE_ERRORS as error:
        complain(_in_one_line(error))
        code = BadInput.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader of our output left: nobody to tell
        code = 1
    except Exception as error:
        if debug:
            print_log(_traceback_of(error))
        refusal = refusal_of(error)
        cause = f"internal error, {type(error).__name__}: {error}; run it again with --debug and report what it prints"
        if refusal or not debug:
            complain(str(refusal or cause))
        code = (refusal or PocketshipError).exit_code
    for number in (signal.SIGINT, signal.SIGTERM):  # too late to interrupt anything but Python's own exit handlers
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _in_one_line(error: Any) -> str:
    """What is wrong with a command line, and what to type next."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "pocketship"
    said = " ".join(error.format_message().split()).rstrip(".")
    epilog = getattr(context and context.command, "epilog", None) or ""
    example = epilog.removeprefix("Example: ") if epilog.startswith("Example: ") else ""
    hint = f", as {example}" if example and said.startswith("Missing") else ""
    return f"{said}{hint}; see {path} --help"


def _print_anything() -> None:
    """What a terminal's encoding lacks, as in the C locale, is written by its number; a stream may be closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _check_words(words: list[str]) -> None:
    """Raise BadInput for a word that is not UTF-8: manifests, results and generated code could not name it."""
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInput("the word is not in UTF-8", where=ascii(word), remedy="rename the file") from error


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


class Terminated(SystemExit):
    """SIGTERM: leave through every clean-up."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


def _traceback_of(error: Exception) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
