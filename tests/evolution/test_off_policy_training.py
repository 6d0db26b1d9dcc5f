"""Tests of `train_off_policy`: a shared replay, whoever collects, and however a run is cut."""

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper
from support.training_runs import (
    StopAt,
    assert_same_agents,
    evolution,
    population,
    recall_env,
    team_env,
    tensors_in,
)

from recurrent_rl import (
    DQN,
    Mutations,
    RLParameter,
    SequenceReplayBuffer,
    TournamentSelection,
    collect_rollouts_recurrent,
    create_population,
    load_population,
    make_vect_envs,
    train_multi_agent_off_policy,
    train_off_policy,
    train_on_policy,
)
from recurrent_rl.algorithms.search_space import HyperparameterConfig

NETWORK = {
    "encoder_config": {"hidden_state_size": 8, "hidden_size": [8]},
    "head_config": {"hidden_size": [8]},
}
INIT_HP = {
    "LEARN_STEP": 8,
    "BATCH_SIZE": 16,
    "LEARNING_STARTS": 16,
    "MAX_SEQ_LEN": 4,
    "MEMORY_SIZE": 400,
}
SIZES = HyperparameterConfig(batch_size=RLParameter(min=8, max=64, dtype=int))


def individuals(env: Any, size: int = 3, algo: str = "DQN", seed: int = 0, **init: Any) -> Any:
    if hasattr(env, "possible_agents"):
        spaces = env.observation_spaces, env.action_spaces
    else:
        spaces = env.single_observation_space, env.single_action_space
    return create_population(algo, *spaces, NETWORK, {**INIT_HP, **init}, SIZES, size, seed=seed)


def train(env: Any, pop: Any, **options: Any) -> Any:
    """Three generations of 64 steps (16 of each of four environments), or as told."""
    settings = {"max_steps": 192, "evo_steps": 64, "verbose": False}
    return train_off_policy(env, "Recall", type(pop[0]).__name__, pop, **{**settings, **options})


def contents(memory: SequenceReplayBuffer) -> Any:
    return dict(tensors_in(memory.to_data()))


def assert_same_contents(ours: SequenceReplayBuffer, theirs: SequenceReplayBuffer) -> None:
    a, b = contents(ours), contents(theirs)
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]
    assert (ours.counter, len(ours)) == (theirs.counter, len(theirs))


# --- what they do ------------------------------------------------------------------------------


def test_trains_tests_and_evolves_with_one_replay(tmp_path: Path) -> None:
    env = recall_env()
    memory = SequenceReplayBuffer(10_000)
    started = individuals(env)
    trained, fitnesses = train(env, started, memory=memory, log_dir=tmp_path, **evolution())
    assert np.shape(fitnesses) == (3, 3)
    assert all(agent.steps == [64, 128, 192] for agent in trained)
    assert len(memory) == memory.counter == 3 * 192  # everybody's steps of all generations
    assert all(agent.memory is memory for agent in [*trained, *started])
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["member_0/fitness"]) == fitnesses[-1][0]
    # 48 steps after the random ones, then 64, by 8.
    assert [float(row["member_0/learn/updates"]) for row in rows] == [6, 8, 8]
    assert np.isfinite(float(rows[-1]["member_0/learn/loss"]))


@pytest.mark.parametrize(
    ("workers", "options"),
    [(1, {}), (2, {"SAMPLING": "priority", "BURN_IN": 2, "OVERLAP": 2})],
)
@pytest.mark.usefixtures("quick_workers")
def test_workers_change_nothing(workers: int, options: Any, tmp_path: Path) -> None:
    """Nor does going on from a checkpoint, bit for bit; the ring goes round on the way."""
    env, path = recall_env(), tmp_path / "run.pt"
    memories = [SequenceReplayBuffer(200) for _ in range(2)]
    whole, fitnesses = train(env, individuals(env, **options), memory=memories[0], **evolution())
    kept = {"checkpoint_path": path, "memory": memories[1]}
    train(env, individuals(env, **options), max_steps=64, **kept, **evolution())
    resumed, theirs = train(
        env,
        individuals(env, seed=9, **options),
        resume=path,
        workers=workers,
        **kept,
        **evolution(),
    )
    assert_same_agents(resumed, whole)
    assert theirs == fitnesses
    assert_same_contents(*memories)
    assert memories[0].counter == 576


@functools.cache
def whole_run() -> Any:
    """A population, and its fitnesses, that nothing has interrupted."""
    env = recall_env()
    return train(env, individuals(env, MEMORY_SIZE=1000), **evolution())


# In the first generation, within an individual; in a test; in the next generation, in its first
# individual and in its last.
@pytest.mark.parametrize("step", [7, 18, 70, 105])
def test_ctrl_c(tmp_path: Path, step: int) -> None:
    whole, fitnesses = whole_run()
    path, env = tmp_path / "run.pt", StopAt(recall_env(), step)
    memory = SequenceReplayBuffer(1000)
    stopped, so_far = train(
        env,
        individuals(env, MEMORY_SIZE=1000),
        memory=memory,
        checkpoint_path=path,
        **evolution(),
    )
    assert so_far == fitnesses[: len(so_far)]
    finished = sum(agent.env_steps == 64 * (len(so_far) + 1) for agent in stopped)
    assert memory.counter == len(memory) == 192 * len(so_far) + 64 * finished
    assert_same_agents(load_population(path), stopped)
    others = individuals(env, seed=9, MEMORY_SIZE=1000)
    resumed, theirs = train(recall_env(), others, resume=path, **evolution())
    assert_same_agents(resumed, whole)
    assert theirs == fitnesses


@pytest.mark.parametrize("algo", ["MADDPG", "MATD3"])
def test_teams(algo: str, tmp_path: Path) -> None:
    env = team_env()
    runs = []
    for disturbance in range(2):
        torch.manual_seed(disturbance)
        pop = individuals(env, 2, algo)
        options = {"max_steps": 96, "evo_steps": 48, "log_dir": tmp_path, "verbose": False}
        options |= evolution(2)
        runs.append(train_multi_agent_off_policy(env, "team", algo, pop, **options))
    assert_same_agents(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    with (tmp_path / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    groups = runs[0][0][0].group_names
    assert {f"member_1/learn/{group}/updates" for group in groups} <= row.keys()


@pytest.mark.parametrize("algo", ["DDPG", "TD3", "SAC"])
def test_numbers_as_actions(algo: str) -> None:
    env = make_vect_envs("Pendulum-v1", 2, should_async_vector=False)
    (agent,), fitnesses = train(env, individuals(env, 1, algo, RECURRENT=False), eval_steps=3)
    assert agent.env_steps == 192
    assert np.isfinite(fitnesses).all()


def test_random_steps_are_taken_once() -> None:
    """By each individual of the first generation, and by none of their descendants."""
    env, random = recall_env(), []
    pop = individuals(env, 2, LEARNING_STARTS=24)
    start_rollout = DQN.start_rollout

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        recorders = start_rollout(self, *arguments, **options)
        if self.trainer.explorer.at_first:
            random.append((self.index, self.env_steps))
        return recorders

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DQN, "start_rollout", watched)
        train(env, pop, **evolution(2))
    assert random == [(0, 0), (0, 8), (0, 16), (1, 0), (1, 8), (1, 16)]


def test_nobody_learns_before_the_replay_has_seen_enough(tmp_path: Path) -> None:
    env = recall_env()
    train(env, individuals(env, 2), learning_delay=100, log_dir=tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # 64 steps of its own; two individuals' 128, and then all.
    assert [row.get("member_0/learn/updates") or "0" for row in rows] == ["0", "8.0", "8.0"]


def test_what_is_due_is_not_made_up_for() -> None:
    """Without a batch in the memory, or before the delay is over, updates are left out."""
    env = recall_env()
    (agent,) = individuals(env, 1, LEARNING_STARTS=0, BATCH_SIZE=60)
    train(env, [agent], max_steps=64)
    assert agent.learner.updates == 1


def test_a_run_goes_on_with_what_its_agents_share() -> None:
    env = recall_env()
    pop = individuals(env, 2)
    train(env, pop, max_steps=64)
    memory = pop[0].memory
    train(env, pop, max_steps=128)
    assert pop[0].memory is pop[1].memory is memory
    assert memory.counter == 256
    collect_rollouts_recurrent(pop[0], env)
    pop[0].learn()
    assert memory.counter == 264


def test_individuals_with_other_networks_share_a_replay() -> None:
    """States of other sizes are zeros to them, and their own are there within a generation."""
    env = recall_env()
    (first,) = individuals(env, 1)
    other = DQN(
        env.single_observation_space,
        env.single_action_space,
        {**NETWORK, "encoder_config": {"hidden_state_size": 5, "hidden_size": [8]}},
        seed=1,
        **{key.lower(): value for key, value in INIT_HP.items()},
    )
    train(env, [other, first])
    assert first.memory is other.memory
    assert first.memory.counter == 384
    collect_rollouts_recurrent(first, env)
    first.learn()


def test_progress_is_not_told_at_every_step() -> None:
    from recurrent_rl.evolution.member import Plan, train_individual

    env, told = recall_env(), []
    (agent,) = individuals(env, 1, LEARN_STEP=4)
    plan = Plan(200, 200, None, 1, 0, 0)
    memory = SequenceReplayBuffer(400)
    agent.fit_memory(memory, 4)
    report, news = train_individual(
        agent, env, plan, lambda steps, score: told.append((steps, score)), memory
    )
    assert report.steps == sum(steps for steps, _ in told) == 200
    assert len(told) < 25
    assert news is not None
    assert news.steps == 200


# --- arguments ---------------------------------------------------------------------------------


def other_memory(env: Any, **init: Any) -> SequenceReplayBuffer:
    """One that has steps of another kind of agent."""
    (agent,) = individuals(env, 1, **init)
    collect_rollouts_recurrent(agent, env)
    return agent.memory


CARTPOLE = {"should_async_vector": False}


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        (lambda: [], TypeError, r"memory: expected a SequenceReplayBuffer or None, got \[\]"),
        (
            lambda: other_memory(make_vect_envs("CartPole-v1", 4, **CARTPOLE)),
            ValueError,
            "memory: expected spaces",
        ),
        (
            lambda: other_memory(recall_env(2)),
            ValueError,
            "expected the number of environments .* 2, got 4",
        ),
        (
            lambda: other_memory(recall_env(), MAX_SEQ_LEN=8),
            ValueError,
            "expected the layout of sequences .*length=8.* got .*length=4",
        ),
    ],
)
def test_memories_that_do_not_fit(memory: Any, error: type[Exception], message: str) -> None:
    env = recall_env()
    pop = individuals(env)
    with pytest.raises(error, match=message):
        train(env, pop, memory=memory())
    assert all(agent.env_steps == 0 for agent in pop)


def test_a_memory_that_others_have_filled_is_learned_from() -> None:
    env = recall_env()
    memory = other_memory(env)
    (agent,) = individuals(env, 1, seed=5)
    train(env, [agent], memory=memory, max_steps=64)
    assert memory.counter == 72
    assert agent.memory is memory
    assert (memory.owner[:1] == -1).all()  # their states are not this agent's


def test_separate_memories_are_not_used_silently() -> None:
    env = recall_env()
    pop = individuals(env, 2)
    for agent in pop:
        collect_rollouts_recurrent(agent, env)
    with pytest.warns(UserWarning, match="memories of their own, with 16 steps, which are not"):
        train(env, pop, max_steps=64)


def test_the_other_kind_of_algorithm_is_refused() -> None:
    env = recall_env()
    with pytest.raises(ValueError, match=r"got 'PPO', which learns from rollouts; call train_on_"):
        train_off_policy(env, "Recall", "PPO", population(env))
    with pytest.raises(ValueError, match=r"got 'DQN', which learns from a replay; call train_off"):
        train_on_policy(env, "Recall", "DQN", individuals(env))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_delay": -1}, "learning_delay: expected"),
        (
            {"INIT_HP": {"LEARNING_DELAY": 5}},
            r"learning_delay: expected 5, as INIT_HP\['LEARNING_DELAY'\] says, got 0",
        ),
        (
            {"INIT_HP": {"MEMORY_SIZE": 5}, "memory": SequenceReplayBuffer(7)},
            "memory.memory_size: expected 5, as INIT_HP",
        ),
    ],
)
def test_arguments_that_do_not_fit(options: Any, message: str) -> None:
    env = recall_env()
    with pytest.raises(ValueError, match=message):
        train(env, individuals(env, 1), **options)


def test_arguments_without_effect() -> None:
    env = recall_env()
    options = {"max_steps": 64}
    train(env, individuals(env, 1), net_config=NETWORK, swap_channels=False, **options)
    with pytest.warns(UserWarning, match="^swap_channels=True has no effect: agents") as caught:
        train(env, individuals(env, 1), swap_channels=True, **options)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="^net_config has no effect: agents are built already"):
        train(env, individuals(env, 1), net_config={"head_config": {"hidden_size": [9]}}, **options)


def test_the_environment_stays_open() -> None:
    class Spy(VectorWrapper):
        closed_by_training = False

        def close(self, **_: Any) -> None:
            self.closed_by_training = True

    env = Spy(recall_env())
    options = {
        "tournament": TournamentSelection(2, True, 2),
        "mutation": Mutations(1, 0, 0, 0, 0, 1),
    }
    train(env, individuals(env, 2), max_steps=64, **options)
    assert not env.closed_by_training
