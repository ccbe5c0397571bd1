"""The errors a user meets. Each is one sentence: the field or file, what came, and what would do."""

from __future__ import annotations


class BraggscopeError(Exception):
    """The work failed; the command line ends with exit code 1."""


class InputError(BraggscopeError, ValueError):
    """The input or the usage was wrong; the command line ends with exit code 2 and nothing is written."""


def one_of(what: str, got: str, choices: list[str]) -> InputError:
    """The error for a name that is not among the known ones."""
    in_order = sorted(choices, key=lambda name: (int(name) if name.isdecimal() else 0, name))
    return InputError(f"unknown {what} '{got}'; there are: {', '.join(in_order) or 'none'}")
