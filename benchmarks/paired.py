"""How the benchmarks measure: two rivals take turns in one process, and only ratios are reported.

Other work on the machine slows both alike, so the ratio of a pair is steadier than either time; the median over the
pairs leaves out those that were disturbed.
"""

import ctypes
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt in glibc


def speed_up(ours: Callable[[], object], rival: Callable[[], object], pairs: int) -> tuple[float, float, float]:
    """Median of rival / ours over pairs that take turns in going first, and the median seconds of each.

    Args:
        ours, rival: do the work once; called twice before counting.
        pairs: how often.
    """
    for _ in range(2):  # threads, caches and the allocator settle
        ours(), rival()
    times: dict[Callable[[], object], list[float]] = {ours: [], rival: []}
    for i in range(pairs):
        for run in (ours, rival) if i % 2 else (rival, ours):
            start = time.perf_counter()
            run()
            times[run].append(time.perf_counter() - start)
    ratios = [r / o for o, r in zip(times[ours], times[rival], strict=True)]
    return statistics.median(ratios), statistics.median(times[ours]), statistics.median(times[rival])


def keep_memory() -> None:
    """Let this process keep the memory that it frees, where its C library can be told to.

    Tensors beyond 32 MB otherwise go back to the system one by one, which fills every new one with zeros: time that
    starts at some length, whatever the model does, and that a curve over lengths would take for growth.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def growth(lengths: list[int], values: list[float]) -> float:
    """Exponent p of values ~ length^p, by least squares over the doublings."""
    return statistics.linear_regression([math.log(x) for x in lengths], [math.log(y) for y in values]).slope


def peak_of_tensors(run: Callable[[], object]) -> int:
    """Bytes of tensors alive at once while `run` works, from the allocator's own events; the same on every run."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    alive = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def report(name: str, rows: list[dict[str, float | int | str]], note: str) -> None:
    """Print the rows as a table and keep them as `benchmarks/results/<name>.json`."""
    table = Table(*rows[0], box=None, header_style="bold", caption=note)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    folder = Path(__file__).with_name("results")
    folder.mkdir(exist_ok=True)
    result = {"note": note, "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}
    folder.joinpath(f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
