"""What every agent class promises, whatever its algorithm; ``support.contract`` has the classes."""

import contextlib
import copy
import functools
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.agents import assert_same_weights
from support.contract import (
    CASES,
    Case,
    behaviour,
    everything,
    first_of_collection,
    observations,
    random_states,
    rewards,
    train,
)
from support.evolving import assert_same, snapshot

from recurrent_rl import (
    Birth,
    CheckpointError,
    checkpoint,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent

pytestmark = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
NO_ROLLOUT = r"^learn: expected a rollout collected since the last call; call collect_roll"


def differ(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Whether the weights of every group do."""
    groups = {name.split(".")[0] for name in ours}
    return all(
        any(
            k not in theirs or not torch.equal(ours[k], theirs[k])
            for k in ours
            if k.split(".")[0] == group
        )
        for group in groups
    )


@functools.cache
def kept(case: Case) -> Any:
    """A case's trained agent that several tests look at; it is to be left as it is."""
    return case.trained()


def trained(case: Case) -> Any:
    """The same to do something with; that copies are what was copied is tested below."""
    return copy.deepcopy(kept(case))


@functools.cache
def stranger(case: Case) -> Any:
    """An agent of the case with other options and another past, to be left as it is."""
    return train(case.agent(seed=7, **case.differing), case.vector(), 1)


def loaded(case: Case, path: Path, how: str) -> Any:
    """The agent in a file, built anew or in the place of another, whose options it knows better."""
    if how == "load":
        return case.kind.load(path)
    other = copy.deepcopy(stranger(case))
    other.load_checkpoint(path)
    return other


LOADING = ("load", "load_checkpoint")


def without_statistics(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x for name, x in weights.items() if ".preprocessor." not in name}


def learns_nothing(agent: Any) -> None:
    """There is nothing to learn from: an error of those that learn from rollouts."""
    if isinstance(agent, OffPolicyAgent):
        given = agent.learn()
        assert not any(
            each.updates for each in (given.values() if isinstance(given, dict) else [given])
        )
    else:
        with pytest.raises(RuntimeError, match=NO_ROLLOUT):
            agent.learn()


# --- saving and loading -------------------------------------------------------------------------


class TestSaving:
    def test_what_is_loaded_is_what_was_saved(self, case: Case, tmp_path: Path) -> None:
        agent = trained(case)
        agent.save_checkpoint(str(tmp_path / "agent.pt"), **case.whole)
        others = [loaded(case, tmp_path / "agent.pt", how) for how in LOADING]
        before, memory = snapshot(agent), agent.memory.to_data() if case.replays else None
        names = ["config", "seed", "env_steps", "fitness", "scores", "steps", "lineage", "elite"]
        for other in others:
            assert_same(before, snapshot(other))
            if case.replays:
                assert_same(memory, other.memory.to_data())
            for name in (*names, *case.kind._fixed):
                assert getattr(other, name) == getattr(agent, name), name
            assert repr(other) == repr(agent)
        for deterministic in (True, False):
            ours, *theirs = (behaviour(a, deterministic=deterministic) for a in (agent, *others))
            for each in theirs:
                assert_same(ours, each)
        for other in others:
            assert_same(random_states(agent), random_states(other))

    def test_resumed_run_equals_the_run_that_never_stopped(
        self, case: Case, tmp_path: Path
    ) -> None:
        env = case.vector()
        agent = train(case.agent(), env, 2)
        agent.save_checkpoint(tmp_path / "agent.pt", **case.whole)
        kept = [copy.deepcopy(env) for _ in LOADING]
        train(agent, env, 2)
        assert agent.env_steps == (40 if case.replays else 80)
        for how, env in zip(LOADING, kept, strict=True):
            other = loaded(case, tmp_path / "agent.pt", how)
            train(other, env, 2, reset=False)
            assert other.env_steps == agent.env_steps
            assert_same(snapshot(agent), snapshot(other))

    def test_starts_afresh_unless_told_otherwise(self, case: Case, tmp_path: Path) -> None:
        agent, env = case.agent(), case.vector()
        train(agent, env, 1)
        agent.save_checkpoint(tmp_path / "agent.pt")
        other = case.kind.load(tmp_path / "agent.pt")
        collect_rollouts_recurrent(other, env)
        for start, exists in first_of_collection(other):
            assert exists.any() or len(other.trainers) > 1
            assert torch.equal(start, exists)

    def test_rollout_that_was_not_learned_from_is_not_saved(
        self, case: Case, tmp_path: Path
    ) -> None:
        agent = trained(case)
        collect_rollouts_recurrent(agent, case.vector())
        agent.save_checkpoint(tmp_path / "agent.pt")
        other = case.kind.load(tmp_path / "agent.pt")
        agent.load_checkpoint(tmp_path / "agent.pt")
        for each in (agent, other):
            learns_nothing(each)

    def test_file_has_plain_values_and_runs_no_code(self, case: Case, tmp_path: Path) -> None:
        kept(case).save_checkpoint(tmp_path / "agent.pt", **case.whole)
        data = torch.load(tmp_path / "agent.pt", weights_only=True)
        assert (data["format"], data["algorithm"]) == (checkpoint.FORMAT, case.kind.__name__)
        plain = (dict, list, tuple, str, int, float, bool, type(None), torch.Tensor)

        def check(x: Any) -> None:
            assert isinstance(x, plain), type(x)
            parts = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
            for part in parts:
                check(part)

        check(data)


@contextlib.contextmanager
def left_alone(case: Case) -> Iterator[Any]:
    """The same agent, which what happens within is to leave as it was."""
    agent = kept(case)
    before = snapshot(agent)
    yield agent
    assert_same(before, snapshot(agent))


@functools.cache
def saved(name: str) -> bytes:
    """The file of a case's untrained agent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agent.pt"
        CASES[name].agent().save_checkpoint(path)
        return path.read_bytes()


class TestRefused:
    """A file that cannot be loaded, which leaves the agent as it was."""

    @staticmethod
    def check(agent: Any, path: Path, message: str) -> None:
        groups = list(agent.groups)
        with pytest.raises(CheckpointError, match=message) as error:
            agent.load_checkpoint(path)
        assert str(path) in str(error.value)
        assert list(agent.groups) == groups

    def test_another_class(self, case: Case, tmp_path: Path) -> None:
        path, name = tmp_path / "agent.pt", case.kind.__name__
        others = {each.kind: key for key, each in CASES.items() if each.kind is not case.kind}
        others = dict(list(others.items())[slice(*turns(case))])
        assert others
        with left_alone(case) as agent:
            for kind, key in others.items():
                path.write_bytes(saved(key))
                self.check(agent, path, rf"expected a saved {name}, got '{kind.__name__}'")
            checkpoint.save({**agent.to_checkpoint(), "algorithm": "Nobody"}, path)
            self.check(agent, path, rf"expected a saved {name}, got 'Nobody'")

    @pytest.mark.parametrize("change", ["spaces", "network"])
    def test_another_agent(self, case: Case, change: str, tmp_path: Path) -> None:
        if change == "spaces":
            other = case.build(case.vector(**case.elsewhere), **case.options)
        else:
            other = case.agent(hidden_state_size=6, hidden_size=[3])
        other.save_checkpoint(tmp_path / "agent.pt")
        what = {"spaces": "observation_space", "network": "net_config"}[change]
        message = rf"expected this agent's {what}s? .*, got .*{case.kind.__name__}\.load\(path\)"
        with left_alone(case) as agent:
            self.check(agent, tmp_path / "agent.pt", message)

    def test_damaged(self, case: Case, tmp_path: Path) -> None:
        path = tmp_path / "agent.pt"
        with left_alone(case) as agent:
            agent.save_checkpoint(path)
            content = path.read_bytes()
            for size in (0, 100, len(content) // 2, len(content) - 1):
                path.write_bytes(content[:size])
                self.check(agent, path, "expected a whole recurrent_rl checkpoint, got a truncated")

    def test_any_part_is_missing(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = kept(case)
        whole, kind = snapshot(agent), case.kind.__name__
        policy = f"groups.{agent.group_names[-1]}.policy"
        needed = {"algorithm", "groups", policy, "collection.-1.state", "individual.lineage"}
        for place, data in list(without_a_part(whole))[slice(*turns(case))]:
            name = ".".join(map(str, place))
            found = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, **data}
            monkeypatch.setattr(checkpoint, "load", lambda path, found=found: found)  # a file's
            message = None
            try:
                other = case.kind.load("agent.pt")
            except CheckpointError as error:
                message = str(error)
            if message is None:  # it was not needed
                assert name not in needed
                assert_same(whole, snapshot(other))
            elif name == "algorithm":
                assert f"expected a saved {kind}, got None" in message
            else:
                assert "the parts do not fit together" in message, name


def turns(case: Case) -> tuple[int, None, int]:
    """The slice of what the cases of a class share out among them, as their files' form is one."""
    of_class = [each for each in CASES.values() if each.kind is case.kind]
    return of_class.index(case), None, len(of_class)


def without_a_part(data: dict[str, Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """An agent's data, in turn without each of its parts (of groups the last one's), and which."""
    last = list(data["groups"])[-1]
    inner: list[list[Any]] = [[], ["individual"], ["groups"], ["groups", last], ["collection", -1]]
    for path in inner:
        part: Any = data
        for key in path:
            part = part[key]
        for name in part:
            changed: Any = {key: value for key, value in part.items() if key != name}
            for depth in reversed(range(len(path))):  # and around it as it was
                around: Any = data
                for key in path[:depth]:
                    around = around[key]
                outer = copy.copy(around)
                outer[path[depth]] = changed
                changed = outer
            yield [*path, name], changed


# --- copies -------------------------------------------------------------------------------------

COPYING: tuple[Callable[[Any], Any], ...] = (
    lambda agent: agent.clone(),
    copy.deepcopy,
    lambda agent: pickle.loads(pickle.dumps(agent)),
)


class TestCopies:
    def test_equal_and_independent(self, case: Case) -> None:
        agent = case.trained()
        before = snapshot(agent)
        twins = [how(agent) for how in COPYING]
        for each in (agent, *twins):
            each.collection.forget()
        before["collection"] = None
        weights = everything(agent)
        for twin in twins:
            assert_same(before, snapshot(agent))
            assert_same(before, snapshot(twin))
            for name in ("config", *case.kind._fixed):
                assert getattr(twin, name) == getattr(agent, name), name
            if case.replays and not len(twin.memory):  # a clone's is its own, and empty
                twin.memory = copy.deepcopy(agent.memory)

            train(twin, case.vector(), 1)
            assert differ(everything(twin), weights)
            twin.fitness.append(2.0)
            twin.steps[0] = 99
            twin.lineage.append(Birth(5))
        assert_same(before, snapshot(agent))
        # The same from here on, each for itself.
        train(agent, case.vector(), 1)
        for twin in twins:
            assert_same_weights(everything(agent), everything(twin))
            assert_same(random_states(agent), random_states(twin))
            if case.replays:
                assert_same(agent.memory.to_data(), twin.memory.to_data())

    def test_untrained(self, case: Case) -> None:
        agent = case.agent()
        twins = [how(agent) for how in COPYING]
        for twin in twins:
            assert_same(snapshot(agent), snapshot(twin))
        for each in (agent, *twins):
            train(each, case.vector(), 1)
        for twin in twins:
            assert_same_weights(everything(agent), everything(twin))

    def test_clone_has_collected_nothing(self, case: Case) -> None:
        agent, env = case.agent(), case.vector()
        collect_rollouts_recurrent(agent, env)
        twin = agent.clone()
        learns_nothing(twin)
        with pytest.raises(ValueError, match=r"^reset=False: expected a collection .* has nothing"):
            collect_rollouts_recurrent(twin, env, reset=False)
        agent.learn()  # which still can

    def test_offspring(self, case: Case) -> None:
        agent = trained(case)
        agent.elite = True
        before = snapshot(agent)
        child, sibling, again = (agent.offspring(index) for index in (7, 8, 7))
        assert_same(before, snapshot(agent))
        assert (child.index, sibling.index) == (7, 8)
        assert child.lineage == [*agent.lineage, Birth(7, agent.index, agent.env_steps, -2.0)]
        assert not child.elite
        # Of its parent it has the weights, but not the random stream.
        assert_same_weights(everything(agent), everything(child))
        streams = [random_states(each) for each in (agent, child, sibling)]
        for ours, theirs in ((0, 1), (0, 2), (1, 2)):
            pairs = zip(streams[ours], streams[theirs], strict=True)
            assert not any(torch.equal(x, y) for x, y in pairs)
        learns_nothing(child)
        rollouts = 3 if case.replays else 1  # they have memories to be filled
        family = (child, again, sibling, agent)
        after = [everything(train(each, case.vector(), rollouts)) for each in family]
        assert_same_weights(after[0], after[1])
        assert differ(after[0], after[2])
        assert differ(after[0], after[3])


# --- chance -------------------------------------------------------------------------------------


class TestSeeds:
    def test_the_seed_decides_everything(self, case: Case) -> None:
        results = []
        for seed in (1, 1, 2):
            # Anything may have drawn from the global generators before.
            torch.rand(len(results) + 1)
            np.random.rand(len(results) + 1)  # noqa: NPY002
            random.random()
            env = case.vector()
            agent = case.build(env, seed=seed, **case.options)
            results.append(snapshot(train(agent, env, 2)))
        assert_same(results[0], results[1])
        for ours, theirs in zip(*(r["groups"].values() for r in results[1:]), strict=True):
            assert not torch.equal(ours["generator"], theirs["generator"])
            moved = [not torch.equal(x, theirs["policy"][k]) for k, x in ours["policy"].items()]
            assert any(moved)

    def test_first_weights(self, case: Case) -> None:
        ours = untouched(case, 3)
        assert_same_weights(ours, untouched(case, 3))
        assert differ(ours, untouched(case, 4))
        assert differ(untouched(case, None), untouched(case, None))

    def test_global_random_state_is_left_alone(self, case: Case) -> None:
        def states() -> list[Any]:
            legacy = np.random.get_state()  # noqa: NPY002
            return [torch.get_rng_state().tolist(), [str(x) for x in legacy], random.getstate()]

        before = states()
        env = case.vector()
        agent = train(case.agent(), env, 1)
        agent.test(env, loop=1)
        agent.clone()
        assert states() == before


def untouched(case: Case, seed: int | None) -> dict[str, torch.Tensor]:
    """The weights that an agent is built with; ``Case.agent`` replaces them."""
    agent = kept(case)
    names = ("normalize_reward", "recurrent", "groups")
    options = {name: case.options[name] for name in names if name in case.options}
    spaces: tuple[Any, ...]
    if isinstance(agent, MultiAgent):
        spaces = agent.observation_spaces, agent.action_spaces, agent.agent_ids
    else:
        spaces = agent.observation_space, agent.action_space
    return everything(case.kind(*spaces, seed=seed, **options))


# --- learning and testing -----------------------------------------------------------------------


class TestLearning:
    def test_needs_a_rollout_and_uses_it_once(self, case: Case) -> None:
        agent, env = case.agent(), case.vector()
        untrained = everything(agent)
        learns_nothing(agent)
        if case.replays:
            collect_rollouts_recurrent(agent, env)  # and has no batch yet
        else:
            assert_same_weights(untrained, everything(agent))
        collect_rollouts_recurrent(agent, env)
        collected = everything(agent)
        if case.replays:  # whose statistics of observations move as these come
            untrained, collected = (without_statistics(x) for x in (untrained, collected))
        assert_same_weights(untrained, collected)
        agent.learn()
        before = everything(agent)
        assert differ(before, untrained)
        learns_nothing(agent)
        assert_same_weights(before, everything(agent))

    def test_goes_on_as_if_not_tested(self, case: Case) -> None:
        results = []
        for test in (True, False):
            env, other = case.vector(), case.vector()
            agent = case.agent()
            for _ in range(2):
                collect_rollouts_recurrent(agent, env)
                if test:
                    agent.test(other, loop=1)
                agent.learn()
            agent.fitness.clear()
            results.append(snapshot(agent))
        assert_same(*results)

    def test_collection_starts_afresh_after_a_test_on_its_environment(self, case: Case) -> None:
        agent, env = case.agent(learn_step=2), case.vector()
        starts = []
        for test in (False, False, True):
            if test:
                agent.test(env, loop=1)
            collect_rollouts_recurrent(agent, env)
            starts.append(all(torch.equal(*flags) for flags in first_of_collection(agent)))
        assert starts == [True, False, True]


# --- bad input ----------------------------------------------------------------------------------


class TestBadInput:
    """Each is refused with a message that helps, and leaves the agent as it was."""

    def test_environment_with_other_spaces(self, case: Case) -> None:
        env = case.vector(**case.elsewhere)
        message = r"^env: expected .* observation space .*, got .*build the agent from this env"
        with left_alone(case) as agent:
            for call in (collect_rollouts_recurrent, lambda a, e: a.evaluate(e, 1)):
                with pytest.raises(ValueError, match=message):
                    call(agent, env)

    def test_hyperparameters(self, case: Case) -> None:
        bad: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"gama": 0.9}, ValueError, r"no option 'gama'; did you mean 'gamma'\?"),
            ({"gamma": 1.5}, ValueError, r"\.gamma: expected a number in \[0, 1\], got 1\.5"),
            ({case.step_size: "fast"}, TypeError, r"\.lr\w*: expected float, got 'fast'"),
        ]
        for options, error, message in bad:
            with pytest.raises(error, match=message):
                case.agent(**options)
            with left_alone(case) as agent:
                for trainer in agent.trainers.values():
                    with pytest.raises(error, match=message):
                        trainer.reconfigure(**options)

    def test_hidden_state(self, case: Case) -> None:
        stranger = case.agent(hidden_state_size=6, previous_action=True)
        with left_alone(case) as agent:
            seen, states = observations(agent, 2), [agent.get_initial_hidden_state(3)]
            if agent.config.recurrent:
                states += [None, stranger.get_initial_hidden_state(2)]
            for state in states:
                if not agent.config.recurrent and isinstance(agent, MultiAgent):
                    continue  # which has nothing to look at
                with pytest.raises(ValueError, match=r"^hidden_state: expected"):
                    agent.get_action(seen, state, **rewards(agent, 0.0))

    def test_observation_that_is_not_finite(self, case: Case) -> None:
        message = r"^observation: expected finite numbers, .* row 1"
        with left_alone(case) as agent:
            seen, state = observations(agent, 2), agent.get_initial_hidden_state(2)
            first = seen["bob_0"] if isinstance(seen, dict) else seen
            first[1, 0] = np.nan
            with pytest.raises(ValueError, match=message):
                agent.get_action(seen, state, **rewards(agent, 0.0))

    def test_environment_that_shows_what_is_not_finite(self, case: Case) -> None:
        agent = trained(case)
        before = everything(agent)
        with pytest.raises(ValueError, match=r"expected finite .*environment 1"):
            collect_rollouts_recurrent(agent, case.vector(**case.poisoned))
        assert_same_weights(before, everything(agent))
        learns_nothing(agent)
        # And training can go on.
        train(agent, case.vector(), 1)
        assert differ(before, everything(agent))
