"""Tests of `recurrent_rl.envs.gymnasium_vector`: vector environments as rows, and building them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from support.envs import GarbageAtReset, Scripted, scripted

from recurrent_rl import make_vect_envs
from recurrent_rl.envs.gymnasium_vector import GymRows, autoreset_mode
from recurrent_rl.envs.rows import Observed, Outcome

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED

# Row 0 reaches a terminal state in its second step, row 1 a limit in its third, row 2 both at
# once in its second.
SCRIPTS = ["2t 9t", "3l 9t", "2b 9t"]
KINDS = pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (SAME, SyncVectorEnv),
        (SAME, AsyncVectorEnv),
        (NEXT, SyncVectorEnv),
        (NEXT, AsyncVectorEnv),
        (DISABLED, SyncVectorEnv),
    ],
)


def copied(x: Any) -> Any:
    """A copy of each field: without ``copy`` environments overwrite what they gave."""
    return type(x)(*(None if field is None else np.array(field) for field in x))


def played(env: Any, steps: int) -> tuple[list[Outcome], list[Observed]]:
    """Outcomes of some steps, and all that was seen (one more)."""
    rows = GymRows(env)
    seen, outcomes = [copied(rows.reset(seed=0)[0])], []
    for _ in range(steps):
        ((outcome, observed),) = rows.step([np.full(rows.num_envs, 2)], [seen[-1]])
        outcomes.append(copied(outcome))
        seen.append(copied(observed))
    env.close()
    return outcomes, seen


def what_comes(script: str, index: int, **options: Any) -> list[tuple[Any, ...]]:
    """All that a single environment gives until its first end, the observation first."""
    env = Scripted(script, index, **options)
    comes: list[tuple[Any, ...]] = [env.reset(seed=0)]
    while not env.ended:
        comes.append(env.step(2))
    return comes


def flags(rows: Any) -> list[int]:
    """Which rows are set; None is none."""
    return [] if rows is None else np.flatnonzero(rows).tolist()


class TestRows:
    @KINDS
    @pytest.mark.parametrize("copy", [True, False])
    def test_until_the_first_ends(self, mode: AutoresetMode, kind: Any, copy: bool) -> None:
        outcomes, seen = played(scripted(SCRIPTS, mode, kind, copy), 3)
        assert flags(seen[0].start) == [0, 1, 2]
        for n, script in enumerate(SCRIPTS):
            comes = what_comes(script, n)
            for t in range(len(comes) - 1):
                assert np.array_equal(seen[t].observation[n], comes[t][0])
                ours = (outcomes[t].reward[n], outcomes[t].terminated[n], outcomes[t].truncated[n])
                assert ours == comes[t + 1][1:4]
        assert [flags(x.terminated) for x in outcomes] == [[], [0, 2], []]
        assert [flags(x.truncated) for x in outcomes] == [[], [2], [1]]
        assert all(x.exists is None and x.action_mask is None for x in seen)

    @pytest.mark.parametrize(
        ("mode", "kind"), [(SAME, SyncVectorEnv), (SAME, AsyncVectorEnv), (DISABLED, SyncVectorEnv)]
    )
    @pytest.mark.parametrize("copy", [True, False])
    def test_same_step(self, mode: AutoresetMode, kind: Any, copy: bool) -> None:
        outcomes, seen = played(scripted(SCRIPTS, mode, kind, copy), 4)
        assert [flags(x.start) for x in seen[1:]] == [[], [0, 2], [1], []]
        assert all(x.active is None for x in seen)
        # Only where a limit cut: neither a terminal state nor both at once has a value.
        assert [x.final_rows.tolist() for x in outcomes] == [[], [], [1], []]
        final = outcomes[2].final_observation
        assert final is not None
        assert np.array_equal(final, [what_comes(SCRIPTS[1], 1)[-1][0]])
        for t, n in ((2, 0), (3, 1), (2, 2)):
            env = Scripted(SCRIPTS[n], n)
            env.reset(seed=0)
            assert np.array_equal(seen[t].observation[n], env.reset()[0])

    @pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
    @pytest.mark.parametrize("copy", [True, False])
    def test_next_step(self, kind: Any, copy: bool) -> None:
        outcomes, seen = played(scripted(SCRIPTS, NEXT, kind, copy), 5)
        assert [flags(x.start) for x in seen[1:]] == [[], [], [0, 2], [1], []]
        inactive = [[] if x.active is None else flags(~x.active) for x in seen]
        assert inactive == [[], [], [0, 2], [1], [], []]
        for t, n in ((2, 0), (3, 1), (2, 2)):
            env = Scripted(SCRIPTS[n], n)
            env.reset(seed=0)
            assert np.array_equal(seen[t].observation[n], what_comes(SCRIPTS[n], n)[-1][0])
            assert np.array_equal(seen[t + 1].observation[n], env.reset()[0])
            assert outcomes[t].reward[n] == 0
        assert all(x.final_rows.size == 0 and x.final_observation is None for x in outcomes)
        assert [flags(x.terminated) for x in outcomes] == [[], [0, 2], [], [], []]
        assert [flags(x.truncated) for x in outcomes] == [[], [2], [1], [], []]

    def test_nonsense_of_a_step_that_only_resets(self) -> None:
        outcomes, seen = played(GarbageAtReset(scripted(SCRIPTS, NEXT)), 5)
        theirs, seen_theirs = played(scripted(SCRIPTS, NEXT), 5)
        for ours, expected in zip([*outcomes, *seen], [*theirs, *seen_theirs], strict=True):
            for x, y in zip(ours, expected, strict=True):
                assert (x is None) == (y is None)
                assert x is None or np.array_equal(x, y)

    @pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
    def test_episodes_of_one_step(self, mode: AutoresetMode) -> None:
        outcomes, seen = played(scripted(["1t", "1l"], mode), 4)
        if mode == NEXT:
            assert [flags(x.start) for x in seen] == [[0, 1], [], [0, 1], [], [0, 1]]
            assert [flags(x.truncated) for x in outcomes] == [[1], [], [1], []]
        else:
            assert [flags(x.start) for x in seen] == [[0, 1]] * 5
            assert [x.final_rows.tolist() for x in outcomes] == [[1]] * 4

    @KINDS
    def test_masks(self, mode: AutoresetMode, kind: Any) -> None:
        _, seen = played(scripted(SCRIPTS, mode, kind, masked=True), 5)
        for n, script in enumerate(SCRIPTS):
            env = Scripted(script, n, masked=True)
            info = env.reset(seed=0)[1]
            for observed in seen:
                assert observed.action_mask is not None
                assert observed.action_mask.dtype == bool
                if env.ended:  # what is allowed in a final state is nobody's concern
                    info = env.reset()[1]
                    continue
                assert np.array_equal(observed.action_mask[n], info["action_mask"] != 0)
                info = env.step(2)[4]
                if env.ended and mode != NEXT:
                    info = env.reset()[1]

    def test_no_final_observations(self) -> None:
        env = scripted(SCRIPTS, NEXT)
        env.metadata["autoreset_mode"] = SAME  # a lie
        with pytest.raises(
            ValueError,
            match=r"^info\['final_obs'\]: .* \[1\], .* got none from SyncV.*mode right\?",
        ):
            played(env, 5)

    def test_plain_environment(self) -> None:
        with pytest.raises(TypeError, match=r"^env: expected .* got Scripted; .*make_vect_envs"):
            GymRows(Scripted("1t"))  # type: ignore[arg-type]


class TestAutoresetMode:
    @pytest.mark.parametrize("mode", list(AutoresetMode))
    def test_declared(self, mode: AutoresetMode) -> None:
        env = scripted(["1t"], mode)
        assert autoreset_mode(env) is mode
        env.metadata["autoreset_mode"] = mode.value  # as a specification in JSON has it
        assert autoreset_mode(env) is mode

    @pytest.mark.parametrize("metadata", [{}, None, {"autoreset_mode": "never"}])
    def test_undeclared(self, metadata: Any) -> None:
        env = scripted(["1t"])
        env.metadata = metadata
        with pytest.raises(ValueError, match=r"^env\.metadata\['autoreset_mode'\]: expected") as e:
            GymRows(env)
        # It says what to do, in code.
        assert "env.metadata = {**env.metadata, 'autoreset_mode': AutoresetMode" in str(e.value)

    def test_real_environments_declare_theirs(self) -> None:
        cartpole = gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
        assert autoreset_mode(cartpole) is NEXT


class TestMakeVectEnvs:
    @pytest.mark.parametrize(
        ("use_async", "kind"), [(True, AsyncVectorEnv), (False, SyncVectorEnv)]
    )
    def test_by_name(self, use_async: bool, kind: type) -> None:
        env = make_vect_envs("Pendulum-v1", 3, should_async_vector=use_async, g=4.0)
        try:
            assert isinstance(env, kind)
            assert env.num_envs == 3
            assert autoreset_mode(env) is SAME
            assert [e.g for e in env.get_attr("unwrapped")] == [4.0] * 3  # type: ignore
            assert env.reset(seed=0)[0].shape == (3, 3)
            assert len({*env.reset(seed=0)[0][:, 2]}) == 3  # seeded differently
        finally:
            env.close()

    def test_async_and_one_environment_are_the_defaults(self) -> None:
        env = make_vect_envs("CartPole-v1")
        try:
            assert isinstance(env, AsyncVectorEnv)
            assert env.num_envs == 1
        finally:
            env.close()

    @pytest.mark.parametrize("use_async", [True, False])
    def test_by_function(self, use_async: bool) -> None:
        def make_env() -> Scripted:
            return Scripted("3t")

        env = make_vect_envs(num_envs=2, make_env=make_env, should_async_vector=use_async)
        try:
            assert env.num_envs == 2
            assert env.single_observation_space == make_env().observation_space
        finally:
            env.close()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, r"expected one of env_name and make_env, got env_name=None, make_env=None"),
            ({"env_name": "CartPole-v1", "make_env": Scripted}, r"expected one of .*'CartPole-v1'"),
            ({"env_name": "CartPole-v1", "num_envs": 0}, r"^num_envs: expected .*, got 0"),
            ({"make_env": Scripted, "nun_envs": 2}, r"with env_name only, got \{'nun_envs': 2\}"),
        ],
    )
    def test_errors(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_vect_envs(**options)

    def test_unknown_name(self) -> None:
        with pytest.raises(gym.error.NameNotFound, match="CartPool"):
            make_vect_envs("CartPool-v1", 2, should_async_vector=False)


class TestMakers:
    def test_one_object_for_all(self) -> None:
        one = Scripted("3t")
        for make in (lambda: one, lambda: gym.wrappers.TimeLimit(one, 9)):
            with pytest.raises(ValueError, match="one object for several"):
                make_vect_envs(make_env=make, num_envs=2, should_async_vector=False)
            make_vect_envs(make_env=make, num_envs=1, should_async_vector=False).close()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"make_env": Scripted("3t")}, "make_env: expected a function .* got Scripted"),
            ({"make_env": gym}, "make_env: expected a function .* got module"),
            ({"make_env": "CartPole-v1"}, "make_env: expected a function .* pass it as env_name"),
            ({"env_name": Scripted}, "env_name: expected a registered .* pass it as make_env="),
            ({"env_name": Scripted("3t")}, "env_name: expected a registered Gymnasium id, got S"),
            ({"make_env": lambda: Scripted}, "returns a Gymnasium environment, got ABCMeta|type"),
            ({"make_env": lambda: None}, "returns a Gymnasium environment, got NoneType"),
        ],
    )
    def test_something_else_than_a_maker(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            make_vect_envs(**options, num_envs=2, should_async_vector=False)
