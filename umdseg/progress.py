"""Progress with rate and time left, for anything longer than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
QUIET_S = 2.0
LINE_EVERY_S = 10.0


def track(
    items: Iterable[T], what: str, unit: str = "item", show: bool = True, total: int | None = None
) -> Iterator[T]:
    """Iterate over `items` and tell on standard error how far it is.

    A terminal gets a bar; anything else plain lines, at most one in ten seconds. Work that ends
    within two seconds says nothing.

    Args:
        items: what to iterate over.
        what: what is being done.
        unit: one item, singular.
        show: False keeps quiet.
        total: how many items there are; None asks `items`, which then must have a length.
    """
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    if not show:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, count, what, unit)
    else:
        yield from _lines(items, count, what, unit)


def _lines(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    start = time.monotonic()
    last, told = start, False
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        due = now - last >= LINE_EVERY_S or (done == total and (told or now - start >= LINE_EVERY_S))
        first = not told and now - start >= QUIET_S
        if due or first:
            last, told = now, True
            print(f"{what}: {_state(done, total, now - start, unit)}", file=sys.stderr, flush=True)


def _state(done: int, total: int, seconds: float, unit: str) -> str:
    rate = done / max(seconds, 1e-9)
    speed = f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s per {unit}"
    return f"{done}/{total} {unit}s, {speed}, {_clock((total - done) / rate)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    start, shown = time.monotonic(), False
    task = bar.add_task(what, total=total, speed="")
    try:
        for done, item in enumerate(items, start=1):
            yield item
            seconds = time.monotonic() - start
            if not shown and seconds >= QUIET_S:
                bar.start()
                shown = True
            rate = done / max(seconds, 1e-9)
            speed = f"{rate:.1f} {unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit}"
            bar.update(task, completed=done, speed=speed)
    finally:
        if shown:
            bar.stop()
