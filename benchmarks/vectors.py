"""Vectors that are not made of single environments, as ratios measured in one run.

    python benchmarks/vectors.py            # everything
    python benchmarks/vectors.py envpool    # some of it

    envpool   masked Pendulum of EnvPool against the same in a SyncVectorEnv, 64 environments,
              collection and learning

Both sides alternate, one torch thread each; medians over rounds.
"""

import argparse
import sys
from typing import Any

import torch
from speed import alternate, make_agent, pendulum, seconds

from recurrent_rl import MaskVelocityVectorWrapper, collect_rollouts_recurrent, make_vect_envs

ENVS = 64


def envpool(rounds: int) -> None:
    """End to end: environment steps a second."""
    for threads in (0, 1):
        pool = make_vect_envs("Pendulum-v1", ENVS, backend="envpool", num_threads=threads)
        envs: list[Any] = [MaskVelocityVectorWrapper(pool), pendulum(ENVS)]
        work = [worker(env, learn_step=128, batch_size=2048, update_epochs=4) for env in envs]
        sides = [lambda do=do: ENVS * 128 / seconds(do) for do in work]
        mine, other, ratio = alternate(*sides, rounds)
        print(
            f"envpool: num_threads={threads}: {mine:,.0f} vs {other:,.0f} steps/s: {ratio:.2f}x",
            flush=True,
        )
        for env in envs:
            env.close()


def worker(env: Any, **options: Any) -> Any:
    """Return a function that collects a rollout and learns from it, warmed up."""
    agent = make_agent(env, 64, gamma=0.9, **options)

    def work() -> None:
        collect_rollouts_recurrent(agent, env)
        agent.learn()

    work()
    return work


def main() -> None:
    """Run the named parts."""
    parts = {"envpool": 9}
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
