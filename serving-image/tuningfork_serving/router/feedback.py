"""Ratings of answers, counted for the version that gave them; no state is shared between replicas or kept over restarts.

The router names every request, and the engine makes the answer's id from that name. The name says version, track and slice, and ends
with a tag that only routers of this Rollout can make, so a rating can be counted by any replica and an invented one is refused.
"""

import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections import OrderedDict
from typing import Any, NamedTuple

from tuningfork.api.rollout import Slice, TrackName
from tuningfork_serving.openai import ApiError
from tuningfork_serving.router.routes import TESTER

RATINGS = ("up", "down")
REMEMBERED = 100_000
"""Rated ids that a router keeps, so that one answer is not counted twice."""
_TRACKS = {**{str(track): track.value[0] for track in TrackName}, "none": "n"}
_SLICES = {**{str(slice_): slice_.value[0] for slice_ in Slice}, TESTER: "t"}
_ID = re.compile(
    r"^(?:chatcmpl|cmpl)-(?P<named>(?P<version>[a-z0-9-]+)\.(?P<role>[a-z]{2})\.[\w-]{12})\.(?P<tag>[\w-]{16})(?:-\d+)?$"
)
"""Engines put a prefix before the request's id; some append the choice's index."""


class Origin(NamedTuple):
    """Who answered."""

    version: str
    track: str
    slice: str


class Ids:
    """Makes and reads request ids."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_rollout(cls, namespace: str, rollout: str, secret: str) -> "Ids":
        """All replicas of a Rollout share the key. Without a secret it stops mistakes and other Rollouts' ids, not a forger."""
        return cls(hmac.digest(secret.encode(), f"{namespace}/{rollout}".encode(), hashlib.sha256))

    def make(self, origin: Origin) -> str:
        """A new id, about 45 characters."""
        role = _TRACKS[origin.track] + _SLICES[origin.slice]
        named = f"{origin.version}.{role}.{secrets.token_urlsafe(9)}"
        return f"{named}.{self._tag(named)}"

    def read(self, id_: str) -> tuple[Origin, str] | None:
        """Who answered under this completion id, and the id as we made it; None when no router of ours did."""
        match = _ID.match(id_)
        if match is None or not hmac.compare_digest(match["tag"], self._tag(match["named"])):
            return None
        role = match["role"]
        return Origin(match["version"], _name(_TRACKS, role[0]), _name(_SLICES, role[1])), match["named"]

    def _tag(self, named: str) -> str:
        return urlsafe_b64encode(hmac.digest(self._key, named.encode(), hashlib.sha256)[:12]).decode()


class Ratings:
    """Which answers were rated already."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()

    def first(self, id_: str) -> bool:
        """Whether this answer was not rated before."""
        if id_ in self._seen:
            return False
        self._seen[id_] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return True


def parse_feedback(raw: bytes) -> tuple[str, str]:
    """(completion id, up or down) of a body ``{"id", "rating"}`` or ``{"id", "score"}``."""
    try:
        fields: Any = json.loads(raw)
    except ValueError as error:
        raise invalid_feedback(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
        raise invalid_feedback("id must be the id of a completion that this endpoint gave", "id")
    rating = fields.get("rating", {1: "up", 0: "down"}.get(_score(fields.get("score"))))
    if rating not in RATINGS:
        raise invalid_feedback('give rating "up" or "down", or score 1 or 0', "rating")
    return fields["id"], rating


def invalid_feedback(message: str, param: str | None = None) -> ApiError:
    """400: nothing was counted."""
    return ApiError(400, message, "invalid_request_error", param=param, code="invalid_feedback")


def _score(value: Any) -> int:
    return int(value) if value in (0, 1) else -1


def _name(codes: dict[str, str], code: str) -> str:
    return next(name for name, short in codes.items() if short == code)
