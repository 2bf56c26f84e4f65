"""The one place where the kinds are put together with the runtime."""

from collections.abc import Callable

from tuningfork.api import Settings
from tuningfork.control.controller import Controller, Outside, Store
from tuningfork.control.finetunejob import FineTuneJobController
from tuningfork.control.intake import ProgressBoard
from tuningfork.control.modelversion import ModelVersionController
from tuningfork.control.rollout import RolloutController


def build_controllers(
    settings: Settings, store: Store, outside: Outside, progress: ProgressBoard, ca_pem: Callable[[], str]
) -> list[Controller]:
    """Every kind that this operator reconciles. ``ca_pem`` is the certificate authority of the intake, empty until it is made."""
    return [
        FineTuneJobController(settings, store, outside, progress, ca_pem),
        ModelVersionController(settings, store, outside),
        RolloutController(settings, store, outside),
    ]
