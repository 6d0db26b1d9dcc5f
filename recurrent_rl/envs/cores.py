"""How many cores this process may use."""

import math
import os
from pathlib import Path

LIMITS = Path("/sys/fs/cgroup")  # where Linux shows those of a container


def available_cores() -> int:
    """Return how many: a process may be bound to some, and a container given the time of some."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    given = container_cores()
    return cores if given is None else min(cores, max(math.ceil(given), 1))


def container_cores(limits: Path | None = None) -> float | None:
    """Return how many cores' time Linux gives to the container; None: as much as there is.

    Args:
        limits: a folder with ``cpu.max``, which says "quota period" or "max period"; or, of the
            older kind, with two files, where a quota of -1 is none. None: ``LIMITS``.

    """
    folder = LIMITS if limits is None else limits
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):  # other systems, and older kernels, have no such file
        try:
            quota = (folder / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return int(quota) / int(period)
