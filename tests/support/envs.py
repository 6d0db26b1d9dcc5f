"""Small environments whose every number is known in advance, and probes of memory."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

NAN_REWARD = "reward"  # for Scripted's ``poison``


def told(total: float, episode: int) -> dict[str, Any]:
    """What an info may say: the return so far, what only every second episode says, odd things."""
    info = {
        "total": total,
        "is_success": bool(episode % 3),
        "lost": np.bool_(episode % 3 == 0),
        "array_total": np.array(total),
        "text": "won",
        "nothing": None,
        "array": np.arange(3.0),
        "not_finite": np.inf if episode % 2 else np.nan,
        "deep": {"total": total},
        "_own": 1,
        "final_obs": 3,
    }
    return {**info, "rare": np.float32(total)} if episode % 2 else info


class Scripted(gym.Env[Any, Any]):
    """Plays episodes of given lengths and endings.

    Observations depend on the environment's index, the episode and the step; rewards also on the
    action, so that an action which was stored but not sent (or sent to another row) is noticed.
    ``reset(seed=...)`` begins the script anew, ``reset()`` plays its next episode.

    >>> env = Scripted("2t 1l")  # two steps to a terminal state, one step to a limit, and again
    >>> _ = env.reset(seed=0)
    >>> [env.step(1)[2:4] for _ in range(2)]
    [(False, False), (True, False)]
    >>> _ = env.reset()
    >>> env.step(1)[2:4]
    (False, True)
    """

    def __init__(
        self,
        script: str,
        index: int = 0,
        *,
        observation: str = "box",
        action: str = "discrete",
        masked: bool = False,
        poison: dict[int, Any] | None = None,
        tells: bool = False,
    ) -> None:
        """Args: script, e.g. "3t 5l 1b": terminated, limit, both; poison by steps taken so far.

        A poison is an observation's value, or ``NAN_REWARD``. With ``tells`` infos have what
        ``told`` says, with every step and reset.
        """
        self.script = [(int(n), end) for n, end in re.findall(r"(\d+)([tlb])", script)]
        self.index, self.masked, self.poison = index, masked, poison or {}
        self.tells, self.total = tells, 0.0
        # Spaces that do not begin at 0 and bounds that are not symmetric find more mistakes.
        self.observation_space: gym.Space[Any] = {
            "box": Box(-np.inf, np.inf, (3,)),
            "narrow": Box(-np.inf, np.inf, (1,)),
            "discrete": Discrete(5, start=2),
        }[observation]
        self.action_space: gym.Space[Any] = {
            "discrete": Discrete(3, start=1),
            "box": Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32)),
        }[action]
        self.episode, self.time, self.clock = -1, 0, 0
        self.ended = True
        self.received: list[Any] = []

    def _observation(self) -> Any:
        place = 1 + 0.7 * self.index + 1.3 * self.episode + 0.5 * self.time
        if isinstance(self.observation_space, Discrete):
            return 2 + int(7 * place) % 5
        values = np.sin(place + np.arange(self.observation_space.shape[0]) * 2.0)
        bad = self.poison.get(self.clock, NAN_REWARD)
        if bad != NAN_REWARD and (self.time > 0 or self.clock == 0):  # once, not after a reset too
            values[0] = bad
        return values.astype(np.float32)

    def _info(self) -> dict[str, Any]:
        if self.tells:
            info = told(self.total, self.episode)
            del info["final_obs"]  # a name of Gymnasium's own
            return info
        if not self.masked:
            return {}
        # int8, as Taxi gives it; in a final state nothing is allowed, for there is nothing to do.
        place = self.index + self.episode + self.time + np.arange(3)
        return {"action_mask": np.where(self.ended, 0, place % 3 != 0).astype(np.int8)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode = self.episode + 1 if seed is None else 0
        self.time, self.ended, self.total = 0, False, 0.0
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert not self.ended, "stepped behind the end of an episode"
        self.received.append(action)
        self.time += 1
        self.clock += 1
        length, end = self.script[self.episode % len(self.script)]
        self.ended = self.time == length
        reward = np.cos(self.index + self.episode + 0.9 * self.time) + 0.3 * float(np.sum(action))
        if self.poison.get(self.clock) == NAN_REWARD:
            reward = np.nan
        self.total += float(reward)
        terminated, truncated = (self.ended and end in kinds for kinds in ("tb", "lb"))
        return self._observation(), reward, terminated, truncated, self._info()


def scripted(
    scripts: list[str],
    mode: AutoresetMode = AutoresetMode.SAME_STEP,
    kind: type[VectorEnv[Any, Any, Any]] = SyncVectorEnv,
    copy: bool = True,
    poisons: dict[int, dict[int, Any]] | None = None,
    **options: Any,
) -> Any:
    """Return a vector of ``Scripted``, environment i playing script i; poisons by environment."""

    def maker(i: int, script: str) -> Any:
        return lambda: Scripted(script, i, poison=(poisons or {}).get(i), **options)

    makers = [maker(i, script) for i, script in enumerate(scripts)]
    return kind(makers, autoreset_mode=mode, copy=copy)  # type: ignore[call-arg]


class GarbageAtReset(VectorWrapper):
    """Returns nonsense with each NEXT_STEP reset: reward and flags of that step mean nothing."""

    def step(self, actions: Any) -> Any:
        resets = self.env.unwrapped._autoreset_envs.copy()  # type: ignore[attr-defined]
        observation, reward, terminated, truncated, info = self.env.step(actions)
        return (
            observation,
            np.where(resets, np.nan, reward),
            terminated | resets,
            truncated | resets,
            info,
        )


class Recall(gym.Env[Any, Any]):
    """Shows a bit once and asks for it k steps later; reward 1 for the right answer, else 0."""

    def __init__(self, k: int = 8) -> None:
        self.k = k
        self.observation_space = Box(-1, 1, (2,))  # the bit (then 0), and whether it is asked for
        self.action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time, self.bit = 0, int(self.np_random.integers(2))
        return np.array([2 * self.bit - 1, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        asked = self.time == self.k
        self.time += 1
        reward = float(asked and action == self.bit)
        return np.array([0, self.time == self.k], np.float32), reward, asked, False, {}


class Repeat(gym.Env[Any, Any]):
    """Asks at every step for the observation of k steps ago; a whole episode gives at most 1."""

    def __init__(self, k: int = 4, length: int = 24) -> None:
        self.k, self.length = k, length
        self.observation_space = Discrete(2)
        self.action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time, self.bits = 0, self.np_random.integers(2, size=self.length + 1)
        return int(self.bits[0]), {}

    def step(self, action: Any) -> Any:
        right = self.time >= self.k and action == self.bits[self.time - self.k]
        self.time += 1
        reward = float(right) / (self.length - self.k)
        return int(self.bits[self.time]), reward, False, self.time == self.length, {}


class Copy(gym.Env[Any, Any]):
    """Shows a code once, which must be given back as an action k steps later.

    The reward is the share of components that are right; chance gives what it gives.
    """

    def __init__(self, code: gym.spaces.MultiDiscrete | gym.spaces.MultiBinary, k: int = 6) -> None:
        self.k, self.action_space = k, code
        parts = {"code": code, "shown": Discrete(2), "asked": Discrete(2)}
        self.observation_space = gym.spaces.Dict(parts)

    def _observation(self) -> Any:
        start = getattr(self.action_space, "start", 0)
        blank = np.zeros(self.action_space.shape, self.action_space.dtype) + start
        code = self.code if self.time == 0 else blank.astype(self.action_space.dtype)
        return {"code": code, "shown": int(self.time == 0), "asked": int(self.time == self.k)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        if isinstance(self.action_space, gym.spaces.MultiDiscrete):
            code = self.action_space.start + self.np_random.integers(self.action_space.nvec)
        else:
            code = self.np_random.integers(2, size=self.action_space.shape)
        self.code = code.astype(self.action_space.dtype)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        asked = self.time == self.k
        self.time += 1
        reward = float(np.mean(action == self.code)) if asked else 0.0
        return self._observation(), reward, asked, False, {}
