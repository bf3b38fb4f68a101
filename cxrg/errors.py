"""Every error that cxrg raises on purpose, with the exit code that the command line ends with.

Messages name the file, tag or option and end with the remedy; they never hold patient data.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_MODEL = 4
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it
EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE


class CxrgError(Exception):
    """Base of all expected failures; the command line prints its text as one line."""

    exit_code = EXIT_SOME_FAILED


class UsageError(CxrgError):
    """An option or argument cannot be meant as given."""

    exit_code = EXIT_USAGE


class InputError(CxrgError):
    """A file given by the user cannot be read as what it should be."""

    exit_code = EXIT_BAD_INPUT


class ImageError(InputError):
    """An image cannot be read as one grey frontal chest X-ray."""


class PhraseError(InputError):
    """A phrase has nothing to look for."""


class WriteError(CxrgError):
    """A result cannot be written: the folder is read-only, or the disk is full."""


class ModelError(CxrgError):
    """A model cannot be found, is incomplete, or is of a kind that is not handled."""

    exit_code = EXIT_MODEL
