"""Every way a run can end badly; the type decides the exit status, and so whether the operator tries again.

::

    TrainerError            40  anything else; retried
    ├── InvalidSpec         20  the job file cannot work
    ├── DataNotFound        21  a source does not exist
    ├── DataUnusable        22  no usable example is left
    ├── ModelNotFound       23  nothing lies at the model's URI
    ├── ModelUnusable       24  what lies there does not load, or must not be loaded
    ├── StorageDenied       25  the object store refuses
    ├── StorageUnavailable  30  the object store does not answer; retried
    ├── OutOfMemory         31  the accelerator is full; retried with a smaller micro batch
    ├── ObjectNotFound      40  an object is missing; whoever asked for it says what it was
    └── DigestMismatch      40  a file is not what its manifest says
    Interrupted            143  SIGTERM; no Exception, so that no library's ``except Exception`` swallows it

A message is one sentence for a person: what, where, and what to do.
"""

from typing import ClassVar

from tuningfork.api.jobfile import ExitCode


class TrainerError(Exception):
    """The root; by itself: anything that has no better name."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class InvalidSpec(TrainerError):  # noqa: N818 - named like the reasons that users see on their objects
    """The job file cannot work."""

    exit_code = ExitCode.INVALID_SPEC


class DataNotFound(TrainerError):  # noqa: N818
    """A source does not exist."""

    exit_code = ExitCode.DATA_NOT_FOUND


class DataUnusable(TrainerError):  # noqa: N818
    """No usable example is left."""

    exit_code = ExitCode.DATA_UNUSABLE


class ModelNotFound(TrainerError):  # noqa: N818
    """Nothing lies at the model's URI."""

    exit_code = ExitCode.MODEL_NOT_FOUND


class ModelUnusable(TrainerError):  # noqa: N818
    """The model does not load, or must not be loaded."""

    exit_code = ExitCode.MODEL_UNUSABLE


class StorageDenied(TrainerError):  # noqa: N818
    """The object store refuses."""

    exit_code = ExitCode.STORAGE_DENIED


class StorageUnavailable(TrainerError):  # noqa: N818
    """The object store does not answer."""

    exit_code = ExitCode.STORAGE_UNAVAILABLE


class OutOfMemory(TrainerError):  # noqa: N818
    """The accelerator is full."""

    exit_code = ExitCode.OUT_OF_MEMORY


class ObjectNotFound(TrainerError):  # noqa: N818
    """An object is missing."""

    def __init__(self, uri: str):
        super().__init__(f"{uri} does not exist")
        self.uri = uri


class DigestMismatch(TrainerError):  # noqa: N818
    """A file is not what its manifest says."""


class Interrupted(BaseException):
    """SIGTERM arrived."""
