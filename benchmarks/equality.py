"""Do two versions of the package compute the same numbers, bit for bit?

    python benchmarks/equality.py --against 86a96a9          # all cases, both versions in one run
    python benchmarks/equality.py --cases lstm ippo_deaths   # digests of this version only

For changes that are meant to change nothing but the shape of the code. Each case trains small
agents for three rounds of collecting and learning, by the public interface only, and gives a digest
of all weights, optimiser moments, running statistics and returns. The other version is checked out
into a temporary folder; nothing is installed. Exits with 1 if any digest differs.
"""

import argparse
import copy
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo import ParallelEnv
from torch import nn

from recurrent_rl import (
    IPPO,
    PPO,
    HyperparameterConfig,
    Mutations,
    RLParameter,
    TournamentSelection,
    collect_rollouts_recurrent,
    create_population,
    make_multi_agent_vect_envs,
    make_vect_envs,
    train_on_policy,
)

ROUNDS = 3
NUMBERS = Box(-3, 3, (3,))
SPACES: dict[str, gym.Space[Any]] = {
    "numbers": NUMBERS,
    "index": Discrete(5, start=2),
    "image": Box(0, 255, (9, 8, 3), np.uint8),
    "dict": Dict(
        image=Box(0, 255, (7, 7, 3), np.uint8),
        numbers=NUMBERS,
        choice=Discrete(3),
        bits=MultiBinary(4),
    ),
}
BOX = Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32))


class World(gym.Env[Any, Any]):
    """Random observations, rewards that depend on the action, episodes that end or are cut."""

    def __init__(self, index: int, seen: str, action: gym.Space[Any], masked: bool = False) -> None:
        """Args: number, kind of observation, action space, whether masks are given."""
        self.observation_space, self.action_space = copy.deepcopy(SPACES[seen]), action
        self.random, self.masked = np.random.default_rng(index), masked
        self.observation_space.seed(index)

    def _see(self) -> tuple[Any, dict[str, Any]]:
        observation = self.observation_space.sample()
        if not self.masked:
            return observation, {}
        mask = self.random.random(int(self.action_space.n)) < 0.5  # type: ignore[attr-defined]
        mask[self.random.integers(len(mask))] = True
        return observation, {"action_mask": mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
            self.observation_space.seed(seed)
        return self._see()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(np.sin(np.sum(action)) + 0.3 * self.random.normal())
        ended, cut = (self.random.random(2) < 0.08).tolist()
        observation, info = self._see()
        return observation, reward, ended, cut, info


class Team(ParallelEnv[str, Any, Any]):
    """Two kinds of agents that die alone, come late, see nothing for a while and are forced."""

    metadata = {"name": "team_v0"}  # noqa: RUF012 - PettingZoo's way

    def __init__(self, index: int = 0, masked: bool = False) -> None:
        """Args: number, whether masks are given."""
        self.possible_agents = ["bob_0", "bob_1", "bob_2", "fred_0"]
        self.agents: list[str] = []
        self.random, self.masked = np.random.default_rng(index), masked
        self.spaces = {a: (NUMBERS if a < "c" else SPACES["index"]) for a in self.possible_agents}

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return Discrete(3, start=1) if agent < "c" else BOX

    def _see(self) -> tuple[dict[str, Any], dict[str, Any]]:
        seen: dict[str, Any] = {}
        infos: dict[str, Any] = {}
        for agent in self.agents:
            infos[agent] = {}
            if self.random.random() < 0.85:
                space = self.spaces[agent]
                space.seed(int(self.random.integers(2**31)))
                seen[agent] = space.sample()
            if agent < "c" and self.masked:
                mask = self.random.random(3) < 0.5
                mask[self.random.integers(3)] = True
                infos[agent]["action_mask"] = mask
            elif agent < "c" and self.random.random() < 0.1:
                infos[agent]["env_defined_actions"] = np.array(2)
        return seen, infos

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents, self.late = ["bob_0", "bob_1", "fred_0"], True
        return self._see()

    def step(self, actions: dict[str, Any]) -> Any:
        cut = bool(self.random.random() < 0.05)
        dead = {a: bool(self.random.random() < 0.08) for a in self.agents}
        rewards = {a: float(np.sin(np.sum(actions[a])) + self.random.normal()) for a in self.agents}
        if self.late and self.random.random() < 0.3:
            self.late = False
            self.agents = [*self.agents, "bob_2"]
            dead["bob_2"], rewards["bob_2"] = False, 0.0
        observations, infos = self._see()
        truncated = dict.fromkeys(self.agents, cut)
        self.agents = [a for a in self.agents if not (cut or dead[a])]
        return observations, rewards, dead, truncated, infos


class Counter(nn.Module):
    """A network of the user's own."""

    def __init__(self) -> None:
        """Read three numbers."""
        super().__init__()
        self.read = nn.Linear(3, 7)

    def initial_state(self, rows: int) -> tuple[torch.Tensor]:
        return (torch.zeros(1, rows, 7),)

    def forward(self, observation: Any, extra: Any, state: Any) -> Any:
        total = state[0] + self.read(observation).cumsum(0)
        return torch.tanh(total), (total[-1:],)


def numbers_of(agent: Any) -> Iterator[np.ndarray[Any, Any]]:
    """All that training moves, in an order that no renaming changes."""
    for group in getattr(agent, "trainees", {"": agent}).values():
        parameters = [p.detach().numpy() for p in group.policy.parameters()]
        yield from sorted(parameters, key=lambda x: (x.shape, x.tobytes()))
        statistics = [b.numpy() for b in group.policy.buffers() if b.dtype == torch.float64]
        yield from sorted(statistics, key=lambda x: (x.shape, x.tobytes()))
        for moments in group.optimizer.state_dict()["state"].values():
            yield from (moments[name].numpy() for name in sorted(moments))


def digest_of(*agents: Any, also: Any = ()) -> str:
    """A few letters that change with any bit of some agents, or of ``also``."""
    total = hashlib.sha256()
    for agent in agents:
        for array in numbers_of(agent):
            total.update(array.tobytes())
    total.update(np.asarray(also, dtype=np.float64).tobytes())
    return total.hexdigest()[:16]


def rounds(agent: Any, env: Any, count: int = ROUNDS) -> list[float]:
    """Collect and learn; the returns of all episodes."""
    returns: list[float] = []
    for _ in range(count):
        returns += collect_rollouts_recurrent(agent, env).returns
        agent.learn()
    return returns


SMALL: dict[str, Any] = {"learn_step": 70, "batch_size": 48, "update_epochs": 2, "lr": 3e-3}


def one(
    seen: str = "numbers",
    action: gym.Space[Any] = BOX,
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    masked: bool = False,
    encoder: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """PPO in three worlds."""
    makers = [functools.partial(World, i, seen, action, masked) for i in range(3)]
    env = SyncVectorEnv(makers, autoreset_mode=mode)
    net = {
        "encoder_config": {"hidden_size": [9], "hidden_state_size": 8, "max_seq_len": 12}
        | (encoder or {}),
        "head_config": {"hidden_size": [7]} | (head or {}),
    }
    agent = PPO(
        env.single_observation_space, env.single_action_space, net, seed=3, **{**SMALL, **options}
    )
    returns = rounds(agent, env)
    acted = agent.get_action(
        env.reset(seed=1)[0], agent.get_initial_hidden_state(3), reward=np.zeros(3)
    )
    return digest_of(agent, also=[*returns, *acted.log_prob, *acted.value, *acted.entropy])


def own_network() -> str:
    """PPO with modules of the user's own."""
    torch.manual_seed(7)
    return one(actor_network=Counter(), critic_network=Counter())


def team(masked: bool = False, **options: Any) -> str:
    """IPPO in three teams."""
    makers = iter([functools.partial(Team, i, masked) for i in range(3)])
    env = make_multi_agent_vect_envs(lambda: next(makers)(), 3, should_async_vector=False)
    net = {
        "encoder_config": {"hidden_size": [], "hidden_state_size": 8, "max_seq_len": 12},
        "fred": {"encoder_config": {"cell": "gru", "max_seq_len": 5}},
    }
    agent = IPPO(
        env.observation_spaces,
        env.action_spaces,
        env.possible_agents,
        net,
        seed=3,
        **{**SMALL, **options},
    )
    returns = rounds(agent, env)
    tested = agent.evaluate(env, 6, seed=2, deterministic=False)
    return digest_of(agent, also=[*returns, *np.concatenate(list(tested.values()))])


def turns() -> str:
    """IPPO in a game of turns, with masks within the observations."""
    from pettingzoo.classic import tictactoe_v3

    env = make_multi_agent_vect_envs(tictactoe_v3.env, 3, should_async_vector=False)
    options = {**SMALL, "learn_step": 33, "groups": {"all": env.possible_agents}}
    agent = IPPO(env.observation_spaces, env.action_spaces, env.possible_agents, seed=3, **options)
    returns = rounds(agent, env)
    return digest_of(agent, also=returns)


def stopped() -> str:
    """Save, load, and go on in the same environment."""
    env = make_vect_envs("CartPole-v1", 3, should_async_vector=False)
    options = {**SMALL, "normalize_obs": True, "previous_action": True}
    agent = PPO(env.single_observation_space, env.single_action_space, seed=3, **options)
    rounds(agent, env)
    with tempfile.TemporaryDirectory() as folder:
        agent.save_checkpoint(Path(folder) / "agent.pt")
        loaded = PPO.load(Path(folder) / "agent.pt")
    collect_rollouts_recurrent(loaded, env, reset=False)
    loaded.learn()
    rounds(loaded, env)
    return digest_of(agent, loaded)


def evolved(algo: str, **options: Any) -> str:
    """A population with mutations of every kind, over four generations."""
    init = {name.upper(): value for name, value in {**SMALL, **options}.items()}
    if algo == "PPO":
        env = make_vect_envs("CartPole-v1", 3, should_async_vector=False)
        spaces = env.single_observation_space, env.single_action_space
    else:
        makers = iter([functools.partial(Team, i) for i in range(3)])
        env = make_multi_agent_vect_envs(lambda: next(makers)(), 3, should_async_vector=False)
        spaces = env.observation_spaces, env.action_spaces
    population = create_population(
        algo,
        *spaces,
        {"encoder_config": {"hidden_state_size": 20, "max_seq_len": 16}},
        INIT_HP=init,
        hp_config=HyperparameterConfig(
            lr=RLParameter(min=1e-4, max=1e-2),
            learn_step=RLParameter(min=16, max=128, dtype=int),
        ),
        population_size=3,
        seed=4,
    )
    trained, fitnesses = train_on_policy(
        env,
        "Toy",
        algo,
        population,
        max_steps=1700,
        evo_steps=420,
        tournament=TournamentSelection(2, True, 3, rand_seed=1),
        mutation=Mutations(0.1, 0.5, 0.5, 0.1, 0.1, 0.2, rand_seed=3),
        verbose=False,
    )
    return digest_of(*trained, also=np.concatenate(fitnesses))


STEPS = AutoresetMode
CASES: dict[str, Callable[[], str]] = {
    "lstm": one,
    "gru": functools.partial(one, encoder={"cell": "gru", "num_layers": 2}, share_encoders=False),
    "none": functools.partial(one, recurrent=False, seen="index", encoder={"hidden_size": [8, 8]}),
    "next_step": functools.partial(one, mode=STEPS.NEXT_STEP, normalize_obs=True, target_kl=0.05),
    "disabled": functools.partial(one, mode=STEPS.DISABLED, seen="image", squash_output=False),
    "masks": functools.partial(one, masked=True, action=Discrete(4, start=2), ent_coef=0.01),
    "masks_next_step": functools.partial(
        one, masked=True, action=Discrete(4, start=2), mode=STEPS.NEXT_STEP, previous_action=True
    ),
    "dict": functools.partial(one, seen="dict", normalize_obs=True, share_encoders=False),
    "image": functools.partial(
        one,
        seen="image",
        normalize_obs=True,
        encoder={"channel_size": [4], "kernel_size": [3], "stride_size": [2], "latent_dim": 11},
    ),
    "sde": functools.partial(one, use_sde=True, sde_sample_freq=5, share_encoders=False),
    "state_std": functools.partial(one, state_dependent_std=True, clip_vf_coef=0.3),
    "multi_discrete": functools.partial(
        one, action=MultiDiscrete([3, 2, 4], start=[1, 0, -1]), previous_action=True
    ),
    "bits": functools.partial(one, action=MultiBinary(3), previous_action=True, seen="index"),
    "burn_in": functools.partial(
        one, burn_in=5, refresh_hidden_state=True, previous_action=True, previous_reward=True
    ),
    "deep": functools.partial(
        one,
        encoder={
            "residual_layers": 2,
            "core_residual": True,
            "core_layer_norm": True,
            "layer_norm": True,
            "forget_bias": 2.0,
            "vector_space_mlp": True,
        },
        head={"residual_layers": 1, "layer_norm": True},
        ortho_init=False,
        lr_schedule="linear",
        total_steps=2000,
    ),
    "own_network": own_network,
    "no_scaling": functools.partial(
        one, normalize_reward=False, reward_scale=0.3, normalize_advantage=False
    ),
    "ippo_deaths": functools.partial(team, previous_action=True, previous_reward=True, burn_in=3),
    "ippo_masks": functools.partial(team, masked=True, agent_id_input=True, team_reward="mean"),
    "ippo_none": functools.partial(team, recurrent=False, team_reward="sum", normalize_obs=True),
    "ippo_turns": turns,
    "resume": stopped,
    "population": functools.partial(evolved, "PPO"),
    "population_none": functools.partial(evolved, "PPO", recurrent=False),
    "population_ippo": functools.partial(evolved, "IPPO"),
}


def digests(names: list[str]) -> dict[str, str]:
    """Run cases with one thread, so that sums have one order."""
    torch.set_num_threads(1)
    found = {}
    for name in names:
        np.random.seed(0)  # noqa: NPY002 - what environments may draw from behind our back
        torch.manual_seed(0)
        found[name] = CASES[name]()
        print(f"{name:16s} {found[name]}", file=sys.stderr, flush=True)
    return found


def checkout(revision: str, folder: Path) -> None:
    """Put another version of the repository's files into a folder."""
    root = Path(__file__).parent.parent
    archive = subprocess.run(
        ["git", "archive", revision], cwd=root, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def digests_of(revision: str, names: list[str]) -> dict[str, str]:
    """Run cases with another version of the package, checked out beside this one."""
    with tempfile.TemporaryDirectory() as folder:
        checkout(revision, Path(folder))
        command = [sys.executable, str(Path(__file__).resolve()), "--json", "--cases", *names]
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> int:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--against", metavar="REVISION", help="of git, to compare with")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--json", action="store_true", help="print digests only")
    options = parser.parse_args()
    here = digests(options.cases)
    if options.json:
        print(json.dumps(here))
        return 0
    if options.against is None:
        return 0
    there = digests_of(options.against, options.cases)
    different = [name for name in options.cases if here[name] != there[name]]
    same = len(options.cases) - len(different)
    print(f"{same} of {len(options.cases)} cases equal {options.against} bit for bit")
    if different:
        print(f"different: {', '.join(different)}")
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
