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
EXIT_TERMINATED = 143  # 128 + SIGTERM

EXIT_MEANINGS = {
    EXIT_OK: "success, *not found* included",
    EXIT_SOME_FAILED: "some of several inputs failed, or a result could not be written",
    EXIT_USAGE: "an option or argument is invalid",
    EXIT_BAD_INPUT: "the image or the phrase cannot be used",
    EXIT_MODEL: "the model is not available or not supported",
    EXIT_INTERRUPTED: "interrupted; the same command continues the run",
    EXIT_CLOSED_PIPE: "the reader of standard output went away",
    EXIT_TERMINATED: "ended by SIGTERM, as of a batch system; the same command continues the run",
}
"""What each exit code of the command line means, for the reference."""


class CxrgError(Exception):
    """Base of all expected failures; the command line prints its text as one line."""

    exit_code = EXIT_SOME_FAILED


class UsageError(CxrgError):
    """An option or argument is invalid."""

    exit_code = EXIT_USAGE


class InputError(CxrgError):
    """A file given by the user does not have the expected content."""

    exit_code = EXIT_BAD_INPUT


class ImageError(InputError):
    """An image cannot be read as one grey frontal chest X-ray."""


class PhraseError(InputError):
    """A phrase names nothing to look for."""


class WriteError(CxrgError):
    """A result cannot be written: the folder is read-only, or the disk is full."""


class ModelError(CxrgError):
    """A model cannot be found, is incomplete, or belongs to an unsupported family."""

    exit_code = EXIT_MODEL
