"""UserError and its subclasses: invalid input, which the command line reports in one line with exit code 2.

Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Invalid input. The message is one line: where, what was found, what was expected."""


class CorruptFileError(UserError):
    """A file that does not match its SHA-256, or cannot be read."""


class MissingFileError(UserError):
    """A file that should exist and does not."""


class ForeignSpecError(UserError):
    """State on disk that was written for another spec."""


class ChangedCodeError(UserError):
    """State on disk that was written by another version of the code."""


class BusyError(UserError):
    """A live process owns what was about to be written."""
