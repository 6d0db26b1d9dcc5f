"""Vectors that are not made of single environments, as ratios measured in one run.

    python benchmarks/vectors.py            # everything
    python benchmarks/vectors.py envpool    # some of it

    envpool   masked Pendulum of EnvPool against the same in a SyncVectorEnv, 64 environments,
              collection and learning, and collection alone

Both sides alternate, one torch thread each; medians over rounds, of the time on the clock and of
the processor's, which says the same on an idle machine and more on one that is not.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from speed import make_agent, pendulum

from recurrent_rl import MaskVelocityVectorWrapper, collect_rollouts_recurrent, make_vect_envs

ENVS, STEPS = 64, 128


def envpool(rounds: int) -> None:
    """Environment steps a second."""
    # One thread of EnvPool's, as of torch's: the two take turns.
    pool = make_vect_envs("Pendulum-v1", ENVS, backend="envpool", num_threads=1)
    sides: list[Any] = [MaskVelocityVectorWrapper(pool), pendulum(ENVS)]
    for label, learns in (("collecting and learning", True), ("collecting", False)):
        work = [worker(env, learns) for env in sides]
        pairs = [(timed(work[0]), timed(work[1])) for _ in range(rounds)]
        for clock, name in enumerate(("time", "processor time")):
            mine, other = ([pair[side][clock] for pair in pairs] for side in (0, 1))
            ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
            speeds = [ENVS * STEPS / statistics.median(each) for each in (mine, other)]
            print(
                f"envpool: {label}, {name}: {speeds[0]:,.0f} vs {speeds[1]:,.0f} steps/s: "
                f"{ratio:.2f}x",
                flush=True,
            )
    for env in sides:
        env.close()


def worker(env: Any, learns: bool) -> Callable[[], None]:
    """Return a function that collects a rollout and may learn from it, warmed up."""
    agent = make_agent(env, 64, gamma=0.9, learn_step=STEPS, batch_size=2048, update_epochs=4)

    def work() -> None:
        collect_rollouts_recurrent(agent, env)
        if learns:
            agent.learn()

    work()
    return work


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the clock, and of this process's threads."""
    begin = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def main() -> None:
    """Run the named parts."""
    parts = {"envpool": 15}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one torch thread")
    for name, rounds in parts.items():
        if not options.parts or name in options.parts:
            globals()[name](rounds)


if __name__ == "__main__":
    main()
