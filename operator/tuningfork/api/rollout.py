"""Rollout: "serve this model; canary, staging and production run these versions".

Only ``tracks.production.version`` is ever promoted. A new one is a *candidate*: it walks ``strategy.steps`` with analysis on at
each, and only then becomes *stable*. Versions written for staging and canary are *pins*: they take their weight, are watched,
and go to 0 when they fail.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from tuningfork.api._base import (
    API_VERSION,
    ATOMIC,
    ApiModel,
    ArtifactUri,
    DnsLabel,
    Duration,
    Message,
    Rule,
    Timestamp,
    map_by,
)
from tuningfork.api._meta import Condition, ObjectMeta, Reason

Percent = Annotated[int, Field(ge=0, le=100)]


class Topology(StrEnum):
    """How versions share engines. SharedBase: every engine holds the base model and all adapters."""

    SHARED_BASE = "SharedBase"


class EngineType(StrEnum):
    """The protocol that the engine speaks. Its image is settings.images.serving, which must bring the command `tuningfork-engine`."""

    VLLM = "VLLM"


class TrackName(StrEnum):
    """The three tracks, least public first."""

    CANARY = "canary"
    STAGING = "staging"
    PRODUCTION = "production"


class Slice(StrEnum):
    """Which part of the traffic a request belongs to; the label ``slice`` of every router series.

    candidate and baseline are equally large, so that they can be compared over the same minutes; baseline is a fresh part of
    production's users on the stable version.
    """

    STABLE = "stable"
    BASELINE = "baseline"
    CANDIDATE = "candidate"
    PIN = "pin"


class Promotion(StrEnum):
    """Progressive walks on its own, Manual waits for a promote command at each step, Immediate skips the steps."""

    PROGRESSIVE = "Progressive"
    MANUAL = "Manual"
    IMMEDIATE = "Immediate"


class MetricTemplate(StrEnum):
    """Measurements that are queried from the router's series.

    ErrorRate: share of requests that the serving side failed, 0 to 1. NegativeFeedbackRate: share of rated answers that were
    rated down, 0 to 1. LatencyP95: 95th percentile of the request duration, seconds.
    """

    ERROR_RATE = "ErrorRate"
    NEGATIVE_FEEDBACK_RATE = "NegativeFeedbackRate"
    LATENCY_P95 = "LatencyP95"


class CompareTo(StrEnum):
    """Production: the fresh baseline slice, over the same minutes."""

    PRODUCTION = "Production"


class Action(StrEnum):
    """What follows from a measurement that says nothing."""

    HOLD = "Hold"
    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    PAUSE = "Pause"


class BaseModelSource(ApiModel):
    """The model that all versions' adapters belong to."""

    uri: ArtifactUri
    """Prefix of a Hugging Face checkpoint."""


class Engine(ApiModel):
    """The inference engine."""

    type: EngineType = EngineType.VLLM
    """Its protocol."""


class Serving(ApiModel):
    """What answers requests."""

    topology: Topology = Topology.SHARED_BASE
    """How versions share engines."""
    base: BaseModelSource
    """The base model."""
    engine: Engine = Engine()
    """The inference engine."""
    replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Engine pods. Absent starts with 1 and leaves the number to an autoscaler."""


class ProductionTrack(ApiModel):
    """The version that shall serve everybody."""

    version: DnsLabel
    """A ModelVersion in this namespace."""


class PinTrack(ApiModel):
    """A version that takes a fixed share beside production and is never promoted."""

    version: DnsLabel
    """A ModelVersion in this namespace."""
    weight: Percent
    """Per cent of the users."""


class Tracks(ApiModel):
    """Which versions serve."""

    production: ProductionTrack
    """The version that shall serve everybody."""
    staging: PinTrack | None = None
    """A pin on staging."""
    canary: PinTrack | None = None
    """A pin on canary."""


class Step(ApiModel):
    """A stop of a candidate's walk."""

    track: TrackName
    """The track that it walks on."""
    weight: Annotated[int, Field(ge=1, le=100)]
    """The candidate's total share, per cent."""
    hold: Duration
    """How long it stays at least; the step also waits for enough valid measurements."""


class Strategy(ApiModel):
    """How a new production version comes to everybody."""

    cel_rules: ClassVar = (
        Rule(
            "self.promotion == 'Immediate' || self.steps.size() > 0",
            "strategy.steps: Progressive and Manual need at least one step",
        ),
        Rule(
            "self.steps.all(s, self.steps.filter(t, t.weight == s.weight).size() == 1)"
            " && self.steps.map(s, s.weight).isSorted()",
            "strategy.steps: weights must rise from step to step",
        ),
    )

    promotion: Promotion = Promotion.PROGRESSIVE
    """Who decides to go on."""
    steps: Annotated[list[Step], Field(max_length=16, json_schema_extra=ATOMIC)] = [
        Step(track=TrackName.CANARY, weight=5, hold="2m"),
        Step(track=TrackName.STAGING, weight=10, hold="5m"),
        Step(track=TrackName.PRODUCTION, weight=40, hold="5m"),
    ]
    """The stops, in order."""


class FailureLimit(ApiModel):
    """How many failed measurements a metric may have."""

    consecutive: Annotated[int, Field(ge=1, le=100)] = 1
    """That many in a row fail the metric."""


class AnalysisMetric(ApiModel):
    """One thing that is measured at every interval."""

    cel_rules: ClassVar = (
        Rule("has(self.template) != has(self.query)", "analysis.metrics: give either template or query"),
        Rule(
            "[has(self.max), has(self.min), has(self.maxIncrease)].filter(x, x).size() == 1",
            "analysis.metrics: give exactly one of max, min or maxIncrease",
        ),
        Rule(
            "has(self.maxIncrease) == has(self.compareTo)",
            "analysis.metrics: maxIncrease goes with compareTo: Production; max and min are absolute",
        ),
        Rule(
            "!has(self.compareTo) || (has(self.template) && self.template in ['ErrorRate', 'NegativeFeedbackRate'])",
            "analysis.metrics: compareTo works with the rates ErrorRate and NegativeFeedbackRate; use max with others",
        ),
        Rule(
            "!has(self.query) || self.minSamples == 0",
            "analysis.metrics: minSamples goes with a template; with a query, let the query return nothing below a minimum",
        ),
    )

    name: DnsLabel
    """Its name in status."""
    template: MetricTemplate | None = None
    """A measurement that TuningFork knows."""
    query: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """PromQL that gives one number; {{version}}, {{slice}}, {{rollout}}, {{namespace}}, {{model}} and {{window}} are replaced."""
    compare_to: CompareTo | None = None
    """Compare with production over the same minutes, between equally large slices."""
    max_: float | None = Field(default=None, alias="max")
    """Fails above this; base units (seconds, bytes, ratio)."""
    min_: float | None = Field(default=None, alias="min")
    """Fails below this; base units."""
    max_increase: Annotated[float, Field(ge=0, le=1)] | None = None
    """Fails on evidence that the candidate's rate exceeds production's by more than this (difference of rates)."""
    min_samples: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests (or rated answers) of the slice that a valid measurement needs; fewer count as no data.

    Evidence of harm against production counts at any number, because that test is exact.
    """
    failure_limit: FailureLimit = FailureLimit()
    """How many failed measurements are accepted."""
    dry_run: bool = False
    """Measure and show, decide nothing."""


class SilencePolicy(ApiModel):
    """What follows from silence: hold on, and after the deadline act."""

    action: Action = Action.HOLD
    """What to do at once. Hold waits: no promotion, no rollback."""
    deadline: Duration = "10m"
    """How long Hold lasts."""
    then: Action = Action.FAIL
    """What follows when the deadline has passed."""


class Analysis(ApiModel):
    """What is watched while a candidate or a pin has traffic."""

    interval: Duration = "30s"
    """Time between two measurements."""
    metrics: Annotated[list[AnalysisMetric], Field(max_length=16, json_schema_extra=map_by("name"))] = []
    """What is measured."""
    on_no_data: SilencePolicy = SilencePolicy()
    """When a query has no result or too few samples."""
    on_provider_error: SilencePolicy = SilencePolicy()
    """When Prometheus does not answer."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance of a false alarm over the whole walk, shared by all metrics that compare."""


class StickyBy(ApiModel):
    """What identifies a user."""

    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=64)] = "X-User-Id"
    """Request header with the user's id. Without it the body's user field counts, else each request is a user of its own."""


class TrafficProvider(StrEnum):
    """What splits the traffic: our router."""

    ROUTER = "Router"


class Traffic(ApiModel):
    """How requests are assigned."""

    provider: TrafficProvider = TrafficProvider.ROUTER
    """What splits the traffic."""
    sticky_by: StickyBy = StickyBy()
    """What identifies a user."""
    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """Router pods."""


class RolloutSpec(ApiModel):
    """What shall serve, and how a new version gets there."""

    cel_rules: ClassVar = (
        Rule("self.model == oldSelf.model", "spec.model is immutable; create another Rollout for another model"),
        # With SharedBase the stable adapter would come to a base model that it was not trained on.
        Rule(
            "self.serving.base.uri == oldSelf.serving.base.uri",
            "spec.serving.base is immutable; create another Rollout for another base",
        ),
        Rule(
            "!self.serving.base.uri.startsWith('file:')",
            "spec.serving.base.uri: a cluster reads s3:// only, not file://",
        ),
        Rule(
            "(has(self.tracks.staging) ? self.tracks.staging.weight : 0)"
            " + (has(self.tracks.canary) ? self.tracks.canary.weight : 0) <= 100",
            "spec.tracks: the weights of staging and canary may be at most 100 together",
        ),
        Rule(
            "self.strategy.steps.all(s, (self.analysis.metrics.exists(m, has(m.compareTo)) ? 2 : 1) * s.weight"
            " + (has(self.tracks.staging) && s.track != 'staging' ? self.tracks.staging.weight : 0)"
            " + (has(self.tracks.canary) && s.track != 'canary' ? self.tracks.canary.weight : 0) <= 100)",
            "spec.strategy.steps: a step's weight (twice, while a metric compares to Production, for the equally large baseline)"
            " and the pins' weights may be at most 100 together",
        ),
    )

    model: DnsLabel
    """The model name that clients send."""
    serving: Serving
    """What answers requests."""
    tracks: Tracks
    """Which versions serve."""
    strategy: Strategy = Strategy()
    """How a new production version comes to everybody."""
    analysis: Analysis = Analysis()
    """What is watched on the way."""
    traffic: Traffic = Traffic()
    """How requests are assigned."""
    paused: bool = False
    """Stops promotion and hold time; analysis and rollback go on."""
    progress_deadline: Duration = "10m"
    """How long a candidate may take to become ready before it is given up."""
    rollback_window: Duration = "24h"
    """How long the way back to the previous version needs no walk."""


class RolloutPhase(StrEnum):
    """Where a rollout stands."""

    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"


class RolloutCondition(StrEnum):
    """Condition types of a Rollout."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    AVAILABLE = "Available"
    ROLLBACK_READY = "RollbackReady"
    ANALYZED = "Analyzed"


class RolloutReason(Reason):
    """Every reason that a condition of a Rollout can have."""

    Serving = "Stable serves on every replica."
    NotServing = "Stable does not serve yet."
    Reached = "What the spec asks for is reached."
    Starting = "Engines or routers are being started."
    WaitingForVersion = "A ModelVersion that a track names does not exist or is not verified yet."
    VersionUnusable = "A ModelVersion failed verification or belongs to another base model; it gets no traffic."
    WaitingForReplicas = "Not every replica answers for the version yet; it has no weight."
    Walking = "A candidate walks the steps."
    WaitingForPromotion = "promotion is Manual and the step is over; send the promote command."
    Paused = "spec.paused is true, or an analysis asked for a person."
    RolledBack = "The candidate failed its analysis; stable has all of its traffic."
    Aborted = "A person sent the abort command; stable has all of the candidate's traffic."
    PreviouslyFailed = (
        "This version already failed with these steps and this analysis; send the retry command or change the analysis."
    )
    ProgressDeadlineExceeded = "The candidate was not ready in time."
    DuplicateModel = "Another Rollout of this namespace serves the same model name."
    RollbackReady = "The version to go back to is loaded on every replica."
    RollbackNotReady = "The version to go back to is not loaded on every replica."
    NoEvidenceOfHarm = "No metric shows harm so far."
    MetricFailed = "A metric exceeded its limit."
    NoData = "A metric has too few samples."
    ProviderError = "Prometheus does not answer."
    NotAnalyzing = "No candidate and no pin has traffic."


class VersionRef(ApiModel):
    """A version as it was when it was decided on."""

    version: str
    """Name of the ModelVersion."""
    digest: str
    """Its digest."""
    uri: str
    """Where its files lie; what serves goes on serving when its ModelVersion is deleted."""
    adapter: str
    """The name that engines know it by."""
    since: Timestamp | None = None
    """Since when it has this role."""


class CandidateState(StrEnum):
    """Where a candidate stands."""

    WAITING = "Waiting"
    WALKING = "Walking"
    PROMOTING = "Promoting"


class CandidateStatus(VersionRef):
    """The version that walks."""

    state: CandidateState
    """Waiting for readiness, walking, or being promoted."""
    walk: str
    """Identifies this walk; commands name it."""
    step: int = 0
    """Index of the current step, from 0."""
    weight: Percent = 0
    """Its present share."""
    hash: str = ""
    """Of steps, analysis, base and engine; another one starts the walk again, and with the digest it identifies what failed."""
    primed_at: Timestamp | None = None
    """When every router knew it at weight 0; weight comes when its series were scraped once."""
    step_started_at: Timestamp | None = None
    """When every router had the current step's weight."""
    held_since: Timestamp | None = None
    """Since when hold time runs; absent while it stands still."""
    held_seconds: float = 0
    """Hold time of this step before held_since."""
    valid_until: Timestamp | None = None
    """Routers take the weight back at this time unless an analysis renews it."""


class TrackState(StrEnum):
    """What a track does."""

    SERVING = "Serving"
    WAITING = "Waiting"
    DISPLACED = "Displaced"
    MERGED = "Merged"
    FAILED = "Failed"


class TrackStatus(ApiModel):
    """One track as it is now."""

    name: TrackName
    """canary, staging or production."""
    version: str
    """The version on it."""
    weight: Percent
    """Its present share."""
    slice: Slice
    """Whether the version is stable, the candidate, or a pin."""
    state: TrackState
    """What it does."""
    since: Timestamp | None = None
    """Pins: since when every router knows the version on this track; its analysis begins here."""
    message: Message = ""
    """Why."""


class Verdict(StrEnum):
    """What a measurement says."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a password
    FAIL = "Fail"
    NO_DATA = "NoData"
    PROVIDER_ERROR = "ProviderError"


class MetricStatus(ApiModel):
    """A metric of the present walk (subject: the candidate) or of a pin."""

    subject: str
    """The version that is watched."""
    name: str
    """The metric."""
    verdict: Verdict
    """Of the last measurement."""
    value: float | None = None
    """Last value; absent when it is not a finite number."""
    baseline: float | None = None
    """Production's value over the same minutes."""
    samples: float = 0
    """Samples behind the value."""
    baseline_samples: float = 0
    """Samples behind production's value."""
    failures: float = 0
    """Failures of the subject since the walk began, for rates."""
    baseline_failures: float = 0
    """Failures of the baseline since the walk began, for rates."""
    e_value: float | None = None
    """Evidence of harm; the metric fails at 1 / its share of alpha."""
    consecutive_failures: int = 0
    """Failed measurements in a row."""
    failing_since: Timestamp | None = None
    """When the first of them was made."""
    valid: int = 0
    """Valid measurements in this step."""
    silent_since: Timestamp | None = None
    """Since when there is no data or no provider."""
    message: Message = ""
    """The verdict in a sentence."""
    measured_at: Timestamp | None = None
    """When the last measurement was made."""


class FailedVersion(ApiModel):
    """A version that failed; it is not tried again with the same steps and analysis."""

    version: str
    """Name of the ModelVersion."""
    digest: str
    """Its digest."""
    hash: str
    """Of steps and analysis."""
    reason: str
    """RolledBack, Aborted or ProgressDeadlineExceeded."""
    message: Message
    """What failed, with numbers."""
    at: Timestamp
    """When it was decided."""
    first_failure_at: Timestamp | None = None
    """When the first failed measurement was made, or the command seen."""
    seconds_to_zero: float | None = None
    """From first_failure_at until every router had taken the weight back."""


class Weight(ApiModel):
    """A change of the split."""

    at: Timestamp
    """When it was decided."""
    weights: dict[str, int]
    """Per cent by version."""
    why: Message = ""
    """The reason in a sentence."""


class RolloutStatus(ApiModel):
    """What the operator knows of the rollout."""

    observed_generation: int = 0
    """The metadata.generation that this status speaks of."""
    phase: RolloutPhase = RolloutPhase.PROGRESSING
    """Where the rollout stands."""
    message: Message = ""
    """Where it stands, as a sentence."""
    conditions: Annotated[list[Condition], Field(json_schema_extra=map_by("type"), max_length=16)] = []
    """Ready, Reconciling, Stalled, Available, RollbackReady, Analyzed."""
    stable: VersionRef | None = None
    """The version that everybody else gets."""
    previous: VersionRef | None = None
    """The stable version before; `since` is when it was replaced."""
    candidate: CandidateStatus | None = None
    """The version that walks."""
    tracks: Annotated[list[TrackStatus], Field(json_schema_extra=map_by("name"), max_length=3)] = []
    """Who serves what."""
    weights: str = Field(default="", max_length=256)
    """The split in short, such as support-v1 80 / support-v2 20."""
    step: str = Field(default="", max_length=16)
    """The candidate's step, such as 2/3."""
    metrics: Annotated[list[MetricStatus], Field(json_schema_extra=map_by("subject", "name"), max_length=80)] = []
    """The analysis."""
    failed: Annotated[list[FailedVersion], Field(json_schema_extra=ATOMIC, max_length=10)] = []
    """The last versions that failed, oldest first."""
    history: Annotated[list[Weight], Field(json_schema_extra=ATOMIC, max_length=32)] = []
    """The last changes of the split, oldest first."""
    route_generation: int = 0
    """Number of the route table that routers shall have."""
    acknowledged: bool = False
    """Whether every router has it."""
    handled: Annotated[dict[str, str], Field(max_length=8)] = {}
    """Last handled value of each command annotation."""


class Rollout(ApiModel):
    """A served model with its tracks, its walk and its analysis."""

    api_version: Literal["tuningfork.dev/v1alpha1"] = API_VERSION
    kind: Literal["Rollout"] = "Rollout"
    metadata: ObjectMeta
    spec: RolloutSpec
    status: RolloutStatus | None = None
