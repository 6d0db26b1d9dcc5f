"""Probes of memory: recall the first observation, repeat an earlier one, with every encoder.

    python benchmarks/probes.py                      # all, with and without memory, 3 seeds
    python benchmarks/probes.py --probes recall-256 --encoders vector-lstm --seeds 0

Prints the share of right answers over 200 deterministic episodes, mean and range over the seeds,
and the steps after which training had reached 99%. Chance is 50%.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl import PPO, collect_rollouts_recurrent, make_vect_envs


class Probe(gym.Env[Any, Any]):
    """Shows bits, and asks for one of them later.

    ``recall-k`` shows one at first and asks for it k steps later; reward 1 for the right answer.
    ``repeat-k`` shows one at every step and asks, at every step, for that of k steps ago; a whole
    episode of right answers gives 1.
    """

    def __init__(self, name: str, form: str) -> None:
        """Args: the probe, e.g. "recall-16"; in which form bits are shown."""
        kind, _, k = name.partition("-")
        self.recall, self.k, self.form = kind == "recall", int(k), form
        self.length = self.k + 1 if self.recall else self.k + 20
        self.action_space = spaces.Discrete(2)
        image = spaces.Box(0, 255, (5, 5, 1), np.uint8)
        self.observation_space: gym.Space[Any] = {
            "vector": spaces.Box(-1, 1, (2,)),
            "image": image,
            "dict": spaces.Dict({"image": image, "asked": spaces.Discrete(2)}),
        }[form]

    def _observation(self) -> Any:
        bit = 0 if self.recall and self.time else 2 * int(self.bits[self.time]) - 1
        asked = int(self.time >= self.k)
        if self.form == "vector":
            return np.array([bit, asked], np.float32)
        image = np.zeros((5, 5, 1), np.uint8)
        if bit:  # a line, which stands or lies
            line = (slice(None), 2) if bit > 0 else (2, slice(None))
            image[line] = 255
        if self.form == "dict":
            return {"image": image, "asked": asked}
        image[0, 0] = 255 * asked
        return image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Draw the bits."""
        super().reset(seed=seed)
        self.time, self.bits = 0, self.np_random.integers(2, size=self.length + 1)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Judge the answer."""
        wanted = self.bits[0 if self.recall else self.time - self.k]
        right = float(self.time >= self.k and action == wanted)
        self.time += 1
        reward = right if self.recall else right / (self.length - self.k)
        return self._observation(), reward, self.time == self.length, False, {}


@dataclass(frozen=True)
class Form:
    """An encoder, and in which form it is shown the bits."""

    observation: str
    encoder: dict[str, Any]
    recurrent: bool = True


FORMS = {
    f"{form}-{name}": Form(form, encoder, recurrent)
    for form in ("vector", "image", "dict")
    for name, encoder, recurrent in (
        ("lstm", {}, True),
        ("gru", {"cell": "gru"}, True),
        ("none", {}, False),
    )
} | {
    "vector-mingru": Form("vector", {"cell": "mingru"}),
    "vector-mingru-3-layers": Form(
        "vector", {"cell": "mingru", "num_layers": 2, "residual_layers": 1}
    ),
    "vector-lru": Form("vector", {"cell": "lru"}),
    "vector-lstm-2-layers": Form("vector", {"num_layers": 2}),
    "vector-lstm-residual": Form("vector", {"residual_layers": 1, "core_residual": True}),
    "vector-lstm-layer-norm": Form("vector", {"layer_norm": True, "core_layer_norm": True}),
    "dict-lstm-vector-mlp": Form("dict", {"vector_space_mlp": True, "latent_dim": 16}),
}
PROBES = ("recall-16", "recall-64", "recall-256", "repeat-4")
MOST_STEPS = {"recall-16": 150_000, "recall-64": 300_000, "recall-256": 1_000_000}
MOST_STEPS["repeat-4"] = 300_000


def agent_for(probe: str, form: Form, env: Any, seed: int) -> PPO:
    """Build the agent; settings depend on how far back it must remember, and lr on the encoder."""
    k = int(probe.partition("-")[2])
    recall = probe.startswith("recall")
    # A (min)GRU's gate that keeps for long lets little in, and what a Dict says at each step of a
    # long wait fills an LSTM's memory: both take longer steps to get away from that.
    hard = form.observation == "dict" or form.encoder.get("core_layer_norm", False)
    bold = not recall or form.encoder.get("cell") in ("gru", "mingru") or (k > 64 and hard)
    encoder = {
        "hidden_state_size": 32,
        "max_seq_len": max(k + 1, 32),
        # Gates that stay open for about as long as must be remembered.
        "forget_bias": float(np.log(k)) if recall else 0.0,
        **({"latent_dim": 32} if form.observation != "vector" else {}),
        **form.encoder,
    }
    return PPO(
        env.single_observation_space,
        env.single_action_space,
        {"encoder_config": encoder, "head_config": {"hidden_size": [32]}},
        learn_step=k + 1 if recall else 96,
        batch_size=max(4 * (k + 1), 256),
        update_epochs=4 if recall else 8,
        lr=3e-3 if bold else 1e-3,
        gamma=0.0,  # an answer is judged at once
        normalize_reward=False,
        recurrent=form.recurrent,
        seed=seed,
    )


def run(probe: str, form: Form, seed: int, most: int) -> tuple[float, int | None, float]:
    """Train until right; return the share of right answers, steps to 99% and seconds."""

    def make() -> gym.Env[Any, Any]:
        return Probe(probe, form.observation)

    num_envs = 32 if probe.startswith("recall") else 16
    env = make_vect_envs(make_env=make, num_envs=num_envs, should_async_vector=False)
    tests = make_vect_envs(make_env=make, num_envs=50, should_async_vector=False)
    agent = agent_for(probe, form, env, seed)
    begin, reached = time.perf_counter(), None
    while agent.env_steps < most:
        stats = collect_rollouts_recurrent(agent, env)
        agent.learn()
        if stats.mean_return >= 0.97:
            right = agent.evaluate(tests, 200, seed=seed + 500).mean()
            if right >= 0.99:
                reached = agent.env_steps
                break
    right = float(agent.evaluate(tests, 200, seed=seed + 1000).mean())
    return right, reached, time.perf_counter() - begin


def main() -> None:
    """Run what is named, and print a line for each pair."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--probes", nargs="+", choices=PROBES, default=PROBES)
    parser.add_argument("--encoders", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one torch thread")
    print("| probe | encoder | right | least | steps to 99% | seconds |\n|---|---|---|---|---|---|")
    for probe in options.probes:
        for name in options.encoders:
            form = FORMS[name]
            # Without memory there is nothing to wait for.
            most = MOST_STEPS[probe] if form.recurrent else 50_000
            runs = [run(probe, form, seed, most) for seed in options.seeds]
            right, reached, wall = zip(*runs, strict=True)
            steps = "never" if None in reached else f"{max(n or 0 for n in reached):,}"
            print(
                f"| {probe} | {name} | {np.mean(right):.1%} | {min(right):.1%} | {steps} | "
                f"{np.mean(wall):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
