"""What planning knows of the object store: what was read there, and why it could not be read.

The errors live here and not beside boto3 because planners decide by their type. The tree:

    StorageError
    ├── StorageDeniedError        somebody must change a permission; it is still tried again, slowly
    ├── ObjectNotFoundError       the store answered that there is nothing
    └── StorageUnavailableError   no answer, or a server error; goes away by itself
"""

from dataclasses import dataclass

from tuningfork.api.artifacts import PreparedData, Result


class StorageError(Exception):
    """The store could not be read; the text is a sentence for a person."""


class StorageDeniedError(StorageError):
    """The credentials may not read it."""


class ObjectNotFoundError(StorageError):
    """There is no such bucket or object."""


class StorageUnavailableError(StorageError):
    """No answer, or a server error."""


@dataclass(frozen=True)
class StoredRun:
    """What lies in a run's output folder."""

    prepared: PreparedData | None = None
    """Of the prepare Job; None: not there yet."""
    result: Result | None = None
    """The end of the run; None: not there yet."""
    problem: str = ""
    """What is wrong with the artifacts that the result names."""


@dataclass(frozen=True)
class Verification:
    """A version's files against its digest."""

    files: int = 0
    bytes: int = 0
    problem: str = ""
    """What does not match; empty: everything does."""
