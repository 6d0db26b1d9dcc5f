"""Speed, as ratios measured in one run: both sides alternate, one torch thread each.

    python benchmarks/speed.py                     # everything (the peer is installed at first)
    python benchmarks/speed.py learner policy      # some of it

    peer      end to end against sb3-contrib RecurrentPPO, the same work, two kinds
    learner   learner samples/s against bare nn.LSTM forward + backward on the same shapes
    policy    the policy's part of a collection step against stepping the environments
    resets    learner's time with a reset at each step with probability 0.1 against none
    growth    time for each environment step as environments and steps grow
    memory    buffer memory against the sum of its declared fields

Medians over alternating rounds; absolute figures drift from machine to machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import nn

from recurrent_rl import PPO, MaskVelocityWrapper, collect_rollouts_recurrent, make_vect_envs
from recurrent_rl.buffers.minibatches import minibatches, rectangles
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.envs.gymnasium_vector import GymRows

HERE = Path(__file__).parent
PEER_PACKAGES = ["torch==2.13.0", "sb3-contrib==2.9.2"]

SMALL = {
    "num_envs": 8,
    "learn_step": 128,
    "batch_size": 256,
    "update_epochs": 4,
    "share_encoders": True,
}
ZOO = {
    "num_envs": 4,
    "learn_step": 1024,
    "batch_size": 128,
    "update_epochs": 10,
    "share_encoders": False,
}


def pendulum(num_envs: int) -> VectorEnv[Any, Any, Any]:
    """Masked Pendulum, in this process."""

    def make() -> gym.Env[Any, Any]:
        return MaskVelocityWrapper(gym.make("Pendulum-v1", disable_env_checker=True))

    return make_vect_envs(make_env=make, num_envs=num_envs, should_async_vector=False)


COMMON: dict[str, Any] = {}  # options of all agents


def make_agent(env: VectorEnv[Any, Any, Any], max_seq_len: int, **options: Any) -> PPO:
    """One LSTM(64) layer and heads with one hidden layer of 64, as the peer has them."""
    encoder = {"hidden_size": [], "max_seq_len": max_seq_len}
    net = {"encoder_config": encoder, "head_config": {"hidden_size": [64]}}
    options = {
        **COMMON,
        "normalize_reward": False,
        "squash_output": False,
        **options,
    }  # as the peer does
    return PPO(env.single_observation_space, env.single_action_space, net, seed=0, **options)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, which other work on the machine changes least."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def alternate(
    a: Callable[[], float], b: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Median of a, median of b, median of a/b, from alternating calls."""
    pairs = [(a(), b()) for _ in range(rounds)]
    ratio = statistics.median(x / y for x, y in pairs)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratio


def peer_python(folder: Path) -> Path:
    """The peer's own environment, made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(PEER_PACKAGES)} into {folder}", flush=True)
        venv.create(folder, with_pip=True)
        for package in PEER_PACKAGES:  # torch first: its pin decides what the rest brings
            subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def peer(rounds: int, folder: Path) -> None:
    """End to end: environment steps a second, collection and learning."""
    python = peer_python(folder)
    for name, work, max_seq_len, ours_rollouts, peer_rollouts in (
        ("8 x 128, batch 256, 4 epochs, one LSTM 64", SMALL, 128, 24, 6),
        ("4 x 1024, batch 128, 10 epochs, an LSTM 64 each", ZOO, 128, 2, 1),
        ("the same, our sequences cut at 32 steps", ZOO, 32, 2, 1),
    ):

        def ours(
            work: dict[str, Any] = work, length: int = max_seq_len, rollouts: int = ours_rollouts
        ) -> float:
            env = pendulum(work["num_envs"])
            options = {k: v for k, v in work.items() if k != "num_envs"}
            agent = make_agent(env, length, gamma=0.9, **options)

            def run(n: int) -> int:
                updates = 0
                for _ in range(n):
                    collect_rollouts_recurrent(agent, env)
                    updates += agent.learn().updates
                return updates

            run(2)
            taken: list[int] = []
            wall = seconds(lambda: taken.append(run(rollouts)))
            steps = work["num_envs"] * work["learn_step"]
            # The same number of gradient steps as the peer takes.
            assert taken[0] == rollouts * work["update_epochs"] * steps // work["batch_size"]
            env.close()
            return rollouts * steps / wall

        def theirs(work: dict[str, Any] = work, rollouts: int = peer_rollouts) -> float:
            argument = json.dumps({**work, "warmup": 1, "rollouts": rollouts})
            command = [str(python), str(HERE / "peer_sb3.py"), argument]
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            out = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            return float(json.loads(out.stdout.splitlines()[-1])["steps_per_second"])

        mine, other, ratio = alternate(ours, theirs, rounds)
        print(f"peer: {name}: {mine:,.0f} vs {other:,.0f} steps/s: {ratio:.1f}x", flush=True)


def learner(rounds: int) -> None:
    """Samples a second of learn() against nn.LSTM alone, forward and backward, same minibatches."""
    for num_envs, steps, length, batch_size in (
        (8, 128, 128, 256),
        (8, 256, 32, 256),
        (64, 64, 64, 2048),
    ):
        env = pendulum(num_envs)
        agent = make_agent(env, length, learn_step=steps, batch_size=batch_size)
        collect_rollouts_recurrent(agent, env)
        assert agent.buffer is not None
        buffer, lstm = agent.buffer, nn.LSTM(3, 64)
        cuts, targets = buffer.sequences(), buffer.targets(True)

        def bare(
            agent: PPO = agent,
            buffer: Any = buffer,
            lstm: nn.LSTM = lstm,
            cuts: Any = cuts,
            targets: Any = targets,
        ) -> float:
            size = agent.config.batch_size
            batches = [
                buffer.batch(cuts, part, targets)
                for _ in range(agent.config.update_epochs)
                for which in minibatches(cuts.active, size, agent.group.generator)
                for part in rectangles(which, cuts.length)
            ]

            def work() -> None:
                for batch in batches:
                    output, _ = lstm(batch.observation, (batch.state[0], batch.state[1]))
                    output.sum().backward()

            return seconds(work)

        def whole(agent: PPO = agent) -> float:
            agent.trainer.collected = (
                True  # train on the same rollout again: only the time matters here
            )
            return seconds(agent.learn)

        whole(), bare()
        mine, other, ratio = alternate(bare, whole, rounds)
        samples = agent.config.update_epochs * num_envs * steps
        print(
            f"learner: {num_envs} x {steps}, L {length}, batch {batch_size}: "
            f"{samples / other:,.0f} vs bare LSTM {samples / mine:,.0f} samples/s: {ratio:.0%}",
            flush=True,
        )
        env.close()


def policy(rounds: int) -> None:
    """Everything that collection does besides stepping, against stepping 8 environments."""
    env = pendulum(8)
    for shared in (True, False):
        agent = make_agent(env, 128, learn_step=512, share_encoders=shared)
        parts = {"env": 0.0}
        step = GymRows.step

        def timed(self: GymRows, *args: Any, parts: Any = parts, step: Any = step) -> Any:
            begin = time.process_time()
            result = step(self, *args)
            parts["env"] += time.process_time() - begin
            return result

        ratios, env_us = [], []
        GymRows.step = timed  # type: ignore[method-assign]
        for i in range(rounds + 1):
            parts["env"] = 0.0
            wall = seconds(lambda agent=agent: collect_rollouts_recurrent(agent, env))
            if i:
                ratios.append((wall - parts["env"]) / parts["env"])
                env_us.append(parts["env"] / 512 * 1e6)
        GymRows.step = step  # type: ignore[method-assign]
        print(
            f"policy: share_encoders={shared}: {statistics.median(ratios):.2f}x the environments' "
            f"{statistics.median(env_us):.0f} us a step of 8",
            flush=True,
        )
    env.close()


class Coin(VectorEnv[Any, Any, Any]):
    """An all but free environment of E rows that resets each with a probability, at random."""

    def __init__(self, num_envs: int, probability: float) -> None:
        """Args: num_envs E, and the probability of an episode's end at each step."""
        self.num_envs, self.probability = num_envs, probability
        self.single_observation_space = spaces.Box(-1, 1, (3,))
        self.single_action_space = spaces.Box(-1, 1, (1,))
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.rng = np.random.default_rng(0)
        self.never = np.zeros(num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return random observations."""
        return self.rng.random((self.num_envs, 3), dtype=np.float32), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Return random observations and rewards."""
        ended = self.rng.random(self.num_envs) < self.probability
        reward = self.rng.random(self.num_envs)
        return self.reset()[0], reward, ended, self.never, {}


def resets(rounds: int) -> None:
    """Learner's time when episodes are ten steps long on average, against none ending."""
    agents = []
    for probability in (0.1, 0.0):
        env = Coin(8, probability)
        agent = make_agent(env, 128, learn_step=128, batch_size=256)
        collect_rollouts_recurrent(agent, env)
        agents.append(agent)

    def learn(agent: PPO) -> float:
        agent.trainer.collected = True
        return seconds(agent.learn)

    learn(agents[0]), learn(agents[1])
    often, never, ratio = alternate(lambda: learn(agents[0]), lambda: learn(agents[1]), rounds)
    print(f"resets: {often * 1e3:.1f} ms at 0.1 vs {never * 1e3:.1f} ms at 0: {ratio:.2f}x")


def growth(rounds: int) -> None:
    """Microseconds for each environment step, learning included, as rollouts grow."""
    for label, shapes in (
        ("environments", [(n, 128) for n in (8, 32, 128, 512)]),
        ("steps", [(8, t) for t in (128, 512, 2048, 4096)]),
    ):
        costs: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
        agents = {}
        for num_envs, steps in shapes:
            env = pendulum(num_envs)
            agents[num_envs, steps] = (make_agent(env, 64, learn_step=steps), env)
        for i in range(rounds + 1):
            for (num_envs, steps), (agent, env) in agents.items():

                def work(agent: PPO = agent, env: Any = env) -> None:
                    collect_rollouts_recurrent(agent, env)
                    agent.learn()

                repeats = max(1, 4096 // (num_envs * steps))
                wall = seconds(lambda work=work, n=repeats: [work() for _ in range(n)])
                if i:
                    costs[num_envs, steps].append(wall / (repeats * num_envs * steps) * 1e6)
        row = ", ".join(
            f"{shape[0] if label == 'environments' else shape[1]}: {statistics.median(c):.1f}"
            for shape, c in costs.items()
        )
        print(f"growth: us a step by {label}: {row}", flush=True)


def memory() -> None:
    """What allocating a buffer really takes, in tensors' own storages, against its fields."""
    settings = {"obs_shape": (3,), "action_shape": (1,), "state_shapes": [(1, 64)] * 2}
    begin = resident()
    tracemalloc.start()
    buffer = SequenceRolloutBuffer(4096, 512, max_seq_len=64, **settings)  # type: ignore[arg-type]
    for field in vars(buffer).values():
        if isinstance(field, torch.Tensor):
            field.fill_(1)  # touch the pages, so that they count
    for stored in buffer.hidden:
        stored.fill_(1)
    python = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()  # it would slow down everything measured later
    grown = resident() - begin
    mib = 2**20
    print(
        f"memory: {grown / mib:.1f} MiB resident for {buffer.nbytes() / mib:.1f} MiB of fields: "
        f"{grown / buffer.nbytes():.3f}x ({python / 1024:.0f} KiB of Python objects)"
    )


def resident() -> int:
    """Resident bytes of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the named parts."""
    parts = {"memory": None, "peer": 3, "learner": 15, "policy": 9, "resets": 15, "growth": 5}
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=[])
    parser.add_argument("--peer-venv", type=Path, default=Path(".venv-peer-sb3"))
    parser.add_argument("--compiled", action="store_true", help="learn by kernels in C")
    options = parser.parse_args()
    COMMON["compiled"] = options.compiled
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one torch thread")
    for name, rounds in parts.items():
        if options.parts and name not in options.parts:
            continue
        if name == "memory":
            memory()
        elif name == "peer":
            peer(rounds, options.peer_venv)
        else:
            globals()[name](rounds)


if __name__ == "__main__":
    main()
