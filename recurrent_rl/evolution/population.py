"""Populations: build one from the dictionaries that tutorials use, save and load it."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch

from recurrent_rl import checkpoint
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.individual import Birth, Individual
from recurrent_rl.algorithms.migration import upgraded
from recurrent_rl.algorithms.schedule_functions import check_given
from recurrent_rl.algorithms.schedules import Function
from recurrent_rl.algorithms.search_space import HyperparameterConfig
from recurrent_rl.algorithms.team import Spaces
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.evolution.run_keys import (
    agent_keys,
    check_agreement,
    check_run_keys,
    warn_of_idle_keys,
)
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.validation import (
    COUNT,
    SEED,
    Range,
    checked,
    checked_device,
    shown,
    unknown_name,
)

SIZE = Range(1, 10_000)  # of a population, all of which is held in memory


def create_population(
    algo: str,
    observation_space: gym.Space[Any] | Spaces,
    action_space: gym.Space[Any] | Spaces,
    net_config: NetConfig | Mapping[str, Any] | None = None,
    INIT_HP: Mapping[str, Any] | None = None,  # noqa: N803 - what users know it as
    hp_config: HyperparameterConfig | None = None,
    population_size: int = 4,
    num_envs: int = 1,
    device: torch.device | str = "cpu",
    actor_network: Any = None,
    critic_network: Any = None,
    *,
    seed: int | None = None,
    spread: bool = True,
) -> list[Any]:
    """Build agents that differ in their random seeds and in the hyper-parameters to be searched.

    >>> from recurrent_rl import RLParameter
    >>> population = create_population(
    ...     "PPO",
    ...     gym.spaces.Box(-1, 1, (3,)),
    ...     gym.spaces.Discrete(2),
    ...     INIT_HP={"LR": 1e-3, "LEARN_STEP": 64},
    ...     hp_config=HyperparameterConfig(lr=RLParameter(min=1e-4, max=1e-2)),
    ...     population_size=2,
    ...     seed=0,
    ... )
    >>> [round(agent.config.lr, 6) for agent in population]
    [0.001, 0.002261]

    Args:
        algo: "PPO", "DQN", "DDPG", "TD3" or "SAC"; of teams "IPPO", "MAPPO", "MADDPG" or
            "MATD3".
        observation_space: of one environment; of teams the agents' spaces, a list or a dictionary.
        action_space: of one environment; of teams the agents' spaces, a list or a dictionary.
        net_config: as the algorithm's class takes it.
        INIT_HP: the fields of the algorithm's configuration (``PPOConfig``, ``DQNConfig``, ...) in
            upper case ("LR", "LEARN_STEP", ...); of teams also "AGENT_IDS", "AGENT_ID_INPUT",
            "GROUPS" and "TEAM_REWARD", for MAPPO "STATE_SPACE". What describes the run rather than
            an agent ("MAX_STEPS", "EVO_STEPS", ...) may stand there too, and must agree with what
            this function and the training functions are given; "MAX_STEPS" is also the horizon of
            schedules. Other keys are refused.
        hp_config: hyper-parameters that mutations may change.
        population_size: number of agents, at least 1.
        num_envs: size of the vector environment, at least 1. Has no effect, as agents fit any
            number of environments; accepted because scripts pass it.
        device: of the policies.
        actor_network: as the algorithm's class takes it; all agents start from its weights.
        critic_network: as the algorithm's class takes it; all agents start from its weights.
        seed: of the whole population; None takes fresh entropy.
        spread: the first agent starts from INIT_HP's values, the others from values spread over
            the ranges of ``hp_config``, each range cut into as many parts as there are others;
            False starts all from INIT_HP's.

    Returns:
        the agents; their indices count from 0.

    Raises:
        TypeError: a space or a value of the wrong kind.
        ValueError: an unknown name (the message has the nearest known one), or a value out of
            range.

    """
    if not isinstance(algo, str) or algo not in ALGORITHMS:
        raise ValueError(f"algo: {unknown_name('create_population', algo, list(ALGORITHMS))}")
    population_size = checked("population_size", population_size, Annotated[int, SIZE])
    num_envs = checked("num_envs", num_envs, Annotated[int, COUNT])
    seed = checked("seed", seed, Annotated[int | None, SEED])
    spread, device = checked("spread", spread, bool), checked_device(device)
    if hp_config is not None and not isinstance(hp_config, HyperparameterConfig):
        raise TypeError(
            f"hp_config: expected a HyperparameterConfig or None, got {shown(hp_config)}"
        )
    build: Any = ALGORITHMS[algo]  # each takes spaces and options of its own, and checks them
    if hp_config is not None:
        hp_config.check(algo, build.config_type)
    init_hp = {} if INIT_HP is None else INIT_HP
    check_run_keys(algo, init_hp)
    warn_of_idle_keys(init_hp)
    check_agreement(init_hp, {"POP_SIZE": ("population_size", population_size)})
    if num_envs > 1:
        check_agreement(init_hp, {"NUM_ENVS": ("num_envs", num_envs)})
    options = _options(algo, init_hp)
    for_agents, for_spread = np.random.SeedSequence(seed).spawn(2)
    seeds = [int(s >> np.uint64(1)) for s in for_agents.generate_state(population_size, np.uint64)]
    population: list[Any] = []
    for index in range(population_size):
        agent = build(
            observation_space,
            action_space,
            net_config=net_config,
            device=device,
            seed=seeds[index],
            actor_network=actor_network,
            critic_network=critic_network,
            **options,
        )
        agent.individual = Individual([Birth(index)], hp_config=hp_config)
        population.append(agent)
    if spread and hp_config is not None:
        _spread(population[1:], hp_config, np.random.default_rng(for_spread))
    return population


def _spread(
    agents: Sequence[Any], hp_config: HyperparameterConfig, generator: np.random.Generator
) -> None:
    """Spread hyper-parameters over their ranges.

    A Latin hypercube: each range is cut into as many parts as there are agents, and no two agents
    have a value in the same part.

    Source: McKay et al. 1979, "A Comparison of Three Methods for Selecting Values of Input
    Variables in the Analysis of Output from a Computer Code".
    """
    if not agents:
        return
    for name, parameter in hp_config.parameters.items():
        part = generator.permutation(len(agents))
        shares = (part + generator.random(len(agents))) / len(agents)
        for agent, share in zip(agents, shares, strict=True):
            for trainer in agent.trainers.values():
                trainer.reconfigure(**{name: parameter.between(float(share))})


def _options(algo: str, init_hp: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments for an agent."""
    keys = agent_keys(algo)
    options = {key.lower(): value for key, value in init_hp.items() if key in keys}
    schedules = [options.get(n, "constant") for n in ALGORITHMS[algo].config_type.SCHEDULES]
    if any(schedule != "constant" for schedule in schedules) and "MAX_STEPS" in init_hp:
        options.setdefault("total_steps", init_hp["MAX_STEPS"])
    return options


def population_from_data(
    data: Sequence[dict[str, Any]],
    own: type[Agent] | None,
    device: torch.device | str = "cpu",
    **parts: Any,
) -> list[Any]:
    """Rebuild agents from what their ``to_checkpoint`` gave; ``own`` may be a user's class."""
    kinds = [_class_of(each["algorithm"], own) for each in data]
    return [k.from_checkpoint(d, device, **parts) for k, d in zip(kinds, data, strict=True)]


def _class_of(name: str, own: type[Agent] | None) -> type[Agent]:
    """Return the class of a saved agent; ValueError: it is nobody's."""
    if own is not None and own.__name__ == name:
        return own
    if name not in ALGORITHMS:
        known = [*ALGORITHMS, *([] if own is None else [own.__name__])]
        raise ValueError(
            f"expected agents of {', '.join(known)}, got {name!r}; if that is a class of your own, "
            f"call load_population(..., agent_class={name})"
        )
    return ALGORITHMS[name]


def load_population(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    actor_network: Any = None,
    critic_network: Any = None,
    schedules: Mapping[str, Function] | None = None,
    agent_class: type[Any] | None = None,
) -> list[Any]:
    """Load all agents of a checkpoint that a training function has written.

    Args:
        path: the training function's ``checkpoint_path``.
        device: of the policies.
        actor_network: the one that ``create_population`` was given.
        critic_network: the one that ``create_population`` was given.
        schedules: functions like those that INIT_HP had, by name: ``{"lr_schedule": f}``; see
            ``PPO.load``.
        agent_class: the agents' class, if it is one of your own: a checkpoint has its name only.

    Raises:
        FileNotFoundError: no such file.
        TypeError, ValueError: schedules that the saved agents had no functions for; no class of
            agents.
        CheckpointError: truncated or foreign.

    """
    is_class = isinstance(agent_class, type) and issubclass(agent_class, Agent)
    if agent_class is not None and not is_class:
        raise TypeError(f"agent_class: expected an agents' class or None, got {shown(agent_class)}")
    data = checkpoint.load(path)
    if "population" not in data:
        raise checkpoint.CheckpointError(
            f"{path}: expected a saved population, got a saved {data.get('algorithm')!r}; load it "
            f"with {data.get('algorithm')}.load"
        )
    saved = data["population"]
    if schedules is not None and saved:
        configs = [group["config"] for each in saved for group in upgraded(each)["groups"].values()]
        known = _class_of(saved[0]["algorithm"], agent_class).config_type.SCHEDULES
        check_given(schedules, known, configs)
    try:
        return population_from_data(
            saved,
            agent_class,
            device,
            actor_network=actor_network,
            critic_network=critic_network,
            schedules=schedules,
        )
    except Exception as error:  # a file with wrong parts fails in many ways
        raise checkpoint.CheckpointError(
            f"{path}: the parts do not fit together: {error}"
        ) from error
