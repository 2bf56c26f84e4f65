"""ModelVersion in the runtime: what is observed for its plan. Every decision is in `tuningfork.planning.modelversion`."""

import math
from datetime import datetime
from typing import Final

from tuningfork.api import API_VERSION, Settings
from tuningfork.api._meta import ANNOTATION_COMMANDS
from tuningfork.control.controller import Key, Outside, Resource, Store, Watched
from tuningfork.planning.modelversion import Observed, is_verified, plan_modelversion, versions_of
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.storage import StorageError, StorageUnavailableError, Verification
from tuningfork.providers.artifacts import Objects, verify_version
from tuningfork.providers.s3 import S3

MODELVERSION: Final = Resource(API_VERSION, "ModelVersion", "modelversions")
ROLLOUT: Final = Resource(API_VERSION, "Rollout", "rollouts")

VERIFY_SECONDS: Final = 3600
"""An artifact is hashed as a stream; the largest adapters take minutes on a slow store."""


class ModelVersionController:
    """Observes and plans; see `tuningfork.control.controller.Controller`."""

    resource = MODELVERSION

    def __init__(self, settings: Settings, store: Store, outside: Outside, objects: Objects | None = None) -> None:
        self._store = store
        self._outside = outside
        self._objects = objects or S3(settings.s3)
        self.watched: tuple[Watched, ...] = (Watched(ROLLOUT, None, self._versions_of),)

    def observe(self, parent: Manifest) -> Observed:
        rollouts = self._store.list("Rollout", parent["metadata"]["namespace"])
        return Observed(parent, None if is_verified(parent) else self._verify(parent), tuple(rollouts))

    def plan(self, observed: Observed, now: datetime) -> Plan:
        return plan_modelversion(observed, now)

    def _verify(self, parent: Manifest) -> Verification | StorageError | None:
        """Read once; again when it could not be read (by the runtime) or when somebody sends another retry command."""
        metadata, artifact = parent["metadata"], parent["spec"]["artifact"]
        uri, digest = artifact["uri"], artifact["digest"]
        retry = metadata.get("annotations", {}).get(ANNOTATION_COMMANDS["retry"], "")
        reading = self._outside.latest(
            ("verify", metadata["uid"], uri, digest, retry),
            Key(self.resource.kind, metadata["namespace"], metadata["name"]),
            lambda: verify_version(self._objects, uri, digest),
            max_age=math.inf,
            timeout=VERIFY_SECONDS,
        )
        if reading is None:
            return None
        if reading.error is None or isinstance(reading.error, StorageError):
            return reading.error or reading.value
        return StorageUnavailableError(str(reading.error) or type(reading.error).__name__)

    def _versions_of(self, rollout: Manifest) -> list[Key]:
        """Versions that the Rollout names now, and those that still say it does."""
        metadata = rollout["metadata"]
        named = versions_of(rollout)
        for version in self._store.list("ModelVersion", metadata["namespace"]):
            if metadata["name"] in (version.get("status") or {}).get("usedBy", ()):
                named.add(version["metadata"]["name"])
        return [Key(self.resource.kind, metadata["namespace"], name) for name in sorted(named)]
