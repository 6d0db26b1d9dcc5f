"""One agent in several processes: environment steps a second against one process, taking turns.

    python benchmarks/ranks.py                 # 1 and 2 processes, masked Pendulum 16 x 128
    python benchmarks/ranks.py --ranks 4 --envs 8

Each process has one torch thread and environments of its own. ``same`` gives every process as many
as the one has; ``split`` deals the one's environments, and its minibatches, out among them;
``apart`` has processes that know nothing of each other, which is what the machine allows.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time

import gymnasium as gym
import torch

from recurrent_rl import (
    PPO,
    MaskVelocityWrapper,
    collect_rollouts_recurrent,
    distributed,
    make_vect_envs,
)

STEPS = 128


def measure(envs: int, batch_size: int, rollouts: int) -> None:
    """Train in this process, one of those that torchrun has started; print steps a second."""
    torch.set_num_threads(1)
    world = distributed.init()

    def make_env() -> gym.Env:  # type: ignore[type-arg]
        return MaskVelocityWrapper(gym.make("Pendulum-v1", disable_env_checker=True))

    env = make_vect_envs(make_env=make_env, num_envs=envs, should_async_vector=False)
    agent = PPO(
        env.single_observation_space,
        env.single_action_space,
        learn_step=STEPS,
        batch_size=batch_size,
        update_epochs=4,
        share_encoders=True,
        seed=0,
    )
    began, before = 0.0, 0
    for i in range(rollouts + 2):
        if i == 2:  # warm
            began, before = time.perf_counter(), agent.env_steps
        collect_rollouts_recurrent(agent, env)
        agent.learn()
    if world.is_first:
        print((agent.env_steps - before) / (time.perf_counter() - began))


def speed(ranks: int, envs: int, batch_size: int, rollouts: int, *, apart: bool = False) -> float:
    """Return steps a second of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun sets, which puts its processes into sessions, and so priorities, of their own.
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--worker", str(envs), str(batch_size), str(rollouts)],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **({} if apart else {**world, "RANK": str(rank)}),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    said = "".join(process.communicate()[0] for process in started)
    return sum(map(float, said.split()))


def main() -> None:
    """Print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--envs", type=int, default=16)
    parser.add_argument("--rollouts", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measure(*options.worker)
        return
    ranks, envs, batch = options.ranks, options.envs, 2 * STEPS
    kinds = {
        "one": (1, envs, batch),
        "apart": (ranks, envs, batch),
        "same": (ranks, envs, batch),
        "split": (ranks, envs // ranks, batch // ranks),
    }
    seen: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.rounds):
        for name, kind in kinds.items():
            seen[name].append(speed(*kind, options.rollouts, apart=name in ("one", "apart")))
    one = statistics.median(seen["one"])
    for name, (count, each, size) in kinds.items():
        found = statistics.median(seen[name])
        work = f"{count} x {each} environments x {STEPS}, minibatches of {size} each"
        print(f"{name:6} {work}: {found:,.0f} steps/s, {found / one:.2f}x")


if __name__ == "__main__":
    main()
