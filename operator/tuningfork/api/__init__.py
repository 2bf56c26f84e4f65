"""The API: three kinds, the job file, and the tables that serving pods read. Pydantic only; no I/O."""

from tuningfork.api._base import API_VERSION, GROUP, VERSION, ApiModel, parse_time, seconds, timestamp
from tuningfork.api.finetunejob import FineTuneJob, FineTuneJobSpec, FineTuneJobStatus
from tuningfork.api.jobfile import ExitCode, JobFile
from tuningfork.api.modelversion import ModelVersion, ModelVersionSpec, ModelVersionStatus
from tuningfork.api.rollout import Rollout, RolloutSpec, RolloutStatus
from tuningfork.api.settings import Settings

__all__ = [
    "API_VERSION",
    "GROUP",
    "VERSION",
    "ApiModel",
    "ExitCode",
    "FineTuneJob",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "JobFile",
    "ModelVersion",
    "ModelVersionSpec",
    "ModelVersionStatus",
    "Rollout",
    "RolloutSpec",
    "RolloutStatus",
    "Settings",
    "parse_time",
    "seconds",
    "timestamp",
]
