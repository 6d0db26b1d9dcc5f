"""Short runs of training: small populations, how they evolve, and ways to compare results."""

from collections.abc import Iterator, Sequence
from typing import Any

from gymnasium.vector import SyncVectorEnv, VectorWrapper
from support.agents import assert_same_weights, team_weights, weights
from support.envs import Recall
from support.multi_envs import RecallTeam
from torch import Tensor

from recurrent_rl import (
    IPPO,
    HyperparameterConfig,
    Mutations,
    RLParameter,
    TournamentSelection,
    create_population,
    make_multi_agent_vect_envs,
    make_vect_envs,
    train_on_policy,
)
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent

NETWORK = {"encoder_config": {"hidden_state_size": 8}, "head_config": {"hidden_size": [8]}}
INIT_HP = {"LEARN_STEP": 16, "BATCH_SIZE": 16, "UPDATE_EPOCHS": 1, "LR": 1e-3}
HP_CONFIG = HyperparameterConfig(
    lr=RLParameter(min=1e-4, max=1e-2), batch_size=RLParameter(min=8, max=64, dtype=int)
)


def recall_env(num_envs: int = 4) -> SyncVectorEnv:
    """Its resets do what their seeds say."""
    return make_vect_envs(make_env=Recall, num_envs=num_envs, should_async_vector=False)


def team_env(num_envs: int = 2) -> Any:
    return make_multi_agent_vect_envs(RecallTeam, num_envs, should_async_vector=False)


def population(env: Any, size: int = 3, seed: int = 0, **init_hp: Any) -> list[Any]:
    """Individuals for either kind of environment."""
    if hasattr(env, "single_observation_space") and not hasattr(env, "possible_agents"):
        spaces, algo = (env.single_observation_space, env.single_action_space), "PPO"
    else:
        spaces, algo = (env.observation_spaces, env.action_spaces), "IPPO"
    return create_population(
        algo, *spaces, NETWORK, {**INIT_HP, **init_hp}, HP_CONFIG, size, seed=seed
    )


def evolution(size: int = 3, **changes: Any) -> dict[str, Any]:
    """A tournament and mutations of all kinds, from fixed seeds."""
    kinds = {
        "no_mutation": 0.1,
        "architecture": 0.3,
        "new_layer_prob": 0.5,
        "parameters": 0.2,
        "activation": 0.1,
        "rl_hp": 0.3,
    }
    return {
        "tournament": TournamentSelection(2, True, size, 2, rand_seed=5),
        "mutation": Mutations(**{**kinds, **changes}, min_width=4, rand_seed=6),
    }


def train(env: Any, pop: Sequence[Any], **options: Any) -> tuple[list[Any], list[list[float]]]:
    """Three generations of two rollouts each (four environments, 16 steps), or as told."""
    settings = {"max_steps": 384, "evo_steps": 128, "eval_loop": 2, "verbose": False}
    return train_on_policy(env, "Recall", type(pop[0]).__name__, pop, **{**settings, **options})


def everything(agent: Any) -> dict[str, Any]:
    """All that must be equal in two individuals that are the same."""
    if isinstance(agent, OffPolicyAgent):
        return dict(tensors_in(agent.to_checkpoint()))
    state = team_weights(agent) if isinstance(agent, IPPO) else weights(agent)
    state |= {f"generator{i}": g.generator.get_state() for i, g in enumerate(agent.groups)}
    return state


def tensors_in(data: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dictionaries and lists, copied, by where they stand."""
    if isinstance(data, Tensor):
        yield path, data.clone()
    elif isinstance(data, dict | list | tuple):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in items:
            yield from tensors_in(value, f"{path}/{key}")


def assert_same_agents(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Bit for bit, histories included."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert_same_weights(everything(a), everything(b))
        for one, other in zip(a.trainers.values(), b.trainers.values(), strict=True):
            assert (one.config, one.net_config) == (other.config, other.net_config)
        assert a.lineage == b.lineage
        assert (a.steps, a.fitness, a.scores) == (b.steps, b.fitness, b.scores)


class StopAt(VectorWrapper):
    """Presses Ctrl-C (or raises something else) in its nth step."""

    def __init__(self, env: Any, step: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__(env)
        self.left, self.error = step, error

    def step(self, actions: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return super().step(actions)
