"""Carries a plan out: delete, create, apply, then status, then events.

The order is the plan's promise (see `Plan`): deleting first frees names and quota, and the status comes last so that it never claims
what did not happen. Killed between any two writes, the next reconcile sees what was done and plans the rest. Every answer of the
API server is seen at once, as if the watch had brought it: the next plan is not made from what this one has just changed, and whoever
it concerns is looked at again.

The status is replaced as a whole by PUT with the resourceVersion that was observed. A merge patch would keep keys that the new
status no longer has; an apply would need every field's owner to be us for ever. Who changed the object meanwhile causes a conflict,
and the plan is made anew.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from tuningfork.api import timestamp
from tuningfork.api._meta import LABEL_JOB_UID, CommonReason, ConditionStatus, set_condition
from tuningfork.control.compare import finite, needs_apply
from tuningfork.control.controller import Resource, Store
from tuningfork.control.events import EventRecorder
from tuningfork.control.store import name_of
from tuningfork.planning.plan import Manifest, ObjectRef, Plan
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import Kubernetes

logger = logging.getLogger(__name__)


class Executor:
    """``selectors`` has the label by which each known resource is watched (None: all its objects); ``saw`` gets every answer."""

    def __init__(
        self,
        kube: Kubernetes,
        store: Store,
        saw: Callable[[Manifest], object],
        events: EventRecorder,
        selectors: Mapping[Resource, str | None],
    ) -> None:
        self._kube = kube
        self._store = store
        self._saw = saw
        self._events = events
        self._selectors = selectors
        self._resources = {(r.api_version, r.kind): r for r in selectors}

    async def execute(self, parent: Manifest, plan: Plan) -> bool:
        """Whether anything was written."""
        done = [await self._delete(ref) for ref in plan.delete]
        done += [await self._create(parent, manifest) for manifest in plan.create]
        done += [await self._apply(parent, manifest) for manifest in plan.apply]
        if plan.status is not None:
            done.append(await self._write_status(parent, plan.status))
        for event in plan.events:
            await self._events.record(parent, event)
        return any(done)

    async def tell(self, parent: Manifest, problem: str, at: datetime) -> None:
        """Says in the status what keeps a plan from being carried out; all else stays as it was last known."""
        status = parent.get("status") or {}
        conditions: list[Manifest] = status.get("conditions", [])
        missing = {"Ready"} - {condition["type"] for condition in conditions}
        for type_, value in [("Ready", ConditionStatus.FALSE)] * len(missing) + [("Reconciling", ConditionStatus.TRUE)]:
            conditions = set_condition(
                conditions,
                type_,
                value,
                CommonReason.ReconcileError,
                problem,
                generation=parent["metadata"].get("generation", 0),
                now=timestamp(at),
            )
        await self._write_status(parent, {**status, "conditions": conditions, "message": problem[:1024]})

    async def _delete(self, ref: ObjectRef) -> bool:
        live = self._store.get(ref.kind, ref.namespace, ref.name)
        if live and live["metadata"].get("deletionTimestamp"):
            return False
        resource = self._resource(ref.api_version, ref.kind)
        try:
            await self._kube.delete(resource, ref.namespace, ref.name, ref.uid)
        except errors.NotFoundError:
            return False
        except errors.ConflictError:
            return False  # another uid: the object meant is gone, its successor stays
        return True

    async def _create(self, parent: Manifest, manifest: Manifest) -> bool:
        resource = self._watched(manifest)
        try:
            live = await self._kube.create(resource, finite(manifest))
        except errors.AlreadyExistsError:
            self._saw(await self._ours(resource, parent, manifest))
            return False
        self._saw(live)
        return True

    async def _apply(self, parent: Manifest, manifest: Manifest) -> bool:
        resource, desired = self._watched(manifest), finite(manifest)
        live = self._store.get(resource.kind, *name_of(manifest))
        if live is None:
            live = await self._stranger(resource, parent, manifest)
        if live and not is_ours(parent, manifest, live):
            raise errors.TransientError(_not_ours(resource, parent, live))
        if live and not needs_apply(desired, live):
            return False
        self._saw(await self._kube.apply(resource, desired))
        return True

    async def _stranger(self, resource: Resource, parent: Manifest, manifest: Manifest) -> Manifest | None:
        """What has the name of a child that we have not seen: forcing our fields onto another's object would take it over."""
        try:
            live = await self._kube.get(resource, *name_of(manifest))
        except errors.NotFoundError:
            return None
        if is_ours(parent, manifest, live):
            self._saw(live)
        return live

    async def _write_status(self, parent: Manifest, status: Manifest) -> bool:
        wanted = finite(status)
        if wanted == (parent.get("status") or {}):
            return False
        metadata = {key: parent["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        identity = {"apiVersion": parent["apiVersion"], "kind": parent["kind"], "metadata": metadata}
        resource = self._resource(parent["apiVersion"], parent["kind"])
        live = await self._kube.replace_status(resource, identity | {"status": wanted})
        self._saw(live)
        if live.get("status") != wanted:
            changed = ", ".join(sorted(_differences(wanted, live.get("status") or {})))
            logger.warning("%s: the API server keeps the status otherwise (%s): are the CRDs of this version installed?",
                           _title(parent), changed)  # fmt: skip
        return True

    async def _ours(self, resource: Resource, parent: Manifest, manifest: Manifest) -> Manifest:
        """The object that has the name already; an error where it is another's, or on its way out."""
        live = await self._kube.get(resource, *name_of(manifest))
        if not is_ours(parent, manifest, live):
            raise errors.TransientError(_not_ours(resource, parent, live))
        if live["metadata"].get("deletionTimestamp"):
            raise errors.TransientError(f"{_title(live)} is still being deleted; it is created again when that is done")
        return live

    def _watched(self, manifest: Manifest) -> Resource:
        """A child that the watch would never show is refused: it would be planned again for ever."""
        resource = self._resource(manifest["apiVersion"], manifest["kind"])
        label = self._selectors[resource]
        if label and label not in manifest["metadata"].get("labels", {}):
            raise errors.PermanentError(
                f"{_title(manifest)} has no label {label}, by which {resource.plural} are watched"
            )
        return resource

    def _resource(self, api_version: str, kind: str) -> Resource:
        try:
            return self._resources[api_version, kind]
        except KeyError:
            raise errors.PermanentError(f"{kind} ({api_version}) is no resource of a controller's `watched`") from None


def is_ours(parent: Manifest, desired: Manifest, live: Manifest) -> bool:
    """Whether the live object is this parent's: owned by its uid, or for what outlives its parent labelled with it."""
    uid = parent["metadata"]["uid"]
    if desired["metadata"].get("ownerReferences"):
        return any(owner["uid"] == uid for owner in live["metadata"].get("ownerReferences", []))
    return bool(live["metadata"].get("labels", {}).get(LABEL_JOB_UID) == uid)


def _not_ours(resource: Resource, parent: Manifest, live: Manifest) -> str:
    owners = [f"{o['kind']} {o['name']} ({o['uid']})" for o in live["metadata"].get("ownerReferences", [])]
    return (
        f"{_title(live)} exists already and belongs to {' and '.join(owners) or 'nobody'}, not to {_title(parent)}:"
        f" delete or rename that {resource.kind}"
    )


def _title(obj: Manifest) -> str:
    return f"{obj['kind']} {obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _differences(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> set[str]:
    return {key for key in wanted.keys() | live.keys() if wanted.get(key) != live.get(key)}
