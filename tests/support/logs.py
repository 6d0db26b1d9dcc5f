"""Logged runs for tests that read them, written as training writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recurrent_rl import MetricsLogger

TAG = "eval/mean_reward"


def write_run(
    folder: Path,
    numbers: Sequence[float],
    steps: Sequence[int] | None = None,
    *,
    tag: str = TAG,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Log one tag at some steps, 100 apart unless they are given; returns the folder."""
    with MetricsLogger(folder, tensorboard=False) as logger:
        for i, number in enumerate(numbers):
            step = 100 * (i + 1) if steps is None else steps[i]
            logger.log(step, {tag: number, "time/fps": 1000.0})
        if config is not None:
            logger.write_config(config)
    return folder


def write_seeds(folder: Path, level: float, seeds: int = 3, **config: Any) -> Path:
    """Runs of some seeds, which grow to about ``level``; returns the folder above them."""
    for seed in range(seeds):
        numbers = [level * (t + 1) / 4 + seed for t in range(4)]
        about = {"algorithm": "PPO", "environment": "Cart-v0", "seed": seed, **config}
        write_run(folder / str(seed), numbers, config=about)
    return folder
