"""Tests of `recurrent_rl.envs.turn_rows`: what wrappers of turn-based environments say counts."""

from typing import Any

import pettingzoo
from pettingzoo.utils.wrappers import BaseWrapper, OrderEnforcingWrapper

from recurrent_rl import SyncMultiAgentVectorEnv
from recurrent_rl.envs.turn_rows import HANDING_THROUGH, source_of


class Doubled(BaseWrapper[Any, Any, Any]):
    """Doubles what players earn, in `rewards` and in `last()`."""

    @property
    def rewards(self) -> dict[str, float]:
        return {agent: 2 * reward for agent, reward in self.env.rewards.items()}

    def last(self, observe: bool = True) -> tuple[Any, ...]:
        observation, reward, *rest = super().last(observe)
        return observation, 2 * reward, *rest


def game() -> Any:
    return pettingzoo.make("aec", "classic/connect_four-v3")


def doubled() -> Any:
    return OrderEnforcingWrapper(Doubled(game()))


def test_only_wrappers_that_have_nothing_to_say_are_passed_over() -> None:
    env = game()
    assert source_of(env) is env.unwrapped
    assert type(source_of(doubled())) is Doubled
    for wrapper in HANDING_THROUGH:  # as their source says; a newer PettingZoo may change it
        has = {*vars(wrapper)} & {"rewards", "terminations", "truncations", "agents", "infos"}
        assert not has
        assert wrapper.last is BaseWrapper.last


def test_what_a_wrapper_makes_of_rewards_is_what_players_get() -> None:
    totals = []
    for make in (game, doubled):
        vector = SyncMultiAgentVectorEnv([make])
        _, infos = vector.reset(seed=0)
        won = 0.0
        # Both players always fill the first column that is not full: somebody wins.
        for _ in range(42):
            actions = {a: infos[a]["action_mask"].argmax(-1) for a in vector.possible_agents}
            _, rewards, terminations, _, infos = vector.step(actions)
            won += abs(float(rewards["player_0"][0]))
            if terminations["player_0"][0]:
                break
        vector.close()
        totals.append(won)
    assert totals == [1.0, 2.0]
