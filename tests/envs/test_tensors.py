"""Tests of `recurrent_rl.envs.tensors`: vectors of tensors do what the same of arrays do."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from support.agents import assert_ratio_one
from support.training_runs import NETWORK
from torch import Tensor

from recurrent_rl import DQN, PPO, MaskVelocityVectorWrapper, collect_rollouts_recurrent
from recurrent_rl.envs.gymnasium_vector import GymRows

SAME, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


class Simulator(VectorEnv[Any, Any, Any]):
    """Points that are pushed about, as simulators on GPUs are written; or the same of arrays.

    Row 0 ends by itself after 3 steps, row 1 is cut after 4, row 2 after 5. State is changed in
    place, and the observation is written over in each step.
    """

    def __init__(self, mode: AutoresetMode, device: str | None, space: Any = None) -> None:
        self.num_envs, self.metadata = 3, {"autoreset_mode": mode}
        self.single_observation_space = space or spaces.Box(-9, 9, (2,))
        self.single_action_space = spaces.Box(-1, 1, (1,), np.float64)
        self.mode, self.shows = mode, device is not None
        if device is not None:
            self.device = torch.device(device)
        self.lengths = torch.tensor([3, 4, 5], device=device)
        self.taken: list[Any] = []

    def _show(self) -> Any:
        torch.stack((self.place, self.time / 4), -1, out=self.seen)
        return self._given(self.seen)

    def _given(self, x: Tensor) -> Any:
        return x if self.shows else x.numpy().copy()

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        device = self.lengths.device
        self.place = torch.linspace(-1, 1, 3, device=device)
        self.time = torch.zeros(3, device=device)
        self.over = torch.zeros(3, dtype=torch.bool, device=device)
        self.seen = torch.zeros(3, 2, device=device)
        return self._show(), {}

    def step(self, actions: Any) -> Any:
        self.taken.append(actions)
        assert isinstance(actions, Tensor) == self.shows
        actions = torch.as_tensor(actions)
        actions.clamp_(-1, 1)  # as many do
        assert actions.dtype == torch.float64
        begins = self.over if self.mode == NEXT else torch.zeros_like(self.over)
        self.place += 0.3 * actions[:, 0].float()
        self.time += 1
        self._begin(begins)
        self.over = ~begins & (self.time >= self.lengths)
        ended = self.over & (self.lengths == 3)
        limit = self.over & (self.lengths != 3)
        info = {"speed": self._given(self.place * 2), "_speed": self._given(~begins)}
        if self.mode == SAME and bool(self.over.any()):
            self._show()
            finals = {"speed": info.pop("speed"), "_speed": info.pop("_speed")}
            info = {"final_obs": self._given(self.seen.clone()), "final_info": finals}
            self._begin(self.over)
        reward = torch.where(begins, 7.0, -self.place.abs())
        return self._show(), *map(self._given, (reward, ended, limit)), info

    def _begin(self, rows: Tensor) -> None:
        self.place[rows] = 0.5
        self.time[rows] = 0


def agent_for(env: Any, **options: Any) -> PPO:
    given: dict[str, Any] = {"learn_step": 12, "max_seq_len": 4, "batch_size": 12, **options}
    given |= {"previous_action": True, "previous_reward": True, "seed": 0}
    return PPO(env.single_observation_space, env.single_action_space, NETWORK, **given)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", [SAME, NEXT], ids=lambda mode: mode.name)
def test_they_do_what_arrays_do_without_becoming_any(mode: AutoresetMode, device: str) -> None:
    tensors, arrays = Simulator(mode, device), Simulator(mode, None)
    one, other = agent_for(tensors, device=device), agent_for(arrays)
    for _ in range(2):
        ours = collect_rollouts_recurrent(one, tensors)
        theirs = collect_rollouts_recurrent(other, arrays)
        assert ours.lengths == theirs.lengths
        assert ours.infos.keys() == {"speed"} == theirs.infos.keys()
        assert one.buffer is not None
        assert other.buffer is not None
        for name in ("obs", "start", "active", "terminated", "truncated"):
            mine, wanted = getattr(one.buffer, name), getattr(other.buffer, name)
            torch.testing.assert_close(mine, wanted)
        for name in ("action", "reward", "value", "bootstrap", "log_prob"):
            mine, wanted = getattr(one.buffer, name), getattr(other.buffer, name)
            torch.testing.assert_close(mine, wanted)
            assert device != "cpu" or torch.equal(mine, wanted)
        assert_ratio_one(one)
        one.learn()
        other.learn()
    assert {x.device.type for x in tensors.taken} == {device}
    assert one.test(tensors, seed=1) == pytest.approx(other.test(arrays, seed=1), rel=1e-4)
    tensors.reset()  # whose tensors are its own, not those of collection's inference mode
    tensors.place += 1


def test_what_is_shown_goes_to_the_policy_as_it_is() -> None:
    env = Simulator(NEXT, "cpu")
    (seen,) = GymRows(env).reset()
    assert seen.tensor is not None
    assert seen.tensor.data_ptr() == env.seen.data_ptr()
    assert seen.copy().tensor.data_ptr() != env.seen.data_ptr()  # type: ignore[union-attr]


def test_collection_goes_on_from_a_checkpoint(tmp_path: Any) -> None:
    env = Simulator(NEXT, "cpu")
    agent = agent_for(env)
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    agent.save_checkpoint(tmp_path / "agent.pt")
    again = PPO.load(tmp_path / "agent.pt")
    collect_rollouts_recurrent(again, env, reset=False)
    assert all(isinstance(action, Tensor) for action in env.taken)
    assert again.buffer is not None
    assert not again.buffer.start[0].all()


def test_dictionaries_of_tensors_and_masks_in_them() -> None:
    """Of a Dict a record is made, by way of arrays, and goes back to the device."""

    class Nested(VectorEnv[Any, Any, Any]):
        device = None  # that of what it shows
        num_envs = 2
        metadata = {"autoreset_mode": SAME}  # noqa: RUF012
        single_observation_space = spaces.Dict(
            a=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(3)
        )
        single_action_space = spaces.Discrete(3)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            mask = torch.tensor([[0, 1, 0], [0, 0, 1]], dtype=torch.int8)
            return {"a": torch.rand(2, 2), "action_mask": mask}, {}

        def step(self, actions: Any) -> Any:
            assert actions.tolist() == [1, 2]
            assert actions.dtype == torch.int64
            never = torch.zeros(2, dtype=torch.bool)
            return self.reset()[0], torch.ones(2), never, never, {}

    env = Nested()
    agent = DQN(
        spaces.Dict(a=spaces.Box(-1, 1, (2,))), env.single_action_space, NETWORK, learn_step=8
    )
    assert collect_rollouts_recurrent(agent, env, 4).steps == 8


def test_they_can_be_masked() -> None:
    env = MaskVelocityVectorWrapper(Simulator(SAME, "cpu"), indices=[1])
    agent = agent_for(env)
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer is not None
    assert not agent.buffer.obs[..., 1].any()
    assert agent.buffer.obs[..., 0].any()


def test_what_is_refused() -> None:
    env = Simulator(AutoresetMode.DISABLED, "cpu")
    with pytest.raises(ValueError, match=r"SAME_STEP or NEXT_STEP of a vector that shows tensors"):
        collect_rollouts_recurrent(agent_for(env), env)

    class Careless(Simulator):
        def step(self, actions: Any) -> Any:
            result = super().step(actions)
            if "final_obs" in result[-1]:
                result[-1]["final_obs"] = self.seen  # which it writes over
            return result

    env = Careless(SAME, "cpu")
    with pytest.raises(ValueError, match=r"final_obs.*first observations have been written into"):
        collect_rollouts_recurrent(agent_for(env), env)
