"""How the demo tells what happens: numbered chapters, one progress bar at a time, no flood of logs."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Story:
    """Prints to the terminal; in a pipe the bars are left out and the sentences stay."""

    def __init__(self) -> None:
        wide = None if sys.stdout.isatty() else 140  # a pipe has no width of its own
        self.console = Console(highlight=False, width=wide)
        self.started = time.monotonic()
        self._chapter = 0

    def chapter(self, title: str) -> None:
        """Begins the next part."""
        self._chapter += 1
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        self.console.print(f"\n[bold]{self._chapter}. {title}[/bold]  [dim]{minutes}:{seconds:02d}[/dim]")

    def say(self, text: str) -> None:
        """One sentence."""
        self.console.print(f"   {text}", soft_wrap=True)

    @contextmanager
    def bar(self, text: str, total: float = 100) -> Iterator["Bar"]:
        """A progress bar while something goes on."""
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            yield Bar(progress, progress.add_task(text, total=total, note=""))


class Bar:
    """A progress bar with a note at its side."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, done: float, note: str = "", text: str | None = None) -> None:
        """Moves the bar."""
        self._progress.update(self._task, completed=done, note=note)
        if text is not None:
            self._progress.update(self._task, description=text)
