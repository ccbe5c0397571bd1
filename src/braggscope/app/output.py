"""Output files: nothing is overwritten unasked, and what cannot be written is said before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

from braggscope.core.errors import InputError


def again(overwrite: bool) -> str:
    """How to go on with a run that was interrupted, as part of a sentence."""
    return f"repeat the command with --resume{' instead of --overwrite' if overwrite else ''}"


def check_output(
    path: str | Path, *, overwrite: bool = False, inputs: tuple[str | Path | None, ...] = (), resumable: bool = False
) -> Path:
    """The path, if a file may be written there.

    inputs: Files that must not be overwritten in any case, because the work reads them.
    resumable: Whether --resume is worth mentioning where the file exists.
    Raises InputError where the file exists, is an input, or its folder is missing or may not be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"output {path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise InputError(f"output {path} cannot be written: folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"output {path} cannot be written: folder {path.parent} is write-protected")
    _check_writable(path)
    if path.exists():
        if any(one is not None and Path(one).exists() and path.samefile(one) for one in inputs):
            raise InputError(f"output {path} is also an input; give another name")
        if not overwrite:
            finish = "--overwrite to replace it or --resume to finish what an interrupted run left"
            raise InputError(
                f"output {path} exists; give another name, {finish if resumable else 'or --overwrite to replace it'}"
            )
    return path


def _check_writable(path: Path) -> None:
    """Raise InputError where no file can be made beside the output, which is how it is written (core.beside).

    Permissions do not say it: they are always right for root, and some file systems take no files or no long names.
    """
    probe = path.with_name(f".{path.name}.writing")
    try:
        probe.open("xb").close()
    except FileExistsError:
        return  # left by a run that was killed; it will be replaced
    except OSError as error:
        raise InputError(
            f"output {path} cannot be written: folder {path.parent} takes no file of this name ({error.strerror})"
        ) from None
    probe.unlink(missing_ok=True)
