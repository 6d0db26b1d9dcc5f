"""Tests of `recurrent_rl.evolution.tournament`: who is selected, and that children stand alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.agents import make_team
from support.envs import scripted
from support.evolving import assert_same, grow_older, individual, snapshot
from support.multi_envs import scripted_makers

from recurrent_rl import (
    Birth,
    SyncMultiAgentVectorEnv,
    TournamentSelection,
    checkpoint,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.migration import upgraded


def population(*fitness: float) -> list[Any]:
    """Individuals numbered from 0 and evaluated once."""
    agents = [individual(i) for i in range(len(fitness))]
    for agent, value in zip(agents, fitness, strict=True):
        agent.fitness = [value]
    return agents


def parents(children: list[Any]) -> list[int | None]:
    return [child.lineage[-1].parent for child in children]


# --- the elite ----------------------------------------------------------------------------------


@pytest.mark.parametrize("elitism", [True, False])
def test_elite_is_the_individual_that_was_evaluated_and_stays_as_it_is(elitism: bool) -> None:
    agents = population(1.0, 3.0, 2.0)
    before = [snapshot(agent) for agent in agents]
    buffers = [agent.buffer for agent in agents]
    elite, children = TournamentSelection(2, elitism, 3, rand_seed=0).select(agents)
    assert elite is agents[1]
    for agent, state, buffer in zip(agents, before, buffers, strict=True):
        assert_same(snapshot(agent), state)
        assert agent.buffer is buffer
    assert len(children) == 3
    assert not {id(child) for child in children} & {id(agent) for agent in agents}


def test_elites_copy_comes_first_and_is_the_same_in_all_but_its_mark() -> None:
    agents = population(1.0, 3.0, 2.0)
    elite, children = TournamentSelection(2, True, 3, rand_seed=0).select(agents)
    copy = children[0]
    assert copy is not elite
    assert [child.elite for child in children] == [True, False, False]
    assert not elite.elite
    ours, theirs = snapshot(copy), snapshot(elite)
    # Its random stream, its number and its lineage go on too.
    assert ours["individual"].pop("elite") is not theirs["individual"].pop("elite")
    assert_same(ours, theirs)


def test_without_elitism_all_are_children() -> None:
    _, children = TournamentSelection(2, False, 4, rand_seed=0).select(population(1.0, 3.0))
    assert not any(child.elite for child in children)
    assert [child.index for child in children] == [2, 3, 4, 5]


def test_child_of_an_elite_is_none() -> None:
    agents = population(1.0, 3.0)
    agents[1].elite = True
    _, children = TournamentSelection(2, False, 2, rand_seed=0).select(agents)
    assert parents(children) == [1, 1]
    assert not any(child.elite for child in children)
    assert agents[1].elite


# --- fitness ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("eval_loop", "best"), [(1, 0), (2, 1), (3, 2), (10, 2)])
def test_fitness_is_the_mean_of_the_latest_evaluations(eval_loop: int, best: int) -> None:
    agents = population(0.0, 0.0, 0.0)
    agents[0].fitness = [0.0, 0.0, 10.0]
    agents[1].fitness = [0.0, 8.0, 8.0]
    agents[2].fitness = [99.0, 1.0, 1.0]
    selection = TournamentSelection(3, True, 3, eval_loop, rand_seed=0)
    assert selection.select(agents)[0] is agents[best]
    assert selection.fitness(agents[1]) == pytest.approx({1: 8, 2: 8}.get(eval_loop, 16 / 3))


@pytest.mark.filterwarnings("ignore:fitness. expected a number:UserWarning")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_fitness_that_is_no_number_never_wins(bad: float, place: int) -> None:
    values = [-5.0, -5.0]
    values.insert(place, bad)
    agents = population(*values)
    # Every tournament has a sound individual in it.
    elite, children = TournamentSelection(2, True, 12, rand_seed=0).select(agents)
    assert elite is not agents[place]
    assert place not in parents(children[1:])


def test_one_bad_evaluation_of_several_counts() -> None:
    agents = population(1.0, 2.0)
    agents[1].fitness = [math.nan, 100.0]
    with pytest.warns(UserWarning, match=r"got \[nan, 100\.0\] of individual 1; it ranks last"):
        assert TournamentSelection(2, True, 2, 2).select(agents)[0] is agents[0]
    assert TournamentSelection(2, True, 2, 1).select(agents)[0] is agents[1]


@pytest.mark.filterwarnings("ignore:fitness. expected a number:UserWarning")
def test_nobody_is_selected_where_no_fitness_is_a_number() -> None:
    agents = population(math.nan, -math.inf)
    with pytest.raises(ValueError, match=r"whose fitness is a number, got \[\[nan\], \[-inf\]\]"):
        TournamentSelection(1, False, 2).select(agents)


def test_what_is_inherited_is_not_a_childs_own() -> None:
    agents = population(500.0, 0.0)
    selection = TournamentSelection(2, True, 2, 2, rand_seed=0)
    elite, child = selection.select(agents)[1]
    # The elite that goes on unchanged keeps its own results; all can be seen.
    assert (elite.own_fitness, child.own_fitness) == ([500.0], [])
    assert child.fitness == [500.0]
    with pytest.raises(ValueError, match="individual 2 without any fitness of its own"):
        selection.fitness(child)
    elite.fitness.append(400.0)
    child.fitness.append(10.0)
    # With its parent's it would be 255.
    assert (selection.fitness(elite), selection.fitness(child)) == (450.0, 10.0)
    child.fitness += [20.0, 30.0]
    assert selection.fitness(child) == 25.0
    grandchild = selection.select([child, agents[1]])[1][1]
    assert (grandchild.own_fitness, grandchild.fitness) == ([], [500.0, 10.0, 20.0, 30.0])


def test_whose_results_they_are_is_copied_saved_and_loaded(tmp_path: Path) -> None:
    _, child = TournamentSelection(2, True, 2, rand_seed=0).select(population(5.0, 0.0))[1]
    child.fitness.append(1.0)
    child.save_checkpoint(tmp_path / "child.pt")
    for other in (child.clone(), type(child).load(tmp_path / "child.pt")):
        assert (other.own_fitness, other.fitness) == ([1.0], [5.0, 1.0])


@pytest.mark.parametrize(("trained", "own"), [(0, []), (8, [2.0])])
def test_a_child_of_the_older_format_has_the_latest_result_at_most(
    trained: int, own: list[float]
) -> None:
    data = checkpoint.load(Path(__file__).parents[1] / "data" / "format_1_ppo.pt")
    steps = data["env_steps"] if "env_steps" in data else data["groups"][""]["env_steps"]
    births = [vars(Birth(0)), vars(Birth(1, 0, steps - trained))]
    new = upgraded({**data, "fitness": [1.0, 2.0], "lineage": births})
    assert new["fitness"][new["individual"]["inherited"] :] == own


# --- tournaments --------------------------------------------------------------------------------


@pytest.mark.parametrize("elitism", [True, False])
def test_a_tournament_of_all_has_one_winner(elitism: bool) -> None:
    agents = population(1.0, 2.0, 5.0, 3.0)
    _, children = TournamentSelection(4, elitism, 6, rand_seed=0).select(agents)
    assert parents(children[elitism:]) == [2] * (6 - elitism)


def test_no_individual_competes_with_itself() -> None:
    # Drawn without replacement, the worst loses every tournament of two.
    agents = population(3.0, 0.0, 2.0, 1.0)
    _, children = TournamentSelection(2, False, 36, rand_seed=0).select(agents)
    count = [parents(children).count(i) for i in range(4)]
    assert count[1] == 0
    # Of six pairs the best wins three, the second two.
    assert count[0] > count[2] > count[3] > 0


def test_a_tournament_of_one_is_a_draw() -> None:
    _, children = TournamentSelection(1, False, 36, rand_seed=0).select(population(0.0, 1.0))
    assert 9 < parents(children).count(0) < 27  # three deviations


def test_reproducible_from_its_seed() -> None:
    agents = population(1.0, 2.0, 3.0, 4.0)
    runs = [TournamentSelection(2, True, 12, rand_seed=s).select(agents)[1] for s in (5, 5, 6)]
    assert parents(runs[0]) == parents(runs[1]) != parents(runs[2])
    for ours, theirs in zip(runs[0], runs[1], strict=True):
        assert_same(snapshot(ours), snapshot(theirs))


def test_goes_on_from_a_checkpoint() -> None:
    agents = population(1.0, 2.0, 3.0, 4.0)
    ours, theirs = (TournamentSelection(2, False, 10, rand_seed=s) for s in (1, 2))
    ours.select(agents)
    state = ours.state_dict()
    theirs.load_state_dict(state)
    assert parents(ours.select(agents)[1]) == parents(theirs.select(agents)[1])


def test_fresh_entropy_without_a_seed() -> None:
    states = [TournamentSelection(1, True, 1).generator.get_state() for _ in range(2)]
    assert not torch.equal(*states)


# --- children -----------------------------------------------------------------------------------


def test_numbers_and_lineage_over_generations() -> None:
    selection = TournamentSelection(2, True, 4, rand_seed=0)
    agents = population(1.0, 2.0, 3.0, 0.0)
    grow_older(agents[2], 640)
    seen = {0, 1, 2, 3}
    for generation in range(4):
        _, children = selection.select(agents)
        numbers = [child.index for child in children]
        assert len(set(numbers)) == len(numbers)
        assert not seen & set(numbers[1:]), "a number was used again"
        seen |= set(numbers)
        by_number = {agent.index: agent for agent in agents}
        for child in children[1:]:
            birth = child.lineage[-1]
            assert birth.parent is not None
            parent = by_number[birth.parent]
            assert child.lineage[:-1] == parent.lineage
            assert birth == Birth(child.index, parent.index, parent.env_steps, parent.fitness[-1])
            assert child.mut == "none"
            assert child.fitness == parent.fitness
        agents = children
        for i, agent in enumerate(agents):
            grow_older(agent, 10)
            agent.fitness.append(float((i * 7 + generation) % 5))


def test_children_and_parents_share_nothing() -> None:
    env = scripted(["3t 5l", "7b"])
    agents = [individual(i, learn_step=8) for i in range(2)]
    for agent in agents:
        collect_rollouts_recurrent(agent, env)
        agent.learn()
        agent.fitness.append(float(agent.index))
    _, children = TournamentSelection(2, True, 3, rand_seed=0).select(agents)
    everybody = [*agents, *children]
    places = [{p.data_ptr() for p in agent.policy.parameters()} for agent in everybody]
    assert len(set.union(*places)) == sum(len(place) for place in places)
    before = [snapshot(agent) for agent in everybody]
    child = children[2]
    assert child.collection.carries is None
    collect_rollouts_recurrent(child, env)
    child.learn()
    child.steps.append(99)
    child.scores.append(1.0)
    for agent, state in zip(everybody, before, strict=True):
        if agent is not child:
            assert_same(snapshot(agent), state)
    # It did learn, with its parent's optimiser.
    moments = [a.optimizer.state_dict()["state"][0]["step"] for a in (agents[1], child)]
    assert float(moments[1]) > float(moments[0]) > 0


def test_random_streams_are_their_own() -> None:
    agents = population(1.0, 2.0)
    elite, children = TournamentSelection(2, True, 5, rand_seed=0).select(agents)
    assert parents(children[1:]) == [1] * 4
    streams = [tuple(agent.group.generator.get_state().tolist()) for agent in children]
    assert streams[0] == tuple(elite.group.generator.get_state().tolist())
    assert len(set(streams)) == 5


def test_branches_follow_from_the_stream_and_the_number() -> None:
    def branched(seed: int, number: int) -> list[int]:
        agent = individual(seed)
        agent.group.reseed(number)
        state: list[int] = agent.group.generator.get_state().tolist()
        return state

    assert branched(0, 1) == branched(0, 1)
    assert branched(0, 1) != branched(0, 2)
    assert branched(0, 1) != branched(1, 1)


def test_teams() -> None:
    episode = {"bob_0": [(0, 3, "t")], "fred_0": [(0, 3, "l")], "bob_1": [(1, 3, "l")]}
    env = SyncMultiAgentVectorEnv(scripted_makers([[episode]] * 2))
    agents = [make_team(env, seed=i) for i in range(2)]
    for i, agent in enumerate(agents):
        collect_rollouts_recurrent(agent, env)
        agent.learn()
        agent.lineage, agent.fitness = [Birth(i)], [float(i)]
    before = [snapshot(agent) for agent in agents]
    elite, children = TournamentSelection(2, True, 3, rand_seed=0).select(agents)
    assert elite is agents[1]
    for child in children[1:]:
        for ours, theirs in zip(child.groups, elite.groups, strict=True):
            assert_same(dict(ours.policy.state_dict()), dict(theirs.policy.state_dict()))
    streams = [tuple(g.generator.get_state().tolist()) for a in children for g in a.groups]
    assert len(set(streams)) == 6
    collect_rollouts_recurrent(children[1], env)
    children[1].learn()
    for agent, state in zip(agents, before, strict=True):
        assert_same(snapshot(agent), state)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tournament_size", "population_size", "eval_loop"])
def test_numbers_below_one(name: str) -> None:
    numbers = {"tournament_size": 1, "population_size": 1, "eval_loop": 1, name: 0}
    with pytest.raises(ValueError, match=rf"^{name}: expected a number in \[1, 1e\+15\], got 0"):
        TournamentSelection(elitism=True, **numbers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("elitism", "banana"),
        ("elitism", 14),
        ("elitism", None),
        ("eval_loop", math.nan),
        ("eval_loop", 1.0),
        ("tournament_size", True),
        ("population_size", "4"),
        ("rand_seed", math.nan),
        ("rand_seed", "seed"),
    ],
)
def test_values_of_the_wrong_type(name: str, value: Any) -> None:
    options: dict[str, Any] = {"tournament_size": 1, "elitism": True, "population_size": 1}
    with pytest.raises(TypeError, match=f"^{name}: expected .*, got "):
        TournamentSelection(**{**options, name: value})


def test_numpys_values_become_pythons() -> None:
    selection = TournamentSelection(np.int64(2), np.True_, np.int32(3), rand_seed=np.int64(4))  # type: ignore[arg-type]
    values = (selection.tournament_size, selection.elitism, selection.population_size)
    assert [type(value) for value in values] == [int, bool, int]


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_for_a_tournament(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 3 individuals for a tournament, got {count}"):
        TournamentSelection(3, True, 3).select(population(*range(count)))


def test_not_evaluated() -> None:
    agents = population(1.0, 2.0)
    agents[1].fitness = []
    with pytest.raises(
        ValueError, match=r"individual 1 without any fitness of its own; call agent\.test"
    ):
        TournamentSelection(1, True, 2).select(agents)
