"""The split in numbers and words, and the keys that decide which users a slice gets.

A pin's key depends on Rollout and track, so a pin keeps its users whatever the candidate does; a candidate's on Rollout and adapter,
so a walk that starts again meets the same users and another candidate meets others.
"""

from tuningfork.api.rollout import TrackName
from tuningfork.api.routes import RouteTable


def pin_salt(rollout_uid: str, track: TrackName) -> str:
    """HMAC key of a pin."""
    return f"{rollout_uid}/{track}"


def candidate_salt(rollout_uid: str, adapter: str) -> str:
    """HMAC key of a walk and of its baseline slice."""
    return f"{rollout_uid}/{adapter}"


def shares(table: RouteTable) -> dict[str, int]:
    """Per cent of the users by version, stable first; always 100 in all once a version is stable, nothing before."""
    if table.stable is None:
        return {}
    others = [(pin.version, pin.weight) for pin in table.pins]
    if table.candidate:
        others.append((table.candidate.version, table.candidate.weight))
    out = {table.stable.version: 100 - sum(weight for _, weight in others)}
    for version, weight in others:
        if weight:
            out[version] = out.get(version, 0) + weight
    return out


def in_words(weights: dict[str, int]) -> str:
    """``support-v1 80 / support-v2 20``."""
    return " / ".join(f"{version} {weight}" for version, weight in weights.items())
