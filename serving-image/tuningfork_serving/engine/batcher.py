"""Continuous batching on one thread: requests join and leave between two forward passes.

Every iteration admits waiting requests, runs one chunk of prompts, and gives each running request one token. All of the model's
state is touched by this thread only; others hand in work and get deltas back. Rejected: one generate() a request (a
135M model answers 1-4 short requests a second on two cores, because each pass reads all weights for one row), and static batches
(a short answer waits for the longest one).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from torch import Tensor

from tuningfork_serving.engine.sampling import Sampling, choose
from tuningfork_serving.engine.text import TextStream

logger = logging.getLogger("tuningfork.engine")
T = TypeVar("T")

PROMPT_BUDGET = 512
"""Prompt tokens of one pass: about 1 s for SmolLM2-135M on two cores, the longest that running answers wait for a new prompt."""


class Model(Protocol):
    """What the batcher needs of a model."""

    end_tokens: frozenset[int]

    def forward(self, first_row: int, tokens: list[list[int]], starts: list[int], handles: list[str]) -> Tensor: ...

    def move_row(self, source: int, target: int) -> None: ...

    def unload_adapter(self, handle: str) -> None: ...

    def rest(self) -> None: ...


class Delta(NamedTuple):
    """What an iteration brought to a request."""

    text: str
    tokens: int
    """Tokens behind the text, 0 or 1."""
    finish_reason: str | None = None
    """stop, length, abort or error; the last delta has one."""


@dataclass(eq=False)
class Generation:
    """A request on its way through the batch."""

    prompt: list[int]
    handle: str
    max_tokens: int
    sampling: Sampling
    text: TextStream
    deliver: Callable[[Delta], None]
    """Called on the inference thread; must not block."""
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    """When its prompt was first computed."""
    done: int = 0
    """Prompt tokens in the cache."""
    last: int = 0
    """The newest token, not yet in the cache."""
    generated: int = 0
    aborted: bool = False


class Batcher(threading.Thread):
    """The inference thread."""

    def __init__(self, model: Model, *, max_running: int, max_adapters: int, base: str) -> None:
        super().__init__(name="inference", daemon=True)
        self._model = model
        self._max_running = max_running
        self._max_adapters = max_adapters
        self._base = base
        self._wake = threading.Condition()
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._waiting: deque[Generation] = deque()
        self._decoding: list[Generation] = []
        """Rows 0 to n-1."""
        self._prefilling: list[Generation] = []
        """The rows behind them."""
        self._retired: set[str] = set()
        self._stopping = False

    @property
    def running(self) -> list[Generation]:
        return [*self._decoding, *self._prefilling]

    @property
    def waiting(self) -> list[Generation]:
        return list(self._waiting)

    def submit(self, generation: Generation) -> None:
        with self._wake:
            self._waiting.append(generation)
            self._wake.notify()

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """Runs a function on the inference thread between two iterations."""
        future: Future[T] = Future()
        with self._wake:
            self._calls.append((function, future))  # type: ignore[arg-type]
            self._wake.notify()
        return future

    def retire(self, handle: str) -> None:
        """Frees an adapter once no request that already has it needs it; call it after the last submit."""
        self.call(lambda: self._retired.add(handle))

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def run(self) -> None:
        while self._wait_for_work():
            self._run_calls()
            try:
                self.step()
            except Exception:
                logger.exception("a forward pass failed; its %d requests end with an error", len(self.running))
                self._fail_running()
            self._free()

    def step(self) -> None:
        """One iteration."""
        self._drop_aborted()
        if self._decoding:
            self._decode()
        if not self._prefilling:
            self._admit()
        if self._prefilling:
            self._prefill()

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._stopping or self._calls or self._waiting or self.running)
            return not self._stopping

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):
            function, future = self._calls.popleft()
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)

    def _admit(self) -> None:
        """Takes waiting requests in order while rows, adapters and the prompt budget allow; a longer prompt comes alone."""
        adapters = {g.handle for g in self._decoding} - {self._base}
        longest = 0
        with self._wake:
            for generation in list(self._waiting):
                wanted = adapters | ({generation.handle} - {self._base})
                width = max(longest, len(generation.prompt))
                full = len(self.running) >= self._max_running
                if full or (self._prefilling and width * (len(self._prefilling) + 1) > PROMPT_BUDGET):
                    break
                if len(wanted) > self._max_adapters:
                    continue
                adapters, longest = wanted, width
                self._waiting.remove(generation)
                self._prefilling.append(generation)
                generation.started = time.perf_counter()

    def _prefill(self) -> None:
        group = self._prefilling
        size = max(1, PROMPT_BUDGET // len(group))
        chunks = [g.prompt[g.done : g.done + size] for g in group]
        logits = self._model.forward(len(self._decoding), chunks, [g.done for g in group], [g.handle for g in group])
        for generation, chunk in zip(group, chunks, strict=True):
            generation.done += len(chunk)
        if all(g.done == len(g.prompt) for g in group):
            self._decoding, self._prefilling = self._decoding + group, []
            self._extend(group, logits)

    def _decode(self) -> None:
        rows = self._decoding
        starts = [len(g.prompt) + g.generated - 1 for g in rows]
        logits = self._model.forward(0, [[g.last] for g in rows], starts, [g.handle for g in rows])
        self._extend(list(rows), logits)

    def _extend(self, generations: Sequence[Generation], logits: Tensor) -> None:
        """Gives each generation its next token; those that end leave their row."""
        tokens = choose(logits, [g.sampling for g in generations])
        for generation, token in zip(generations, tokens, strict=True):
            delta = self._advance(generation, token)
            if delta.finish_reason:
                self._release(generation)
            generation.deliver(delta)

    def _advance(self, generation: Generation, token: int) -> Delta:
        generation.generated += 1
        generation.last = token
        if token in self._model.end_tokens:
            return Delta(generation.text.finish(), 1, "stop")
        text = generation.text.push(token)
        if generation.text.stopped:
            return Delta(text, 1, "stop")
        if generation.generated >= generation.max_tokens:
            return Delta(text + generation.text.finish(), 1, "length")
        return Delta(text, 1)

    def _release(self, generation: Generation) -> None:
        """Frees a row: the last decoding row moves into the hole, and the rows behind follow by one."""
        if generation in self._prefilling:
            hole = len(self._decoding) + self._prefilling.index(generation)
            self._prefilling.remove(generation)
            for row in range(hole, len(self.running)):
                self._model.move_row(row + 1, row)
            return
        hole, last = self._decoding.index(generation), len(self._decoding) - 1
        if hole != last:
            self._model.move_row(last, hole)
            self._decoding[hole] = self._decoding[last]
        self._decoding.pop()
        for row in range(last, len(self.running)):
            self._model.move_row(row + 1, row)

    def _drop_aborted(self) -> None:
        with self._wake:
            gone = [g for g in self._waiting if g.aborted]
            for generation in gone:
                self._waiting.remove(generation)
        for generation in [g for g in self.running if g.aborted]:
            self._release(generation)
            gone.append(generation)
        for generation in gone:
            generation.deliver(Delta("", 0, "abort"))

    def _free(self) -> None:
        for handle in self._retired - {g.handle for g in [*self.running, *self.waiting]}:
            self._model.unload_adapter(handle)
            self._retired.remove(handle)
        if not self.running:
            self._model.rest()

    def _fail_running(self) -> None:
        failed, self._decoding, self._prefilling = self.running, [], []
        for generation in failed:
            generation.deliver(Delta("", 0, "error"))
