"""Tests of `recurrent_rl.evolution.training`: what runs do, save, log, and how they go on."""

import contextlib
import csv
import errno
import functools
import json
import math
import multiprocessing
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv, VectorWrapper
from support.agents import assert_same_weights
from support.envs import Recall
from support.training_runs import (
    INIT_HP,
    StopAt,
    assert_same_agents,
    everything,
    evolution,
    population,
    recall_env,
    team_env,
    train,
)

from recurrent_rl import (
    PPO,
    CheckpointError,
    HyperparameterConfig,
    Mutations,
    RLParameter,
    TournamentSelection,
    collect_rollouts_recurrent,
    load_population,
    make_vect_envs,
    train_multi_agent_on_policy,
    train_on_policy,
)

# --- what they do ------------------------------------------------------------------------------


def test_trains_tests_and_evolves() -> None:
    env = recall_env()
    started = population(env)
    trained, fitnesses = train(env, started, **evolution())
    assert [len(generation) for generation in fitnesses] == [3, 3, 3]
    assert [agent.fitness[-1] for agent in trained] == fitnesses[-1]
    assert len({agent.index for agent in trained}) == 3
    assert all(agent.env_steps == 384 and agent.steps == [128, 256, 384] for agent in trained)
    assert not any(agent in started for agent in trained)
    for agent in trained:
        birth = [b.index for b in agent.lineage]
        assert [b.parent for b in agent.lineage] == [None, *birth[:-1]]
        assert birth[0] in (0, 1, 2)
    assert trained[0].elite
    env.reset()  # the caller's environment is open


def test_without_a_tournament_the_agents_themselves_are_trained() -> None:
    env = recall_env()
    agents = population(env, 2)
    before = [everything(agent) for agent in agents]
    trained, fitnesses = train(env, agents)
    assert trained == agents
    assert np.shape(fitnesses) == (3, 2)
    for agent, was in zip(agents, before, strict=True):
        assert agent.env_steps == 384
        assert agent.lineage[-1].parent is None
        assert not torch.equal(everything(agent)["generator0"], was["generator0"])
    collect_rollouts_recurrent(agents[0], env)
    agents[0].learn()


def test_same_seeds_same_run() -> None:
    runs = []
    for disturbance in range(2):
        torch.manual_seed(disturbance)  # nobody's random numbers but the run's own count
        env = recall_env()
        env.reset(seed=disturbance)
        runs.append(train(env, population(env), **evolution()))
    assert_same_agents(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    other, _ = train(recall_env(), population(recall_env(), seed=1), **evolution())
    assert not torch.equal(
        everything(other[0])["generator0"], everything(runs[0][0][0])["generator0"]
    )


def test_evaluates_each_time_evo_steps_have_passed_in_whole_rollouts() -> None:
    env = recall_env()
    (agent,), fitnesses = train(env, population(env, 1), max_steps=500, evo_steps=100)
    # Rollouts have 64 steps: 100, 200, 300, 400 and 500 are passed at 128, 256, 320, 448 and 512.
    assert agent.steps == [128, 256, 320, 448, 512]
    assert len(fitnesses) == 5


def test_every_generation_trains() -> None:
    """Also those of agents that have trained before, and where a rollout exceeds evo_steps."""
    env = recall_env()
    agents = population(env, 2)
    train(env, agents)
    (agent, _), fitnesses = train(env, agents, max_steps=640)
    assert agent.steps == [128, 256, 512, 640]  # a run goes on counting in its first generation
    assert len(fitnesses) == 2
    (agent, _), fitnesses = train(env, population(env, 2), max_steps=256, evo_steps=16)
    assert agent.steps == [64, 128, 192, 256]
    assert len(fitnesses) == 4


def test_each_round_of_a_test_has_the_same_episodes_whoever_plays() -> None:
    env = make_vect_envs("CartPole-v1", 3, should_async_vector=False)
    begun: list[list[Any]] = []

    class Spy(VectorWrapper):
        def reset(self, **options: Any) -> Any:
            result = super().reset(**options)
            begun.append(result[0].tolist())
            return result

    # One who balances and one who falls at once make environments reset differently often.
    for agent in population(env, 3):
        with torch.no_grad():
            agent.policy.action_head.layers[-1].bias.copy_(torch.tensor([9.0 * agent.index, 0.0]))
        agent.test(Spy(env), loop=3, seed=4)
    assert begun[:3] == begun[3:6] == begun[6:]
    assert begun[0] != begun[1] != begun[2]


def test_stops_at_the_target() -> None:
    env = recall_env()
    trained, fitnesses = train(env, population(env), target=0.0, **evolution())
    assert len(fitnesses) == 1
    assert all(agent.steps == [128] for agent in trained)
    assert len(train(env, population(env), target=1.01, **evolution())[1]) == 3


def test_all_individuals_are_tested_on_the_same_episodes_and_each_generation_on_others() -> None:
    env = recall_env()
    bits: list[list[int]] = []

    class Spy(VectorWrapper):
        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            result = super().reset(seed=seed, options=options)
            if seed is not None:
                bits.append([seed, *result[0][:, 0].tolist()])
            return result

    agents = population(env, 2)
    train(Spy(env), agents, max_steps=256)
    # Of each individual's three seeded resets in a generation the first begins its training.
    tests = list(zip(bits[1::3], bits[2::3], strict=True))
    assert tests[0] == tests[1]
    assert tests[2] == tests[3]
    assert tests[0] != tests[2]
    assert len(set(map(tuple, bits[::3]))) == 4  # training episodes are everybody's own


def test_selection_finds_who_learns() -> None:
    # One of three has a learning rate that solves the probe in 2,000 steps, as it does from three
    # seeds of three; the others, a thousand times slower, stay at chance (0.5). All of the second
    # generation are children of the one, and inherit what it knows, and its rate.
    env = make_vect_envs(
        make_env=functools.partial(Recall, 4), num_envs=16, should_async_vector=False
    )
    agents = population(
        env, 3, LEARN_STEP=64, BATCH_SIZE=256, UPDATE_EPOCHS=8, GAMMA=0.9, NORMALIZE_REWARD=False
    )
    for i, agent in enumerate(agents):
        agent.reconfigure(lr=3e-3 if i == 2 else 3e-6)
    trained, fitnesses = train(
        env,
        agents,
        max_steps=4_096,
        evo_steps=2_048,
        eval_loop=6,
        tournament=TournamentSelection(3, True, 3, 1, rand_seed=1),
        mutation=Mutations(1, 0, 0, 0, 0, 0, rand_seed=1),
    )
    assert [fitness > 0.97 for fitness in fitnesses[0]] == [False, False, True]
    assert min(fitnesses[1]) > 0.97
    assert all(agent.lineage[0].index == 2 for agent in trained)


def test_the_documents_custom_loop() -> None:
    """Selection, mutation and counting by the caller, as the tutorial document has it."""
    env, single = recall_env(), SyncVectorEnv([Recall])
    pop, evolved = population(env), evolution()
    tournament, mutations = evolved["tournament"], evolved["mutation"]
    total_steps, evo_steps = 0, 4 * 16 * 3
    while np.less([agent.steps[-1] for agent in pop], 256).all():
        for agent in pop:
            collect_rollouts_recurrent(agent, env)
            agent.learn()
            total_steps += agent.learn_step * 4
            agent.steps[-1] += agent.learn_step * 4
        if total_steps % evo_steps == 0:
            fitnesses = [agent.test(single, max_steps=None, loop=2) for agent in pop]
            assert [agent.fitness[-1] for agent in pop] == fitnesses
            recent = [np.mean(agent.own_fitness[-tournament.eval_loop :]) for agent in pop]
            elite, pop = tournament.select(pop)
            assert np.mean(elite.own_fitness[-tournament.eval_loop :]) == max(recent)
            pop = mutations.mutation(pop)
            for agent in pop:
                agent.steps.append(agent.steps[-1])
    assert pop[0].steps == [64, 128, 192, 256, 256]
    env.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("quick_workers")
def test_trains_several_agents_by_groups(workers: int, tmp_path: Path) -> None:
    env = team_env()
    options = {"max_steps": 128, "evo_steps": 64, "log_dir": tmp_path, "workers": workers}
    trained, fitnesses = train_multi_agent_on_policy(
        env, "team", "IPPO", population(env), verbose=False, **options, **evolution()
    )
    assert np.shape(fitnesses) == (2, 3)
    with (tmp_path / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert {"member_0/score/a_0", "member_0/hp/lr"} <= row.keys()
    assert float(row["member_0/fitness"]) == fitnesses[-1][0]
    if workers == 2:
        alone, _ = train_multi_agent_on_policy(
            env,
            "team",
            "IPPO",
            population(env),
            verbose=False,
            max_steps=128,
            evo_steps=64,
            **evolution(),
        )
        assert_same_agents(trained, alone)


# --- the elite ---------------------------------------------------------------------------------


def test_the_saved_elite_is_the_agent_that_was_evaluated(tmp_path: Path) -> None:
    env, seen = recall_env(), []

    class Watching(TournamentSelection):
        def select(self, population: Any) -> Any:
            elite, children = super().select(population)
            saved = PPO.load(tmp_path / "elite.pt")
            seen.append((elite.fitness[-1], saved.fitness[-1], everything(elite)))
            return elite, children

    options = evolution(no_mutation=0, mutate_elite=True)  # nobody is left alone
    options["tournament"] = Watching(2, True, 3, 1, rand_seed=5)
    trained, fitnesses = train(
        env, population(env), save_elite=True, elite_path=tmp_path / "elite.pt", **options
    )
    assert len(seen) == 2  # the last generation has no children
    # The best ever, whichever generation it was in.
    for i, (_, saved, _) in enumerate(seen):
        assert saved == max(fitness for fitness, _, _ in seen[: i + 1])
    best = max(trained, key=lambda agent: agent.fitness[-1])
    last = best.fitness[-1], best.fitness[-1], everything(best)
    fitness, _, evaluated = max([*seen, last], key=lambda one: one[0])
    elite = PPO.load(tmp_path / "elite.pt")
    assert elite.fitness[-1] == fitness == max(max(each) for each in fitnesses)
    assert_same_weights(everything(elite), evaluated)


def test_a_worse_elite_does_not_replace_a_better_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a resumed run either."""
    given = iter([3.0, 5.0, 4.0, 4.5, 6.0])

    def test(agent: PPO, *args: Any, **options: Any) -> float:
        agent.fitness.append(next(given))
        return agent.fitness[-1]

    monkeypatch.setattr(PPO, "test", test)
    env, path, elite = recall_env(), tmp_path / "run.pt", tmp_path / "elite.pt"
    options = {"evo_steps": 64, "checkpoint_path": path, "save_elite": True, "elite_path": elite}
    kept = []
    for end in (64, 128, 192, 256, 320):
        resume = path if end > 64 else None
        train(env, population(env, 1), max_steps=end, resume=resume, **options)
        kept.append(PPO.load(elite).fitness[-1])
    assert kept == [3.0, 5.0, 5.0, 5.0, 6.0]


def test_the_elite_goes_where_the_name_says_by_default(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    env = recall_env()
    train(env, population(env, 1), max_steps=64, save_elite=True)
    assert PPO.load("Recall-elite_PPO.pt").env_steps == 64


def test_what_shrinking_costs_is_measured_before_training(tmp_path: Path) -> None:
    env = recall_env()
    options = evolution(no_mutation=0, parameters=0, activation=0, rl_hp=0, new_layer_prob=0)
    trained, _ = train(
        env,
        population(env, 6),
        max_steps=384,
        log_dir=tmp_path,
        **{**options, "tournament": TournamentSelection(2, True, 6, 1, rand_seed=5)},
    )
    births = {b.index: b for agent in trained for b in agent.lineage}.values()
    shrunk = [birth for birth in births if birth.shrunk]
    assert shrunk
    for birth in births:
        assert (birth.lost is not None) == birth.shrunk
        if birth.mutation is not None:
            before, after = (int(word) for word in birth.mutation.split()[1::2])
            assert birth.shrunk == (after < before)
    with (tmp_path / "population.csv").open() as file:
        logged = {row["fitness_lost_by_shrinking"] for row in csv.DictReader(file)}
    assert {str(birth.lost) for birth in shrunk} <= logged
    # It counts as no evaluation.
    assert all(len(agent.fitness) == 3 for agent in trained)


def test_an_individual_that_diverges_loses_and_the_run_goes_on(tmp_path: Path) -> None:
    env = recall_env()
    agents = population(env)
    with torch.no_grad():
        agents[1].policy.value_head.layers[-1].weight.fill_(1e38)
    trained, fitnesses = train(
        env, agents, max_steps=256, log_dir=tmp_path, **evolution(no_mutation=1, rl_hp=0)
    )
    assert fitnesses[0][1] == -np.inf
    assert np.isfinite(fitnesses[1]).all()
    assert all(agent.lineage[0].index != 1 for agent in trained)
    with (tmp_path / "population.csv").open() as file:
        assert "expected a finite gradient" in list(csv.DictReader(file))[1]["failed"]


def test_without_selection_one_that_diverges_does_not_keep_the_others() -> None:
    env = recall_env()
    agents = population(env)
    with torch.no_grad():
        agents[1].policy.value_head.layers[-1].weight.fill_(1e38)
    _, fitnesses = train(env, agents)
    assert len(fitnesses) == 3
    assert [agent.env_steps for agent in agents] == [384, 192, 384]


def test_a_run_in_which_all_diverge_ends_in_an_error(tmp_path: Path) -> None:
    env, elite = recall_env(), tmp_path / "elite.pt"
    agents = population(env)
    agents[0].save_checkpoint(elite)
    before = elite.read_bytes()
    with torch.no_grad():
        for agent in agents:
            agent.policy.value_head.layers[-1].weight.fill_(1e38)
    options = {"save_elite": True, "elite_path": elite, "checkpoint_path": tmp_path / "run.pt"}
    with pytest.raises(RuntimeError, match="all failed: learn: expected a finite gradient"):
        train(env, agents, **options, **evolution())
    assert elite.read_bytes() == before
    assert not (tmp_path / "run.pt").exists()


# --- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("quick_workers")
def test_resuming_is_never_having_stopped(tmp_path: Path, workers: int) -> None:
    env, path = recall_env(), tmp_path / "run.pt"
    whole, fitnesses = train(env, population(env), **evolution(), log_dir=tmp_path / "whole")
    options = {"checkpoint_path": path, "log_dir": tmp_path / "parts"}
    train(env, population(env), max_steps=256, **options, **evolution())
    # Another population and other random states, which the checkpoint's take the place of.
    others = population(env, seed=9)
    resumed, theirs = train(
        recall_env(), others, resume=path, workers=workers, **options, **evolution()
    )
    assert_same_agents(resumed, whole)
    assert theirs == fitnesses
    rows = []
    for folder in ("whole", "parts"):
        with (tmp_path / folder / "population.csv").open() as file:
            rows.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]


@functools.cache
def whole_run() -> tuple[list[Any], list[list[float]]]:
    """A run that nothing interrupts; not to be changed."""
    return train(recall_env(), population(recall_env()), **evolution())


@functools.cache
def whole_run_of_one() -> list[Any]:
    """The same of one individual alone."""
    return train(recall_env(), population(recall_env(), 1))[0]


# In the first generation, within an individual; between two; in a test; in the next generation.
@pytest.mark.parametrize("step", [3, 33, 70, 150, 260])
def test_ctrl_c_saves_and_returns_what_there_is(tmp_path: Path, step: int) -> None:
    whole, fitnesses = whole_run()
    path, elite = tmp_path / "run.pt", tmp_path / "elite.pt"
    options = {"checkpoint_path": path, "save_elite": True, "elite_path": elite}
    env = StopAt(recall_env(), step)
    stopped, so_far = train(env, population(env), **options, **evolution())
    assert len(stopped) == 3
    assert so_far == fitnesses[: len(so_far)]
    assert len(so_far) < 3
    assert elite.exists() == any(agent.fitness for agent in stopped)
    assert_same_agents(load_population(path), stopped)
    resumed, theirs = train(
        recall_env(), population(env, seed=9), resume=path, **options, **evolution()
    )
    assert_same_agents(resumed, whole)
    assert theirs == fitnesses


@pytest.mark.parametrize("step", [*range(33, 120, 13)])
def test_what_is_interrupted_while_learning_is_as_it_was_before(tmp_path: Path, step: int) -> None:
    """Its second generation, in which the optimiser has moments that must not be shared."""
    whole = whole_run_of_one()
    env, path = StopAt(recall_env(), step), tmp_path / "run.pt"
    train(env, population(env, 1), checkpoint_path=path)
    resumed, _ = train(recall_env(), population(env, 1, seed=9), resume=path)
    assert_same_agents(resumed, whole)


def test_an_agent_shares_no_memory_with_the_data_it_was_built_from() -> None:
    for env in (recall_env(), team_env()):
        (agent,) = population(env, 1)
        collect_rollouts_recurrent(agent, env)
        agent.learn()
        data = agent.to_checkpoint()
        other = type(agent).from_checkpoint(data).to_checkpoint()
        ours, theirs = (set(pointers(x)) for x in (data, other))
        assert len(ours) == len(theirs) > 10
        assert not ours & theirs


def pointers(data: Any) -> list[int]:
    """Addresses of all tensors in a checkpoint's data."""
    if isinstance(data, torch.Tensor):
        return [data.data_ptr()] if data.numel() else []
    items = data.values() if isinstance(data, dict) else data
    return [p for x in items for p in pointers(x)] if isinstance(data, dict | list | tuple) else []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_strikes_during_selection_doubles_no_row_of_the_logs(
    tmp_path: Path, error: type[BaseException]
) -> None:
    env, path = recall_env(), tmp_path / "run.pt"
    options: dict[str, Any] = {"checkpoint_path": path, "log_dir": tmp_path}

    class Struck(TournamentSelection):
        times = 0

        def select(self, population: Any) -> Any:
            result = super().select(population)
            self.times += 1
            if self.times == 2:
                raise error
            return result

    struck = {**evolution(), "tournament": Struck(2, True, 3, 2, rand_seed=5)}
    with contextlib.suppress(ZeroDivisionError):
        train(env, population(env), **options, **struck)
    resumed, _ = train(env, population(env, seed=9), resume=path, **options, **evolution())
    assert_same_agents(resumed, whole_run()[0])
    with (tmp_path / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [384, 768, 1152]
    with (tmp_path / "population.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9


def test_an_error_costs_no_work(tmp_path: Path) -> None:
    env = StopAt(recall_env(), 160, ZeroDivisionError)  # an individual takes 50 a generation
    agents, path = population(env, 2), tmp_path / "run.pt"
    with pytest.raises(ZeroDivisionError) as caught:
        train(env, agents, checkpoint_path=path)
    assert f"resume={str(path)!r}" in caught.value.__notes__[-1]
    assert sorted(agent.env_steps for agent in agents) == [128, 256]
    assert_same_agents(load_population(path), agents)


def test_ctrl_c_says_where_things_are(tmp_path: Path, capsys: Any) -> None:
    env = StopAt(recall_env(), 40)
    path = tmp_path / "run.pt"
    train(env, population(env), checkpoint_path=path, verbose=True, **evolution())
    out = capsys.readouterr().out
    assert "Interrupted in generation 0." in out
    assert f"resume={str(path)!r}" in out


def test_a_finished_run_can_be_trained_for_longer(tmp_path: Path) -> None:
    env, path = recall_env(), tmp_path / "run.pt"
    options: dict[str, Any] = {"target": 0.0, "log_dir": tmp_path, **evolution()}
    train(env, population(env), checkpoint_path=path, **options)
    logs = [(tmp_path / name).read_text() for name in ("metrics.csv", "population.csv")]
    same, _ = train(env, population(env), resume=path, **options)
    assert_same_agents(same, load_population(path))
    assert logs == [(tmp_path / n).read_text() for n in ("metrics.csv", "population.csv")]
    longer, fitnesses = train(env, population(env), resume=path, **evolution())
    assert len(fitnesses) == 3
    assert longer[0].env_steps == 384


def test_checkpoints_come_at_the_steps_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    env, path, saved = recall_env(), tmp_path / "run.pt", []
    from recurrent_rl import checkpoint

    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint,
        "save",
        lambda data, to: (saved.append(data["run"]["generation"]), save(data, to)),
    )
    options = {"max_steps": 768, "checkpoint": 256, "checkpoint_path": path}
    train(env, population(env, 1), **options)
    # After generations of 128 steps each, every second, and at the end.
    assert saved == [2, 4, 5]


def train_until_killed(path: Path) -> None:
    env = recall_env()
    train(env, population(env), max_steps=10**9, checkpoint_path=path, **evolution())


def test_kill_9_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Whenever it strikes: the file is saved some twenty times a second here."""
    path = tmp_path / "run.pt"
    process = multiprocessing.get_context("fork").Process(target=train_until_killed, args=(path,))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.777)
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
    assert len(load_population(path)) == 3
    env = recall_env()
    steps = load_population(path)[0].steps[-1]
    trained, _ = train(env, population(env), max_steps=steps + 128, resume=path, **evolution())
    assert trained[0].steps[-1] == steps + 128


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, env: PPO.save_checkpoint(population(env)[0], path), "of a training run"),
        (lambda path, env: path.write_bytes(b"PK\x03\x04"), "truncated or foreign"),
        (
            lambda path, env: train(env, population(env, 2), max_steps=64, checkpoint_path=path),
            "expected 3 individuals, as in pop, got 2",
        ),
        (
            lambda path, env: train(env, population(env), max_steps=64, checkpoint_path=path),
            "expected a tournament as in this run, it has none",
        ),
        (
            lambda path, env: train(
                team_env(), population(team_env()), max_steps=64, checkpoint_path=path
            ),
            "expected PPO agents, got IPPO",
        ),
    ],
)
def test_what_cannot_be_resumed(tmp_path: Path, spoil: Any, message: str) -> None:
    env, path = recall_env(), tmp_path / "run.pt"
    spoil(path, env)
    with pytest.raises(CheckpointError, match=message):
        train(env, population(env), resume=path, **evolution())


def test_nothing_to_resume(tmp_path: Path) -> None:
    env = recall_env()
    with pytest.raises(FileNotFoundError):
        train(env, population(env), resume=tmp_path / "none.pt", **evolution())


# --- threads -----------------------------------------------------------------------------------


def test_the_callers_threads_come_back() -> None:
    env = recall_env()
    seen: list[int] = []

    class Spy(VectorWrapper):
        def step(self, actions: Any) -> Any:
            seen.append(torch.get_num_threads())
            return super().step(actions)

    train(Spy(env), population(env, 1), max_steps=64, threads=2)
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


# --- logs --------------------------------------------------------------------------------------


def test_logs(tmp_path: Path, capsys: Any) -> None:
    env = recall_env()
    trained, fitnesses = train(
        env,
        population(env),
        INIT_HP=INIT_HP,
        MUT_P={"RAND_SEED": 6},
        log_dir=tmp_path / "new" / "folder",
        verbose=True,
        **evolution(),
    )
    folder = tmp_path / "new" / "folder"
    with (folder / "population.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["fitness"]) for row in rows] == [f for each in fitnesses for f in each]
    assert [row["generation"] for row in rows] == [str(i // 3) for i in range(9)]
    # The family tree can be read from it: everybody's parent is in the generation before.
    for row in rows[3:]:
        generation = int(row["generation"])
        before = {r["index"] for r in rows if int(r["generation"]) == generation - 1}
        assert (row["index"] if row["elite"] == "True" else row["parent"]) in before
    last = rows[-3:]
    assert [int(row["index"]) for row in last] == [agent.index for agent in trained]
    assert [row["mutation"] for row in last if row["elite"] == "False"] == [
        agent.mut for agent in trained if not agent.elite
    ]
    assert [float(row["lr"]) for row in last] == [agent.config.lr for agent in trained]
    said = json.loads((folder / "config.json").read_text())
    assert said["INIT_HP"] == INIT_HP
    assert said["versions"]["torch"] == torch.__version__
    assert said["command"] == sys.argv
    assert list(folder.glob("events.out.tfevents.*"))
    with (folder / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    assert [float(row["fitness/best"]) for row in metrics] == [max(each) for each in fitnesses]
    assert [int(row["step"]) for row in metrics] == [384, 768, 1152]
    assert "member_0/learn/policy_loss" in metrics[0]
    out, progress = capsys.readouterr()
    assert "--- Generation 2: 384 steps each, 1,152 in all" in out
    assert all(agent.mut in out for agent in trained)
    assert "fitness" in progress
    assert "step/s" in progress


def test_a_hyper_parameter_that_only_some_have(tmp_path: Path, capsys: Any) -> None:
    env = recall_env()
    agents = population(env)
    agents[1].hp_config = HyperparameterConfig(target_kl=RLParameter(min=1e-2, max=1e-1))
    agents[1].reconfigure(target_kl=0.0625)
    agents[2].hp_config = None
    train(env, agents, max_steps=128, verbose=True, log_dir=tmp_path)
    assert "0.0625" in capsys.readouterr().out
    with (tmp_path / "population.csv").open() as file:
        assert [row["target_kl"] for row in csv.DictReader(file)] == ["", "0.0625", ""]


def test_numpys_numbers_can_be_saved(tmp_path: Path) -> None:
    env, path = recall_env(), tmp_path / "run.pt"
    agents = population(env)
    for agent in agents:
        agent.hp_config = HyperparameterConfig(
            lr=RLParameter(min=np.float64(1e-4), max=np.float32(0.5)),
            batch_size=RLParameter(min=np.int64(8), max=64, dtype=int),
        )
        agent.fitness.append(np.float64(3))
        agent.steps.append(np.int64(0))
    train(env, agents, checkpoint_path=path, **evolution(no_mutation=0))
    assert load_population(path)[0].fitness[0] == 3


def test_quiet_means_quiet(capsys: Any) -> None:
    env = recall_env()
    train(env, population(env), max_steps=128, **evolution())
    assert capsys.readouterr() == ("", "")


def test_weights_and_biases_get_the_same_numbers(monkeypatch: Any) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    started: list[dict[str, Any]] = []
    run = types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)),
        finish=lambda: logged.append((0, {})),
    )
    module = types.ModuleType("wandb")
    module.init = lambda **options: (started.append(options), run)[1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    env = recall_env()
    _, fitnesses = train(
        env, population(env), wb=True, wandb_kwargs={"project": "mine"}, INIT_HP=INIT_HP
    )
    assert started[0]["project"] == "mine"
    assert started[0]["name"] == "Recall"
    assert started[0]["config"]["INIT_HP"] == INIT_HP
    assert [values["fitness/best"] for _, values in logged[:-1]] == [max(f) for f in fitnesses]
    assert logged[-1] == (0, {})  # finished


def test_weights_and_biases_is_an_extra(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    env = recall_env()
    with pytest.raises(ImportError, match=r"pip install 'recurrent_rl\[wandb\]'"):
        train(env, population(env), wb=True)


# --- arguments ---------------------------------------------------------------------------------


@functools.cache
def untrained(team: bool) -> tuple[Any, list[Any]]:
    """An environment and a population for it, which refusals leave as they are."""
    env = team_env() if team else recall_env()
    return env, population(env)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, r"max_steps: expected a number in \[1, "),
        ({"evo_steps": 0}, ValueError, r"evo_steps: expected a number in \[1, "),
        ({"eval_loop": 0}, ValueError, r"eval_loop: expected a number in \[1, "),
        ({"eval_steps": 0}, ValueError, r"eval_steps: expected a number in \[1, "),
        ({"checkpoint": 10}, ValueError, "checkpoint_path: expected a path"),
        ({"workers": 0}, ValueError, "workers: expected .*, got 0"),
        ({"threads": 0}, ValueError, "threads: expected .*, got 0"),
        ({"checkpoint_path": "no/where.pt"}, FileNotFoundError, "checkpoint_path: .* no to exist"),
        (
            {"save_elite": True, "elite_path": "no/where.pt"},
            FileNotFoundError,
            "elite_path: expected the directory no to exist",
        ),
        (
            {"INIT_HP": {"EVO_STEPS": 64}},
            ValueError,
            r"evo_steps: expected 64, as INIT_HP\['EVO_STEPS'\] says, got 128",
        ),
        ({"tournament": None}, ValueError, "tournament: expected one, as mutations without"),
        (
            {"tournament": TournamentSelection(2, True, 4)},
            ValueError,
            "tournament: expected the population_size 3 of pop, got 4",
        ),
        (
            {"tournament": TournamentSelection(8, True, 3)},
            ValueError,
            "tournament: expected a tournament_size of at most 3, .* got 8",
        ),
        ({"tournament": 2}, TypeError, "tournament: expected a TournamentSelection or None, got 2"),
        ({"mutation": "all"}, TypeError, "mutation: expected Mutations or None, got 'all'"),
        ({"target": math.nan}, ValueError, "target: expected a finite number, got nan"),
        ({"target": "high"}, TypeError, "target: expected float, got 'high'"),
        ({"eval_loop": math.nan}, TypeError, "eval_loop: expected int, got nan"),
        ({"max_steps": 1e5}, TypeError, "max_steps: expected int"),
        ({"evo_steps": 10**400}, ValueError, "evo_steps: expected a number"),
        ({"checkpoint_path": "."}, IsADirectoryError, "checkpoint_path: expected .* of a file"),
        ({"checkpoint_path": 3}, TypeError, "checkpoint_path: expected a path, got 3"),
        ({"checkpoint_path": "", "checkpoint": 5}, ValueError, "checkpoint_path: expected"),
        ({"elite_path": "elite.pt"}, ValueError, "elite_path: expected None, as save_elite=False"),
        ({"save_elite": "banana"}, TypeError, "save_elite: expected bool"),
        ({"save_elite": True, "elite_path": b"e.pt"}, TypeError, "elite_path: expected a path"),
        ({"log_dir": 14}, TypeError, "log_dir: expected a path, got 14"),
        ({"resume": 14}, TypeError, "resume: expected a path, got 14"),
        ({"wb": 1}, TypeError, "wb: expected bool"),
        ({"verbose": "no"}, TypeError, "verbose: expected bool"),
        ({"wandb_kwargs": {}}, ValueError, "wandb_kwargs: expected None, as wb=False"),
        ({"make_env": "Recall", "workers": 2}, TypeError, "make_env: expected a function"),
        ({"INIT_HP": {"TOURN_SIZE": 3}}, ValueError, "tournament_size: expected 3, as INIT_HP"),
        ({"INIT_HP": {"ELITISM": False}}, ValueError, "tournament.elitism: expected False, as"),
        ({"INIT_HP": {"POP_SIZE": 4}}, ValueError, "size of pop: expected 4, as INIT_HP"),
        ({"INIT_HP": {"NUM_ENVS": 16}}, ValueError, "env.num_envs: expected 16, as INIT_HP"),
        ({"INIT_HP": {"TARGET_SCORE": 9}}, ValueError, "target: expected 9, as INIT_HP"),
        ({"INIT_HP": {"ENV_NAME": "Cart"}}, ValueError, "env_name: expected 'Cart', as INIT_HP"),
        ({"INIT_HP": {"EVO_STEPS": -5}}, ValueError, r"INIT_HP\['EVO_STEPS'\]: expected a number"),
        ({"INIT_HP": {"num_envs": 4}}, ValueError, "no option 'num_envs'; did you mean 'NUM_ENVS'"),
        ({"INIT_HP": 3}, TypeError, "INIT_HP: expected a dictionary, got 3"),
    ],
)
@pytest.mark.parametrize("team", [False, True], ids=["PPO", "IPPO"])
@pytest.mark.parametrize("workers", [1, 2])
def test_arguments_that_do_not_fit(
    team: bool, workers: int, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    env, pop = untrained(team)
    with pytest.raises(error, match=message):
        train(env, pop, **{**evolution(), "workers": workers, **options})
    assert all(agent.steps == [0] for agent in pop)


@pytest.mark.parametrize("mutate_elite", [False, True])
def test_one_individual_alone_has_nobody_to_compete_with(mutate_elite: bool) -> None:
    env = recall_env()
    kinds = {"no_mutation": 0, "architecture": 0, "new_layer_prob": 0, "activation": 0}
    mutation = Mutations(**kinds, parameters=1, rl_hp=0, mutate_elite=mutate_elite)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at most 1, .* got 2; .* tournament=None"):
        train(env, population(env, 1), tournament=TournamentSelection(2, True, 1))
    options = {"tournament": TournamentSelection(1, True, 1), "mutation": mutation}
    if mutate_elite:
        assert train(env, population(env, 1), max_steps=128, **options)[1]
    else:
        with pytest.raises(ValueError, match="mutation: expected somebody to mutate"):
            train(env, population(env, 1), **options)


def test_mutations_that_change_nothing_are_refused_or_named() -> None:
    env = recall_env()
    pop = population(env, 2)
    for agent in pop:
        agent.hp_config = None
    options = {"tournament": TournamentSelection(2, True, 2), "max_steps": 64}
    with pytest.raises(ValueError, match=r"mutation: .* rl_hp: no individual .* pass hp_config"):
        train(env, pop, mutation=Mutations(0.5, 0, 0, 0, 0, 1), **options)
    idle = Mutations(0, 0, 0, 1, 1, 0, mutation_sd=0, activation_selection=["Tanh"])
    with pytest.raises(ValueError, match=r"activation: .*; parameters: .* mutation_sd"):
        train(env, pop, mutation=idle, **options)
    with pytest.warns(UserWarning, match="some mutations will change nothing: rl_hp"):
        train(env, pop, mutation=Mutations(0.5, 0, 0, 1, 0, 1), **options)


def test_keys_of_a_tournament_without_one_have_no_effect() -> None:
    env = recall_env()
    with pytest.warns(UserWarning, match="TOURN_SIZE and ELITISM have no effect"):
        train(env, population(env, 1), max_steps=64, INIT_HP={"TOURN_SIZE": 2, "ELITISM": True})


def test_the_same_agent_twice_is_refused() -> None:
    env = recall_env()
    with pytest.raises(ValueError, match="pop: expected different agents"):
        train(env, population(env, 1) * 2)


def test_a_generator_of_agents_is_a_population() -> None:
    env = recall_env()
    agents: Any = (agent for agent in population(env, 2))
    trained, _ = train_on_policy(env, "Recall", "PPO", agents, max_steps=64, verbose=False)
    assert [agent.env_steps for agent in trained] == [64, 64]


def test_one_misfit_is_found_before_the_others_are_trained() -> None:
    env, cartpole = recall_env(), make_vect_envs("CartPole-v1", 2, should_async_vector=False)
    pop = [*population(env, 2), *population(cartpole, 1)]
    with pytest.raises(ValueError, match="expected the agent's observation space"):
        train(env, pop)
    assert [agent.steps for agent in pop] == [[0], [0], [0]]


def test_nobody_left_to_train_is_refused() -> None:
    env = recall_env()
    pop = population(env, 1)
    train(env, pop, max_steps=64)
    with pytest.raises(ValueError, match=r"max_steps: expected more than 64, .* got 64"):
        train(env, pop, max_steps=64)


def test_the_elites_default_name_is_no_path(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    env = recall_env()
    train_on_policy(
        env, "ALE/Pong-v5", "PPO", population(env, 1), max_steps=64, save_elite=True, verbose=False
    )
    assert (tmp_path / "ALE-Pong-v5-elite_PPO.pt").exists()


def test_no_elite_is_saved_whose_fitness_is_no_number(tmp_path: Path) -> None:
    env = recall_env()
    pop = population(env, 2)
    options = {"max_steps": 64, "save_elite": True, "elite_path": tmp_path / "elite.pt"}

    class Judge(TournamentSelection):
        """Has the wrong numbers for some."""

        def fitness(self, agent: Any) -> float:
            agent.fitness[-1] = math.nan if agent.index in bad else 1.0
            return super().fitness(agent)

    bad = [0]
    with pytest.warns(UserWarning, match="fitness: expected a number, .* individual 0"):
        train(env, pop, tournament=Judge(2, True, 2), **options)
    assert PPO.load(tmp_path / "elite.pt").index == 1
    (tmp_path / "elite.pt").unlink()
    bad = [0, 1]
    with pytest.warns(UserWarning, match="fitness: expected a number"):
        train(env, pop, tournament=Judge(2, True, 2), **options)
    assert not (tmp_path / "elite.pt").exists()


def test_training_beyond_the_end_of_a_schedule_says_so_at_once() -> None:
    env = recall_env()
    settings = {"evo_steps": 64, "tournament": None, "mutation": None}
    schedule = {"LR_SCHEDULE": "linear", "TOTAL_STEPS": 64}
    train(env, population(env, 1, **schedule), max_steps=64, **settings)
    with (
        pytest.warns(UserWarning, match=r"^max_steps: expected no more than total_steps = 64"),
        pytest.warns(UserWarning, match=r"^learn: total_steps = 64 are over"),
    ):
        train(env, population(env, 1, **schedule), max_steps=65, **settings)


def test_populations_that_do_not_fit() -> None:
    env = recall_env()
    with pytest.raises(ValueError, match="pop: expected at least one agent, got none"):
        train_on_policy(env, "Recall", "PPO", [])
    known = r"algo: expected one of \['PPO', 'IPPO', 'MAPPO'\], got 'A2C'"
    with pytest.raises(ValueError, match=known):
        train_on_policy(env, "Recall", "A2C", population(env))
    with pytest.raises(TypeError, match="pop: expected IPPO agents, as algo says, got PPO"):
        train_on_policy(env, "Recall", "IPPO", population(env))
    odd = population(env)
    odd[0].hp_config = HyperparameterConfig()
    odd[0].hp_config.parameters["tau"] = RLParameter(min=1e-3, max=0.1)
    with pytest.raises(ValueError, match=r"^hp_config of PPO has no option 'tau'.* batch_size"):
        train(env, odd, **evolution())
    twins = [population(env, 1)[0] for _ in range(3)]
    with pytest.raises(ValueError, match=r"different numbers, got \[0, 0, 0\]"):
        train(env, twins, **evolution())


def test_an_environment_of_other_spaces_is_an_error() -> None:
    env = recall_env()
    cartpole = make_vect_envs("CartPole-v1", 2, should_async_vector=False)
    with pytest.raises(ValueError, match="expected the agent's observation space"):
        train(cartpole, population(env))
    assert isinstance(cartpole, gym.vector.VectorEnv)


# --- no room ------------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("until", [1, 100])
def test_full_disk_does_not_cost_the_population(
    until: int, tmp_path: Path, monkeypatch: Any
) -> None:
    env, path, calls = recall_env(), tmp_path / "run.pt", []
    options = {"save_elite": True, "elite_path": tmp_path / "elite.pt"}
    train(env, population(env), checkpoint_path=path, **options, **evolution(), max_steps=128)
    kept, replace = path.read_bytes(), os.replace

    def full_for_a_while(*names: Any) -> None:
        calls.append(names)
        full_disk() if len(calls) <= until else replace(*names)

    expected, _ = train(recall_env(), population(env), resume=path, **evolution())
    monkeypatch.setattr(os, "replace", full_for_a_while)
    message = r"No space left .* a checkpoint of .*; what was there before, of .*, is untouched"
    with pytest.warns(RuntimeWarning, match=message):
        trained, _ = train(
            env, population(env), resume=path, checkpoint_path=path, **options, **evolution()
        )
    assert_same_agents(trained, expected)
    if until == 1:
        assert_same_agents(load_population(path), trained)
    else:
        assert path.read_bytes() == kept
    assert sorted(os.listdir(tmp_path)) == ["elite.pt", "run.pt"]


def test_full_disk_hides_no_error(tmp_path: Path, monkeypatch: Any) -> None:
    env = StopAt(recall_env(), 160, ZeroDivisionError)
    monkeypatch.setattr(os, "replace", full_disk)
    with (
        pytest.warns(RuntimeWarning, match="No space left"),
        pytest.raises(ZeroDivisionError) as caught,
    ):
        train(env, population(env, 2), checkpoint_path=tmp_path / "run.pt")
    assert caught.value.__notes__[-1] == "The run could not be saved."


def test_full_disk_for_logs(tmp_path: Path, monkeypatch: Any) -> None:
    from recurrent_rl.metrics import CsvTable

    env = recall_env()
    expected, _ = train(env, population(env))
    monkeypatch.setattr(CsvTable, "append", full_disk)
    with pytest.warns(RuntimeWarning, match=r"^log_dir: generation \d could not be logged in"):
        trained, _ = train(recall_env(), population(env), log_dir=tmp_path)
    assert_same_agents(trained, expected)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"]["algo"] == config["algorithm"] == "PPO"
    assert config["settings"]["env_name"] == config["environment"]
