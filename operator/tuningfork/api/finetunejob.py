"""FineTuneJob: "tune this model on this data, within this budget, and only accept it if it is better"."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from tuningfork.api._base import (
    API_VERSION,
    ATOMIC,
    SET,
    ApiModel,
    ArtifactUri,
    Digest,
    DnsLabel,
    Message,
    Rule,
    Timestamp,
    map_by,
)
from tuningfork.api._meta import Condition, ObjectMeta, Reason


class Objective(StrEnum):
    """What is learned."""

    SFT = "SFT"


class MethodType(StrEnum):
    """Which parameters learn it."""

    LORA = "LoRA"


class DataFormat(StrEnum):
    """How the rows of a source are written; Auto looks at them."""

    AUTO = "Auto"
    ALPACA = "Alpaca"
    SHAREGPT = "ShareGPT"
    OPENAI_CHAT = "OpenAIChat"


class PIIKind(StrEnum):
    """A kind of personal data."""

    EMAIL = "Email"
    PHONE = "Phone"
    SSN = "SSN"


class GateMetric(StrEnum):
    """A metric of the held-out test split."""

    PERPLEXITY = "perplexity"


class ModelSource(ApiModel):
    """Where the base model lies."""

    uri: ArtifactUri
    """Prefix of a Hugging Face checkpoint: config.json, safetensors, tokenizer. Pickled weights are refused."""


class LoRA(ApiModel):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: Annotated[int, Field(ge=1, le=512)] = 8
    """Rank of the update; trainable parameters grow linearly with it."""
    alpha: Annotated[int, Field(ge=1, le=2048)] = 16
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the adapter's inputs dropped in training."""
    target_modules: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=64)]],
        Field(min_length=1, max_length=32, json_schema_extra=SET),
    ] = ["all-linear"]
    """Names of the modules that get an adapter; all-linear means every linear layer but the output head."""


class Method(ApiModel):
    """The fine-tuning method and its settings."""

    type: MethodType = MethodType.LORA
    """Which method."""
    lora: LoRA = LoRA()
    """Settings of LoRA."""


class DataSource(ApiModel):
    """One file of examples."""

    name: DnsLabel
    """Name of the source in reports."""
    uri: ArtifactUri
    """A .jsonl or .json file."""
    format: DataFormat = DataFormat.AUTO
    """How its rows are written."""


class Cleaning(ApiModel):
    """What is removed or redacted before training. Empty answers and exact duplicates always go."""

    redact_pii: Annotated[list[PIIKind], Field(alias="redactPII", max_length=16, json_schema_extra=SET)] = []
    """Kinds of personal data that are replaced by a placeholder such as [EMAIL]."""


class Split(ApiModel):
    """Shares of the cleaned examples; the rest of the division goes to train."""

    cel_rules: ClassVar = (
        Rule(
            "self.train + self.validation + self.test > 0.999 && self.train + self.validation + self.test < 1.001",
            "split: train, validation and test must add up to 1",
        ),
    )

    train: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share that is trained on."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share that is watched during training."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share that only the evaluation sees; gates are decided on it."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the assignment."""


class Data(ApiModel):
    """The data half of the job."""

    sources: Annotated[list[DataSource], Field(min_length=1, max_length=32, json_schema_extra=map_by("name"))]
    """Where the examples lie; several are read one after the other."""
    cleaning: Cleaning = Cleaning()
    """What is removed or redacted."""
    split: Split = Split()
    """How examples are divided."""


class Training(ApiModel):
    """Hyperparameters; what is left out is chosen, and shown in status.resolved."""

    epochs: Annotated[float, Field(gt=0, le=100)] = 3
    """Passes over the training split."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Upper bound of optimizer steps; absent means that epochs decide."""
    effective_batch_size: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Examples an optimizer step, whatever the micro batch and the number of accelerators."""
    max_sequence_length: Annotated[int, Field(ge=16, le=1_048_576)] = 1024
    """Tokens; a longer example is left out and counted, never cut silently."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak learning rate; absent means that it is chosen by method."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of initialisation and order."""


class Baseline(StrEnum):
    """What a gate compares with."""

    BASELINE = "Baseline"


class Gate(ApiModel):
    """A condition that the tuned model must meet on the test split, or the job is Rejected."""

    metric: GateMetric
    """The metric; lower is better."""
    compare_to: Baseline = Baseline.BASELINE
    """Baseline is the untuned model on the same tokens."""
    max_ratio: Annotated[float, Field(gt=0, le=100)]
    """Tuned divided by baseline may be at most this."""


class Evaluation(ApiModel):
    """What is measured after training, and what must hold."""

    cel_rules: ClassVar = (
        Rule(
            "self.baseline || self.gates.all(g, g.compareTo != 'Baseline')",
            "evaluation: a gate compares to Baseline, so baseline must be true",
        ),
    )

    baseline: bool = True
    """Measure the untuned model on the same test split."""
    gates: Annotated[list[Gate], Field(max_length=16, json_schema_extra=map_by("metric", "compareTo"))] = []
    """Conditions that decide between Succeeded and Rejected; none means that every finished run is accepted."""


Accelerator = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Compute(ApiModel):
    """What the job may run on."""

    accelerators: Annotated[list[Accelerator], Field(max_length=16, json_schema_extra=ATOMIC)] = []
    """Accepted accelerators, preferred first, such as nvidia-a100-80gb; cpu for clusters without GPUs. Empty accepts any
    accelerator that the cluster has."""


class Checkpoints(ApiModel):
    """When state is saved for a resume."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Optimizer steps between two checkpoints; one is also saved when the pod is asked to stop."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """How many are kept."""


class Register(ApiModel):
    """Under which model a successful run is registered."""

    model: Annotated[DnsLabel, Field(max_length=40)]
    """The ModelVersion is called <model>-v<n>, which must not exceed 50 characters."""


class Output(ApiModel):
    """Where results go."""

    uri: ArtifactUri
    """Results lie under <uri>/<namespace>/<name>/<spec hash>."""
    register_: Register | None = Field(default=None, alias="register")
    """Register a ModelVersion when the gates pass; absent means that only the files are kept."""


class FineTuneJobSpec(ApiModel):
    """What shall be tuned, on what, and when the result is good enough."""

    model: ModelSource
    """The base model."""
    objective: Objective = Objective.SFT
    """What is learned: SFT is supervised fine-tuning on answers."""
    method: Method = Method()
    """Which parameters learn it."""
    data: Data
    """The examples."""
    training: Training = Training()
    """Hyperparameters."""
    evaluation: Evaluation = Evaluation()
    """Measurements and gates."""
    compute: Compute = Compute()
    """What the job may run on."""
    checkpoints: Checkpoints = Checkpoints()
    """When state is saved."""
    output: Output
    """Where results go."""
    suspend: bool = False
    """True ends the running pods after a checkpoint; false goes on from it."""
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """How often a counted failure may be retried. Preemption, eviction and node loss are not counted; wrong data or
    configuration is never retried."""


class Phase(StrEnum):
    """Where a job stands; derived from its conditions."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    SIZING = "Sizing"
    QUEUED = "Queued"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"
    SUSPENDED = "Suspended"

    @property
    def terminal(self) -> bool:
        """Whether nothing more happens without a change of the spec."""
        return self in {Phase.SUCCEEDED, Phase.REJECTED, Phase.FAILED}


class JobCondition(StrEnum):
    """Condition types of a FineTuneJob: kstatus's three, then one a stage."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATA_PREPARED = "DataPrepared"
    SIZED = "Sized"
    TRAINED = "Trained"
    EVALUATED = "Evaluated"
    REGISTERED = "Registered"


class JobReason(Reason):
    """Every reason that a condition of a FineTuneJob can have."""

    Pending = "Nothing was started yet."
    Preparing = "The prepare Job fetches, cleans and counts the data; it takes no accelerator."
    Prepared = "The prepared data lies in the output with a verified manifest."
    Sized = "An accelerator and a count were chosen; see status.sizing."
    NothingFits = "No accepted accelerator of this cluster can hold the run; the message says what would."
    Queued = "The training Job waits to be scheduled."
    Training = "The training Job runs."
    Trained = "Training is over and the artifacts are verified."
    Evaluating = "The tuned model and the baseline are being measured."
    Exporting = "Artifacts are being written."
    GatesPassed = "Every gate passed."
    GateFailed = "A gate did not pass; the tuned model is not registered."
    Registered = "The ModelVersion exists."
    NotRequested = "spec.output.register is absent."
    Succeeded = "The run is over and accepted."
    Suspended = "spec.suspend is true."
    Retrying = "An attempt failed and the next one is on its way."
    Interrupted = "An attempt was evicted, preempted or lost its node; the next resumes from the last checkpoint."
    RetriesExhausted = "Counted failures exceed spec.retries."
    InvalidSpec = "The spec cannot work; the message names the field, the value and the fix."
    DataNotFound = "A data source does not exist."
    DataUnusable = "No usable example survived reading and cleaning."
    ModelNotFound = "The base model does not exist at its URI."
    ModelUnusable = "The base model does not load."
    StorageDenied = "The object store refused access."
    StorageUnavailable = "The object store cannot be reached; it is tried again."
    OutOfMemory = "Host or accelerator memory ran out."
    PodStartFailed = "The pod cannot start: image, secret or volume."
    ArtifactInvalid = "Artifacts do not match their manifest."
    Failed = "The run ended with an error; the message has its last words."


class Sizing(ApiModel):
    """What the run needs and where it goes."""

    accelerator: str
    """The chosen accelerator."""
    count: int
    """Accelerators in all; 0 for cpu."""
    nodes: int
    """Nodes."""
    per_gpu_bytes: int
    """Predicted peak memory of one accelerator (for cpu: of the pod), bytes."""
    breakdown: dict[str, int]
    """The parts of perGpuBytes, bytes."""
    micro_batch_size: int
    """Examples a forward pass."""
    gradient_accumulation_steps: int
    """Forward passes an optimizer step."""
    gradient_checkpointing: bool
    """Whether activations are recomputed."""
    message: Message = ""
    """The choice in a sentence, with what was assumed."""


class Progress(ApiModel):
    """How far training is; reported by the pod."""

    stage: str = ""
    """The trainer's stage: train, evaluate or export."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps in all."""
    percent: int = 0
    """0 to 100."""
    loss: float | None = None
    """Training loss of the last logged step, nats a token; absent when it is not a finite number."""
    tokens_per_second: float | None = None
    """Trained tokens a second, padding not counted."""
    eta_seconds: int | None = None
    """Seconds until the last step, at the present speed."""
    updated_at: Timestamp | None = None
    """When the pod last reported."""


class DataStatus(ApiModel):
    """What became of the rows."""

    read: int
    """Rows read."""
    kept: int
    """Rows kept."""
    removed: dict[str, int] = Field(default_factory=dict)
    """Rows removed, by reason."""
    redacted: dict[str, int] = Field(default_factory=dict)
    """Pieces of personal data replaced, by kind."""
    train: int = 0
    """Examples in the train split."""
    validation: int = 0
    """Examples in the validation split."""
    test: int = 0
    """Examples in the test split."""
    tokens: int = 0
    """Tokens of the train split, prompts included."""
    longest_tokens: int = 0
    """Tokens of the longest kept example."""
    formats: dict[str, str] = Field(default_factory=dict)
    """Format by source name, as detected or declared."""
    digest: Digest | None = None
    """Of the prepared splits."""


class GateResult(ApiModel):
    """A gate's verdict."""

    metric: str
    """The metric."""
    value: float | None = None
    """The tuned model's value."""
    baseline: float | None = None
    """The baseline's value."""
    threshold: float
    """The gate's maxRatio."""
    ratio: float | None = None
    """value / baseline."""
    passed: bool
    """Whether the gate passed."""


class EvaluationStatus(ApiModel):
    """Measurements on the test split."""

    baseline: dict[str, float] = Field(default_factory=dict)
    """The untuned model, by metric."""
    tuned: dict[str, float] = Field(default_factory=dict)
    """The tuned model, by metric."""
    tokens: int = 0
    """Answer tokens that both were measured on."""
    gates: Annotated[list[GateResult], Field(json_schema_extra=map_by("metric"))] = []
    """Each gate's verdict."""


class Outcome(StrEnum):
    """How an attempt ended."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    REJECTED = "Rejected"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"
    SUSPENDED = "Suspended"


class Run(ApiModel):
    """One attempt: one batch/v1 Job."""

    attempt: int
    """Its number, from 1."""
    stage: str
    """prepare or train."""
    job_name: str
    """Name of the batch/v1 Job."""
    outcome: Outcome
    """How it ended."""
    counted: bool = False
    """Whether it counts against spec.retries."""
    exit_code: int | None = None
    """Exit status of the trainer's container."""
    reason: str = ""
    """Why it ended, as one word."""
    message: Message = ""
    """Why it ended, as a sentence."""
    resumed_from_step: int | None = None
    """The step that it started from; absent or 0 when from the beginning."""
    started_at: Timestamp | None = None
    """When the Job was created."""
    ended_at: Timestamp | None = None
    """When its end was seen."""


class FineTuneJobStatus(ApiModel):
    """What the operator knows of the job; written by nobody else."""

    observed_generation: int = 0
    """The metadata.generation that this status speaks of."""
    phase: Phase = Phase.PENDING
    """Where the job stands."""
    message: Message = ""
    """Where the job stands, as a sentence."""
    conditions: Annotated[list[Condition], Field(json_schema_extra=map_by("type"), max_length=16)] = []
    """Ready, Reconciling, Stalled, and one a stage."""
    spec_hash: str | None = None
    """Hash of what decides the result: the name of the output folder."""
    output: str | None = None
    """Where this spec's results lie."""
    resolved: dict[str, Any] | None = None
    """Every value that was defaulted or derived."""
    sizing: Sizing | None = None
    """What the run needs and where it goes."""
    data: DataStatus | None = None
    """What became of the rows."""
    progress: Progress | None = None
    """How far training is."""
    evaluation: EvaluationStatus | None = None
    """Baseline, tuned, gates."""
    attempts: int = 0
    """Training attempts so far."""
    runs: Annotated[list[Run], Field(json_schema_extra=ATOMIC, max_length=50)] = []
    """The last attempts, oldest first."""
    model_version: str | None = None
    """The registered ModelVersion."""


class FineTuneJob(ApiModel):
    """A fine-tuning with its data, budget and gates."""

    api_version: Literal["tuningfork.dev/v1alpha1"] = API_VERSION
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    metadata: ObjectMeta
    spec: FineTuneJobSpec
    status: FineTuneJobStatus | None = None
