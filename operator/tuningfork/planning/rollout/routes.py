"""The two tables for the serving pods, from what this pass decided.

Shares fall at once and rise only to what status already said when this pass began: a pass that dies between ConfigMap and status
then never leaves routers with a share that nobody knows of. A share that the present table has lost (a pass that died after taking it
back) returns only after a new measurement. Adapters are declared before they get weight, and stay until every router let go of them.
"""

from collections.abc import Iterable

from tuningfork.api.rollout import CandidateState, CandidateStatus, Slice, TrackName, VersionRef
from tuningfork.api.routes import (
    AdapterEntry,
    AdapterTable,
    CandidateRoute,
    PinRoute,
    RouteTable,
    RouteTarget,
    engine_service,
)
from tuningfork.delivery.split import candidate_salt, pin_salt
from tuningfork.planning.rollout.analysis import is_watched
from tuningfork.planning.rollout.candidate import within_rollback_window
from tuningfork.planning.rollout.draft import Draft
from tuningfork.planning.rollout.observed import RolloutObserved
from tuningfork.planning.rollout.tracks import Pins
from tuningfork.planning.rollout.versions import is_same


def build_routes(observed: RolloutObserved, draft: Draft, pins: Pins) -> RouteTable:
    """routes.json; its generation rises when anything else in it changes."""
    stable = _stable(observed, draft)
    candidate = None if draft.candidate is None or stable is None else _candidate(observed, draft, draft.candidate)
    if candidate and stable and candidate.adapter == stable.adapter:
        candidate = None
    present = observed.table
    table = RouteTable(
        generation=present.generation if present else observed.status.route_generation,
        namespace=observed.namespace,
        rollout=observed.name,
        model=observed.rollout.spec.model,
        sticky_header=observed.rollout.spec.traffic.sticky_by.header,
        engine_service=f"{engine_service(observed.name)}.{observed.namespace}.svc",
        stable=stable,
        pins=[] if stable is None else [_pin(observed, draft, track, ref) for track, ref in pins.items()],
        candidate=candidate,
        testers=_testers(observed, stable, candidate, pins),
    )
    if table == present:
        return table
    return table.model_copy(update={"generation": max(table.generation, observed.status.route_generation) + 1})


def build_adapters(observed: RolloutObserved, draft: Draft, pins: Pins, routes: RouteTable) -> AdapterTable:
    """adapters.json."""
    entries: dict[str, AdapterEntry] = {}
    promoted = _is_flipping(observed, draft)
    for ref, required in (
        (draft.stable, True),
        (draft.candidate, promoted),
        (_kept_previous(observed, draft), False),
        *((ref, False) for ref in pins.values()),
    ):
        if ref and ref.adapter not in entries:
            entries[ref.adapter] = _entry(ref, required)
    for leaving in _leaving(observed, routes):
        entries.setdefault(leaving.name, leaving)
    return AdapterTable(
        base_uri=observed.rollout.spec.serving.base.uri, adapters=sorted(entries.values(), key=lambda e: e.name)
    )


def _stable(observed: RolloutObserved, draft: Draft) -> RouteTarget | None:
    if observed.status.stable is None or draft.stable is None:
        return None
    if _is_flipping(observed, draft) and draft.candidate:
        return _target(draft.candidate)
    return _target(draft.stable)


def _is_flipping(observed: RolloutObserved, draft: Draft) -> bool:
    """Whether the promotion was written down before this pass and stands."""
    old, new = observed.status.candidate, draft.candidate
    return bool(old and new and old.walk == new.walk and old.state is new.state is CandidateState.PROMOTING)


def _candidate(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> CandidateRoute:
    old, present = observed.status.candidate, observed.table.candidate if observed.table else None
    written = old.weight if old and old.walk == candidate.walk else 0
    routed = present.weight if present and present.adapter == candidate.adapter else 0
    weight = _risen(min(written, candidate.weight), routed, is_watched(observed, draft, candidate.version))
    steps = observed.rollout.spec.strategy.steps
    compares = any(m.compare_to for m in observed.rollout.spec.analysis.metrics)
    return CandidateRoute(
        version=candidate.version,
        adapter=candidate.adapter,
        track=steps[min(candidate.step, len(steps) - 1)].track if steps else TrackName.PRODUCTION,
        weight=weight,
        baseline_weight=weight if compares else 0,
        salt=candidate_salt(observed.rollout.metadata.uid, candidate.adapter),
        valid_until=candidate.valid_until if weight else None,
    )


def _pin(observed: RolloutObserved, draft: Draft, track: TrackName, ref: VersionRef) -> PinRoute:
    old = next((t for t in observed.status.tracks if t.name == track and t.slice is Slice.PIN), None)
    new = next(t for t in draft.tracks if t.name == track)
    written = old.weight if old and old.version == ref.version else 0
    present = next((p for p in observed.table.pins if p.track == track), None) if observed.table else None
    routed = present.weight if present and present.adapter == ref.adapter else 0
    return PinRoute(
        version=ref.version,
        adapter=ref.adapter,
        track=track,
        weight=_risen(min(written, new.weight), routed, is_watched(observed, draft, ref.version)),
        salt=pin_salt(observed.rollout.metadata.uid, track),
    )


def _risen(wanted: int, routed: int, watched: bool) -> int:
    return wanted if watched else min(wanted, routed)


def _testers(
    observed: RolloutObserved, stable: RouteTarget | None, candidate: CandidateRoute | None, pins: Pins
) -> dict[str, RouteTarget]:
    """Who may be asked for by name: every version that every engine answers for."""
    named: list[tuple[str, RouteTarget]] = [(track, _target(ref)) for track, ref in pins.items()]
    if candidate:
        named.append((candidate.track, _target(candidate)))
    if stable:
        named.append((TrackName.PRODUCTION, stable))
    out: dict[str, RouteTarget] = {}
    for key, target in named:
        if observed.loaded_everywhere(target.adapter) or target is stable:
            out |= {str(key): target, target.version: target}
    return dict(sorted(out.items()))


def _kept_previous(observed: RolloutObserved, draft: Draft) -> VersionRef | None:
    """The way back stays loaded until its window ends or somebody else walks."""
    if not within_rollback_window(observed, draft):
        return None
    return draft.previous if draft.candidate is None or is_same(draft.previous, draft.candidate) else None


def _leaving(observed: RolloutObserved, routes: RouteTable) -> Iterable[AdapterEntry]:
    """What was declared and is not wanted any more, while a router may still send requests to it."""
    if observed.adapters is None:
        return []
    let_go = routes == observed.table and observed.acknowledged(routes.generation)
    return [] if let_go else [e.model_copy(update={"required": False}) for e in observed.adapters.adapters]


def _target(ref: VersionRef | RouteTarget) -> RouteTarget:
    return RouteTarget(version=ref.version, adapter=ref.adapter)


def _entry(ref: VersionRef, required: bool) -> AdapterEntry:
    return AdapterEntry(name=ref.adapter, version=ref.version, uri=ref.uri, digest=ref.digest, required=required)
