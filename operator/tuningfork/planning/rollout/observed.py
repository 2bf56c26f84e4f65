"""Everything that the plan of a Rollout is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from tuningfork.api import ModelVersion, Rollout, RolloutStatus, Settings
from tuningfork.api.routes import (
    ADAPTERS_KEY,
    ROUTES_KEY,
    AdapterTable,
    LoaderState,
    RouterState,
    RouteTable,
    serving_config_map,
)
from tuningfork.delivery.queries import Measurement
from tuningfork.planning.plan import Manifest

T = TypeVar("T", RouteTable, AdapterTable)


@dataclass(frozen=True)
class EnginePod:
    """An engine pod that is not being deleted; ``loader`` is None while it does not answer."""

    name: str
    ready: bool
    loader: LoaderState | None = None

    def holds(self, adapter: str) -> bool:
        """Whether the engine answers for the adapter; silence is no."""
        if self.loader is None or not self.loader.engine_up:
            return False
        state = self.loader.adapters.get(adapter)
        return state is not None and state.state == "Loaded"


@dataclass(frozen=True)
class RouterPod:
    """A router pod that is not being deleted; ``state`` is None while it does not answer."""

    name: str
    ready: bool
    state: RouterState | None = None


@dataclass(frozen=True)
class RolloutObserved:
    """A Rollout and its world at one moment."""

    raw: Manifest
    rollout: Rollout
    settings: Settings
    versions: Mapping[str, ModelVersion] = field(default_factory=dict)
    siblings: tuple[Rollout, ...] = ()
    """The namespace's other Rollouts."""
    children: Mapping[tuple[str, str], Manifest] = field(default_factory=dict)
    """By kind and name."""
    engines: tuple[EnginePod, ...] = ()
    routers: tuple[RouterPod, ...] = ()
    measurements: Mapping[tuple[str, str], Measurement] = field(default_factory=dict)
    """The latest ones by version and metric, made for the present walk and step."""
    asked: bool = True
    """Whether pods that have an address were asked at least once; false just after the operator's start."""

    @property
    def name(self) -> str:
        return self.rollout.metadata.name

    @property
    def namespace(self) -> str:
        return self.rollout.metadata.namespace

    @cached_property
    def status(self) -> RolloutStatus:
        """What was written down last; empty at first."""
        return self.rollout.status or RolloutStatus()

    @cached_property
    def table(self) -> RouteTable | None:
        """The routes in the ConfigMap."""
        return _read(RouteTable, self._config_data().get(ROUTES_KEY))

    @cached_property
    def adapters(self) -> AdapterTable | None:
        """The adapters in the ConfigMap."""
        return _read(AdapterTable, self._config_data().get(ADAPTERS_KEY))

    def loaded_everywhere(self, adapter: str) -> bool:
        """Whether every engine pod that serves or starts answers for the adapter, and as many as the spec asks for."""
        replicas = self.rollout.spec.serving.replicas or 1
        return len(self.engines) >= replicas and all(pod.holds(adapter) for pod in self.engines)

    def load_problem(self, adapter: str) -> str:
        """Why it is not loaded everywhere, as a sentence."""
        failed = [
            f"{pod.name}: {state.message}"
            for pod in self.engines
            if pod.loader and (state := pod.loader.adapters.get(adapter)) and state.state == "Failed"
        ]
        holding = sum(pod.holds(adapter) for pod in self.engines)
        wanted = max(len(self.engines), self.rollout.spec.serving.replicas or 1)
        return f"{holding} of {wanted} engine pods answer for it" + (f" ({failed[0]})" if failed else "")

    def acknowledged(self, generation: int) -> bool:
        """Whether every router that takes requests has that route table or a newer one."""
        ready = [pod for pod in self.routers if pod.ready]
        return bool(ready) and all(pod.state is not None and pod.state.generation >= generation for pod in ready)

    @property
    def serves(self) -> bool:
        """Whether a request for the stable version is answered now: its adapter in a ready engine, a ready router."""
        stable = self.status.stable
        if stable is None or not any(pod.ready for pod in self.routers):
            return False
        return any(pod.ready and pod.holds(stable.adapter) for pod in self.engines)

    def _config_data(self) -> Mapping[str, str]:
        child = self.children.get(("ConfigMap", serving_config_map(self.name)))
        return (child or {}).get("data") or {}


def _read(model: type[T], text: str | None) -> T | None:
    """A table that nobody can read (somebody edited it, a newer operator wrote it) is written anew."""
    try:
        return model.model_validate_json(text) if text else None
    except ValidationError:
        return None
