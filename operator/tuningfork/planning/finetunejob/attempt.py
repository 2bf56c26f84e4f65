"""One try to prepare or to train: a number, a name, and what it was sized with."""

from dataclasses import dataclass

from tuningfork.api._meta import LABEL_ATTEMPT, LABEL_STAGE, derived_name
from tuningfork.api.finetunejob import Sizing
from tuningfork.planning.finetunejob.observed import ANNOTATION_SIZING, LABEL_SPEC_HASH
from tuningfork.planning.plan import Manifest


@dataclass(frozen=True)
class Attempt:
    """One batch/v1 Job to be."""

    stage: str
    number: int
    spec_hash: str
    output: str
    sizing: Sizing | None = None
    """Of a training attempt."""
    memory_raises: int = 0
    """How often host memory ran out before."""

    def job_name(self, job: str) -> str:
        return derived_name((job, self.spec_hash[:5], self.stage, str(self.number)))


def read_attempt(job: Manifest, output: str) -> Attempt:
    """The attempt that an existing Job is."""
    metadata = job["metadata"]
    sizing = metadata.get("annotations", {}).get(ANNOTATION_SIZING)
    return Attempt(
        stage=metadata["labels"][LABEL_STAGE],
        number=int(metadata["labels"][LABEL_ATTEMPT]),
        spec_hash=metadata["labels"][LABEL_SPEC_HASH],
        output=output,
        sizing=Sizing.model_validate_json(sizing) if sizing else None,
    )
