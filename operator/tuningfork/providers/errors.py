"""Errors of the world outside, converted at its edge. The type is the retry decision, the text is for a person.

    ProviderError
    +-- PermanentError        the same request fails again until somebody changes something
    |   +-- NotFoundError
    |   +-- ForbiddenError    names the verb and the resource that are missing
    |   +-- InvalidError      the server does not accept the object
    +-- TransientError        worth another try after a pause
        +-- AlreadyExistsError
        +-- ConflictError     somebody wrote first: read again, decide again

Every provider raises only these, with the cause chained. Texts of servers are cut, bodies and headers never appear: they may hold
secrets.
"""

TEXT_LIMIT = 400
"""Characters of a server's own words in our message; enough for one sentence, too short for an HTML page."""


class ProviderError(Exception):
    """Something outside did not do what was asked."""


class PermanentError(ProviderError):
    """Fails again until somebody changes something."""


class NotFoundError(PermanentError):
    """It is not there."""


class ForbiddenError(PermanentError):
    """We may not do that."""


class InvalidError(PermanentError):
    """What we sent is refused as it is."""


class TransientError(ProviderError):
    """Worth another try after a pause."""


class AlreadyExistsError(TransientError):
    """There is one of that name."""


class ConflictError(TransientError):
    """Somebody wrote first."""


def cut(text: str) -> str:
    """A server's words on one line, shortened."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 3] + "..."
