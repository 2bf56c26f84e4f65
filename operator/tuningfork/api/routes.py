"""What the operator tells the serving pods: one ConfigMap `<rollout>-serving` with two keys.

``adapters.json`` says which adapters every engine shall hold, ``routes.json`` who gets which traffic. The loader and the router
watch the ConfigMap; adapters are declared before they get weight, and removed after they lost it. Serving goes on with the last
tables when the API server is away.

Assignment: 10,000 buckets by HMAC-SHA256 of the user. A pin has its own salt, so it keeps its users whatever the candidate does;
the candidate grows from bucket 0 with a salt of its own walk, its fresh baseline slice lies directly above it.
"""

import hashlib
import hmac
from typing import Annotated

from pydantic import Field

from tuningfork.api._base import ApiModel, Digest, Timestamp
from tuningfork.api.rollout import Slice, TrackName

BUCKETS = 10_000
"""Resolution of the split: 0.01 %."""

ROUTES_KEY = "routes.json"
ADAPTERS_KEY = "adapters.json"

ENGINE_PORT = 8000
"""vLLM's port; OpenAI API and /metrics."""
LOADER_PORT = 8001
"""The adapter loader beside each engine: GET /adapters (LoaderState), GET /ready, GET /metrics."""
ROUTER_PORT = 8080
"""Clients: /v1/*. Also GET /-/routes (RouterState), /healthz, /metrics."""


def serving_config_map(rollout: str) -> str:
    """Name of the ConfigMap with both tables."""
    return f"{rollout}-serving"


def engine_service(rollout: str) -> str:
    """Headless Service (publishNotReadyAddresses) whose records are the engine pods."""
    return f"{rollout}-engine"


class AdapterEntry(ApiModel):
    """An adapter that every engine shall hold."""

    name: str
    """The engine's name of it: <version>-<digest8>."""
    version: str
    """The ModelVersion."""
    uri: str
    """Prefix with manifest.json."""
    digest: Digest
    """sha256 of manifest.json."""
    required: bool = False
    """A pod is Ready only with it (stable adapters)."""


class AdapterTable(ApiModel):
    """adapters.json."""

    base_uri: str
    """The base model."""
    adapters: list[AdapterEntry] = []
    """What every engine shall hold; anything else is unloaded."""


class RouteTarget(ApiModel):
    """A version that gets traffic."""

    version: str
    """The ModelVersion; label model_version."""
    adapter: str
    """What the router asks the engine for."""


class PinRoute(RouteTarget):
    """A pin with its share."""

    track: TrackName
    """staging or canary."""
    weight: Annotated[int, Field(ge=0, le=100)]
    """Per cent of all users."""
    salt: str
    """HMAC key."""


class CandidateRoute(RouteTarget):
    """The candidate with its share."""

    track: TrackName
    """The track that it walks on."""
    weight: Annotated[int, Field(ge=0, le=100)]
    """Per cent of all users."""
    baseline_weight: Annotated[int, Field(ge=0, le=100)] = 0
    """Per cent of all users in the fresh baseline slice; equals weight while a metric compares, else 0."""
    salt: str
    """HMAC key."""
    valid_until: Timestamp | None = None
    """A lease: after this the router sends its traffic to stable by itself."""


class RouteTable(ApiModel):
    """routes.json."""

    generation: int
    """Rises with every change; routers report which one they have."""
    namespace: str
    rollout: str
    model: str
    """The public model name."""
    sticky_header: str = "X-User-Id"
    engine_service: str
    """DNS name of the headless Service; its records are the engine pods."""
    stable: RouteTarget | None = None
    """Gets whoever is in no other slice; absent before the first version serves."""
    pins: list[PinRoute] = []
    """In order: staging, canary."""
    candidate: CandidateRoute | None = None
    testers: dict[str, RouteTarget] = {}
    """Overrides: a client that sends model `<model>@<key>` gets this target; keys are tracks and versions."""


class AdapterState(ApiModel):
    """One adapter in one pod."""

    state: str
    """Loaded, Loading or Failed."""
    message: str = ""
    """Why it failed."""


class LoaderState(ApiModel):
    """Answer of GET /adapters: what this pod's engine really holds, asked from the engine and not remembered."""

    engine_up: bool
    """Whether the engine answers."""
    adapters: dict[str, AdapterState] = {}
    """By engine name."""


class RouterState(ApiModel):
    """Answer of GET /-/routes."""

    generation: int
    """Of the table in force; 0 before the first."""
    effective: dict[str, int] = {}
    """Per cent by version as routed now, leases considered."""


class Assignment(ApiModel):
    """Where a user belongs."""

    target: RouteTarget
    track: TrackName
    slice: Slice


def bucket(salt: str, user: str) -> int:
    """The user's bucket, 0 to 9,999: the first 8 bytes of HMAC-SHA256(salt, user) modulo 10,000."""
    digest = hmac.new(salt.encode(), user.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def assign(table: RouteTable, user: str, *, candidate_valid: bool = True) -> Assignment | None:
    """The user's version; None while no version is stable.

    Pins come first, then the candidate from bucket 0 of its own salt and its baseline slice above it, stable for the rest. A
    growing weight only adds users: nobody leaves a slice because it grew.
    """
    for pin in table.pins:
        if pin.weight and bucket(pin.salt, user) < pin.weight * BUCKETS // 100:
            return Assignment(target=pin, track=pin.track, slice=Slice.PIN)
    if table.stable is None:
        return None
    candidate = table.candidate
    if candidate and candidate_valid and candidate.weight:
        position = bucket(candidate.salt, user)
        edge = candidate.weight * BUCKETS // 100
        if position < edge:
            return Assignment(target=candidate, track=candidate.track, slice=Slice.CANDIDATE)
        if position < edge + candidate.baseline_weight * BUCKETS // 100:
            return Assignment(target=table.stable, track=TrackName.PRODUCTION, slice=Slice.BASELINE)
    return Assignment(target=table.stable, track=TrackName.PRODUCTION, slice=Slice.STABLE)
