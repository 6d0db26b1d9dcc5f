"""Demonstrations: episodes of somebody who knows what to do.

Letters: T steps of an episode, n choices.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recurrent_rl import checkpoint
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.imitation.checks import (
    checked_actions,
    checked_mask,
    checked_numbers,
    checked_observations,
)
from recurrent_rl.spaces.actions import action_codec
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.spaces.masks import without_mask
from recurrent_rl.spaces.serialization import same_space, space_from_dict, space_to_dict
from recurrent_rl.validation import shown


@dataclass(frozen=True, eq=False)
class Episode:
    """One life of one agent, from where its memory is empty, without steps at which it saw nothing.

    Attributes:
        observation: what was seen before each action, [T, *shape], in the form that the package
            stores observations of the space in: a Box as it is, a Dict as one flat record.
        action: as environments take it, [T, *shape].
        mask: what was allowed, bool [T, n]; None: everything.
        weight: of each step in the loss, >= 0, [T]; at 0 it is seen and remembered, but not
            imitated.
        reward: what was earned from each step until the next was seen, [T]; None: unknown.
        agent: its name; None: it has none, or it makes no difference.

    """

    observation: Tensor
    action: Array
    mask: Array | None
    weight: Array
    reward: Array | None
    agent: str | None

    def __len__(self) -> int:
        """T."""
        return len(self.action)

    @property
    def total_reward(self) -> float:
        """What was earned in all, without discount; NaN if it is unknown."""
        return float("nan") if self.reward is None else float(self.reward.sum(dtype=np.float64))


class Demonstrations:
    """Episodes that a policy is to imitate.

    >>> import gymnasium as gym
    >>> import numpy as np
    >>> shown = Demonstrations(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3))
    >>> shown.add(observations=np.zeros((4, 2)), actions=[0, 2, 2, 1], rewards=[0, 0, 0, 1])
    >>> shown
    Demonstrations(1 episode, 4 steps, mean return 1)

    Attributes:
        observation_space: of one agent, without the action mask that may come with observations.
        action_space: likewise.
        episodes: in the order in which they were added.

    """

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Begin without episodes.

        Args:
            observation_space: of one agent, as agents take it.
            action_space: likewise.

        Raises:
            TypeError: a space that is not supported.

        """
        for name, space in (
            ("observation_space", observation_space),
            ("action_space", action_space),
        ):
            if not isinstance(space, gym.Space):
                raise TypeError(f"{name}: expected a gymnasium space, got {shown(space)}")
        self.observation_space, _ = without_mask(observation_space, action_space)
        self.action_space = action_space
        self.episodes: list[Episode] = []
        self._layout = ObservationLayout(self.observation_space)
        self._codec = action_codec(action_space, squash_output=False)

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.episodes)

    def __repr__(self) -> str:
        """How many there are, and how good."""
        count, returns = len(self), self.returns
        text = f"{count} episode{'s' * (count != 1)}, {self.steps:,} steps"
        if count and np.isfinite(returns).all():
            text += f", mean return {returns.mean():.4g}"
        return f"{type(self).__name__}({text})"

    @property
    def steps(self) -> int:
        """Steps of all episodes together."""
        return sum(len(episode) for episode in self.episodes)

    @property
    def returns(self) -> Array:
        """What each episode earned, without discount, [episodes]; NaN where it is unknown."""
        return np.array([episode.total_reward for episode in self.episodes])

    def add(
        self,
        observations: Any,
        actions: Any,
        *,
        action_masks: Any = None,
        weights: Any = 1.0,
        rewards: Any = None,
        agent: str | None = None,
    ) -> None:
        """Add an episode, from its very beginning, where nothing is remembered.

        Args:
            observations: what was seen before each action: a list, or arrays [T, *shape]; of Dict
                and Tuple spaces a list of dictionaries and tuples, or dictionaries and tuples of
                arrays. An "action_mask" may come with them. What was seen after the last action may
                be there too ([T + 1, *shape]) and is left out.
            actions: as the environment took them, [T, *shape].
            action_masks: allowed actions, bool [T, n], as ``get_action`` takes them; goes before
                the observations'.
            weights: of the whole episode or of each step, [T], at least 0: how much it counts,
                compared with other steps. A step of weight 0 is seen and remembered, but not
                imitated.
            rewards: [T]; needed by agents with previous_reward only.
            agent: whose episode it was, for policies that see which agent they act for.

        Raises:
            TypeError: not of the space's structure.
            ValueError: wrong shapes, numbers that are not finite, an action that is not in the
                space or that its mask forbids; names the step.

        """
        action = checked_actions(self._codec, actions)
        masked = bool(self._codec.choices)
        steps = len(action)
        observation, own = checked_observations(self._layout, observations, steps, masked=masked)
        weight = checked_numbers("weights", weights, steps, least=0.0)
        mask = own if action_masks is None else action_masks
        if not (agent is None or isinstance(agent, str)):
            raise TypeError(f"agent: expected a name or None, got {shown(agent)}")
        episode = Episode(
            observation,
            action,
            checked_mask(self._codec, mask, action, weight),
            weight,
            None if rewards is None else checked_numbers("rewards", rewards, steps),
            agent,
        )
        self.episodes.append(episode)

    def extend(self, others: "Demonstrations") -> None:
        """Add others' episodes, of the same spaces; ValueError if they are of others."""
        for name in ("observation_space", "action_space"):
            expected, got = getattr(self, name), getattr(others, name)
            if not same_space(expected, got):
                raise ValueError(f"others: expected the {name} {expected}, got {got}")
        self.episodes += others.episodes

    def where(self, keep: Callable[[Episode], bool]) -> Self:
        """Return the episodes for which a function says so, the good ones for example.

        Args:
            keep: ``lambda episode: episode.total_reward > 0``.

        """
        return self._with(list(filter(keep, self.episodes)))

    def _with(self, episodes: Sequence[Episode]) -> Self:
        some = type(self)(self.observation_space, self.action_space)
        some.episodes = list(episodes)
        return some

    # --- saving -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save all episodes: atomically, tensors and plain values only.

        Raises:
            ValueError: there are none.
            FileNotFoundError: the directory does not exist.
            PermissionError: it cannot be written.

        """
        if not self.episodes:
            raise ValueError("save: expected at least one episode, got none; add some first")
        lengths = [len(episode) for episode in self.episodes]
        data = {
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "length": torch.tensor(lengths),
            "agents": [episode.agent for episode in self.episodes],
            "observation": torch.cat([episode.observation for episode in self.episodes]),
            "action": _joined([episode.action for episode in self.episodes], lengths),
            "weight": _joined([episode.weight for episode in self.episodes], lengths),
            "mask": _joined([episode.mask for episode in self.episodes], lengths),
            "masked": [episode.mask is not None for episode in self.episodes],
            "reward": _joined([episode.reward for episode in self.episodes], lengths),
            "rewarded": [episode.reward is not None for episode in self.episodes],
        }
        checkpoint.save({"demonstrations": data}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` has written.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated or foreign.

        """
        data = checkpoint.load(path)
        if "demonstrations" not in data:
            kind = data.get("algorithm")
            raise CheckpointError(
                f"{path}: expected saved demonstrations, got "
                f"{'something else' if kind is None else f'a saved {kind}'}"
            )
        try:
            return cls._from_data(data["demonstrations"])
        except Exception as error:  # whatever the wrong part does to the code that reads it
            raise CheckpointError(f"{path}: the parts do not fit together: {error}") from error

    @classmethod
    def _from_data(cls, data: dict[str, Any]) -> Self:
        self = cls(
            space_from_dict(data["observation_space"]), space_from_dict(data["action_space"])
        )
        lengths = data["length"].tolist()
        fields = {
            name: [None] * len(lengths) if data[name] is None else list(data[name].split(lengths))
            for name in ("observation", "action", "weight", "mask", "reward")
        }
        stored = self._layout
        expected = (sum(lengths), *stored.shape)
        if data["observation"].shape != expected or data["observation"].dtype != stored.dtype:
            raise ValueError(f"expected observations of shape {list(expected)}, {stored.dtype}")
        for i, observation in enumerate(fields["observation"]):
            weight = checked_numbers("weights", fields["weight"][i], lengths[i], least=0.0)
            action = checked_actions(self._codec, fields["action"][i])
            mask = fields["mask"][i] if data["masked"][i] else None
            reward = fields["reward"][i] if data["rewarded"][i] else None
            episode = Episode(
                observation.clone(),
                action,
                checked_mask(self._codec, mask, action, weight),
                weight,
                None if reward is None else checked_numbers("rewards", reward, lengths[i]),
                data["agents"][i],
            )
            self.episodes.append(episode)
        return self


def _joined(parts: Sequence[Array | None], lengths: Sequence[int]) -> Tensor | None:
    """Return fields of all episodes one behind the other; zeros for those that have none."""
    like = next((part for part in parts if part is not None), None)
    if like is None:
        return None
    each = [
        np.zeros((steps, *like.shape[1:]), like.dtype) if part is None else part
        for part, steps in zip(parts, lengths, strict=True)
    ]
    return torch.from_numpy(np.concatenate(each))
