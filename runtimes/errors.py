"""Errors a user can act on: one line that says what, where and what to do; each class is one exit code."""

from __future__ import annotations


class PocketshipError(Exception):
    """An error with its cause, place and mend; printed as one line, never as a traceback."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        self.log_tail = ""  # the end of a child's output, for --debug
        line = f"{where}: {what}" if where else what
        super().__init__(" ".join(f"{line}; {remedy}".split()) if remedy else " ".join(line.split()))


class BadInput(PocketshipError):
    """The source, an option, the weights or the output folder cannot be used as given."""

    exit_code = 2


class NotInstalled(BadInput):
    """A runtime that this machine lacks."""


class ParityFailed(PocketshipError):
    """An artifact does not compute what the PyTorch model computes, or could not be run at all."""

    exit_code = 3


class LimitNotMet(PocketshipError):
    """A limit that the user set is not met."""

    exit_code = 4


class UnsupportedOperation(PocketshipError):
    """The model holds an operation that a target lacks."""

    exit_code = 5
