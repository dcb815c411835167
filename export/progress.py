"""The progress that export shows while it works."""

from collections.abc import Iterable, Iterator
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Steps:
    """One line for each step: a spinner and seconds while it runs, a bar where it is known how long it is."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TimeElapsedColumn(),
            BarColumn(bar_width=10),
            TextColumn("{task.description}"),  # last: where the terminal is narrow, it is cut
            console=console,
        )
        self._current: TaskID | None = None

    def __enter__(self) -> "Steps":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()

    def say(self, step: str) -> None:
        """Begin a step; the one before is done."""
        self._finish()
        self._current = self._progress.add_task(step, total=None)

    def track(self, items: Iterable[int], step: str) -> Iterator[int]:
        """Begin a step that goes through `items`."""
        self._finish()
        yield from self._progress.track(items, description=step)

    def warn(self, message: str) -> None:
        """Print what may be wrong, above the steps."""
        self._progress.console.print(f"[yellow]warning:[/] {escape(message)}", soft_wrap=True)

    def _finish(self) -> None:
        if self._current is not None:
            self._progress.update(self._current, total=1, completed=1)
            self._current = None
