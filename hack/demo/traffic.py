"""Users: the real openai client asks about the standard library, and rates each answer.

The client does not retry, so that a request which fails is seen to fail. Users are rated by what a person would see: whether the
answer is about what was asked.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import openai

from demo.data import Pair, on_topic

USERS = 400
MAX_TOKENS = 12


@dataclass
class Tally:
    """What the users saw."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    """One line a failed request."""
    rated: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (version, up or down)."""
    first_down: dict[str, float] = field(default_factory=dict)
    """By version: wall time of the first answer that was rated down."""
    last_seen: dict[str, float] = field(default_factory=dict)
    """By version: wall time of its last answer."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, one an answer."""


class Traffic:
    """A steady stream of requests in a thread of its own."""

    def __init__(self, base_url: str, model: str, pairs: list[Pair], *, rate: float, concurrency: int) -> None:
        self.base_url = base_url
        self.model = model
        self.pairs = pairs
        self.rate = rate
        self.concurrency = concurrency
        self.tally = Tally()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="traffic", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the requests that are under way."""
        self._stop.set()
        self._thread.join(timeout=60)

    async def _run(self) -> None:
        http = openai.DefaultAsyncHttpxClient(trust_env=False, timeout=120)  # the cluster is not on the internet
        client = openai.AsyncOpenAI(base_url=f"{self.base_url}/v1", api_key="none", max_retries=0, http_client=http)
        slots = asyncio.Semaphore(self.concurrency)
        running: set[asyncio.Task[None]] = set()
        rng = random.Random(11)
        async with aiohttp.ClientSession(self.base_url, timeout=aiohttp.ClientTimeout(10)) as feedback:
            while not self._stop.is_set():
                await slots.acquire()
                task = asyncio.create_task(
                    self._one(client, feedback, rng.choice(self.pairs), f"user-{rng.randrange(USERS)}")
                )
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(lambda _: slots.release())
                await asyncio.sleep(rng.expovariate(self.rate))
            if running:
                _, pending = await asyncio.wait(running, timeout=50)
                self.tally.failed += [f"{len(pending)} requests never ended"] if pending else []
        await client.close()

    async def _one(self, client: openai.AsyncOpenAI, feedback: aiohttp.ClientSession, pair: Pair, user: str) -> None:
        started = time.monotonic()
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[{"role": "user", "content": pair.question}],
                max_tokens=MAX_TOKENS,
                temperature=0,
                extra_headers={"X-User-Id": user},
            )
        except openai.OpenAIError as error:
            self.tally.failed.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}"[:300])
            return
        self.tally.latencies.append(time.monotonic() - started)
        self.tally.answered += 1
        completion = raw.parse()
        good = on_topic(pair, completion.choices[0].message.content or "")
        rating = "up" if good else "down"
        try:
            async with feedback.post("/v1/feedback", json={"id": completion.id, "rating": rating}) as reply:
                if not reply.ok:
                    self.tally.failed.append(f"feedback {reply.status}: {(await reply.text())[:200]}")
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            self.tally.failed.append(f"feedback: {type(error).__name__}: {error}")
            return
        version = raw.headers.get("x-tuningfork-version", "?")
        self.tally.rated[version, rating] += 1
        self.tally.last_seen[version] = time.time()
        if not good:
            self.tally.first_down.setdefault(version, time.time())
