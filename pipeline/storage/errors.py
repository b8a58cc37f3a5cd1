"""The one base class of every error a user can cause.

The command line prints such an error as its single line and leaves with code 2; everything else is our fault and keeps its trace.
It lives on the lowest floor so that every floor can raise it.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend. The message is one line: where, what was found, what was expected."""


class CorruptFileError(UserError):
    """A file that does not match the digest it was sealed with, or cannot be read at all."""


class MissingFileError(UserError):
    """A file that a sealed folder promises and does not hold."""


class ForeignSpecError(UserError):
    """State on disk that was written for another specification."""


class ChangedCodeError(UserError):
    """State on disk that was made by other code than the present one."""


class BusyError(UserError):
    """Another live process owns what we were about to write."""
