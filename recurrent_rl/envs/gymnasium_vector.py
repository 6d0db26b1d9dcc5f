"""Gymnasium vector environments as rows, with every episode's final observation kept.

Letters: E environments, N = E rows.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from recurrent_rl.envs import parking, tensors, vector_outputs
from recurrent_rl.envs.final_infos import numbers_of_rows
from recurrent_rl.envs.rows import NO_ROWS, Observed, Outcome, RowSource
from recurrent_rl.envs.usage import innermost
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout
from recurrent_rl.spaces.masks import choices, flat_mask, part_mask, without_mask


def autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Return the declared autoreset mode.

    Raises:
        ValueError: none is declared, so nobody can tell an episode's last observation from the
            next one's first; the message says what to do.

    """
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise ValueError(
            f"env.metadata['autoreset_mode']: expected a gymnasium.vector.AutoresetMode, got "
            f"{mode!r} from {type(env).__name__}; find out from the environment's documentation "
            f"when it resets and declare it: env.metadata = {{**env.metadata, 'autoreset_mode': "
            f"AutoresetMode.NEXT_STEP}}"
        ) from None


class GymRows(RowSource):
    """A Gymnasium vector environment as rows, whatever its autoreset mode.

    NEXT_STEP: the observation after an episode's end is the final one. Its row sees it (so its
    value is known) but is not active, and the row starts afresh one step later.
    SAME_STEP: the final observation comes in the info; the row starts afresh at once.
    DISABLED: we reset what ended, which makes it SAME_STEP.

    Masks of Discrete and MultiDiscrete actions are taken from ``info["action_mask"]``, or else from
    the observation's "action_mask", or else from a method ``action_masks()``, of the vector or of
    each environment.

    What an episode ended with is in ``info["final_info"]`` under SAME_STEP, and else in the info of
    its last step.

    Attributes:
        observation_space: of one environment, without the action mask that may be in it.

    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """See ``env`` as rows.

        Raises:
            TypeError: it is something else, or its observations are not supported.
            ValueError: its autoreset mode is not declared, or some of its environments are one.

        """
        space = getattr(env, "single_observation_space", None)
        if not hasattr(env, "num_envs") or not isinstance(space, gym.Space):
            raise TypeError(
                f"env: expected a Gymnasium vector environment, got {type(env).__name__}; build "
                f"one with make_vect_envs, or SyncVectorEnv([lambda: env]); for PettingZoo's there "
                f"is IPPO"
            )
        check_distinct(innermost(env))
        self._waiting: list[Any] = []
        self.env, self.num_envs, self.mode = env, int(env.num_envs), autoreset_mode(env)
        self.final_is_next = self.mode == AutoresetMode.NEXT_STEP
        self._action_space = env.single_action_space
        self.observation_space, self._mask_inside = without_mask(space, self._action_space)
        self._layout = ObservationLayout(self.observation_space)
        self._mask_method = _mask_method(env) if choices(self._action_space) else None
        self._of_tensors = tensors.layer_with_device(env)  # None: of arrays

    def name(self, group: int, row: int) -> str:
        """Say which environment a row is."""
        return f"environment {row}"

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let environments of a ``SyncVectorEnv`` wait for a reset after their episodes."""
        with parking.waiting(getattr(self.env, "unwrapped", self.env)) as self._waiting:
            yield
        self._waiting = []

    def reset(self, seed: int | None = None) -> list[Observed]:
        """Start all episodes afresh."""
        for member in self._waiting:
            member.release()
        shown, info = self._reset(seed=seed)
        observation, mask, tensor = self._seen(shown, info)
        start = np.ones(self.num_envs, dtype=bool)
        return [Observed(observation, start, action_mask=mask, tensor=tensor)]

    def step(
        self, actions: Sequence[Any], before: Sequence[Observed]
    ) -> list[tuple[Outcome, Observed]]:
        """Take a step from ``before``; what it led to, and what is seen next."""
        try:
            returned = self._step(actions[0], before[0])
        except Exception as error:
            self._say_where(error, "step")
            if (said := vector_outputs.of_old_interface("step", error)) is not None:
                raise said from error
            raise
        observation, reward, terminated, truncated, info = vector_outputs.parts(
            "step", returned, ("observations", "rewards", "terminated", "truncated", "info")
        )
        reward = vector_outputs.rewards(reward, self.num_envs)
        terminated = vector_outputs.flags("terminated", terminated, self.num_envs)
        truncated = vector_outputs.flags("truncated", truncated, self.num_envs)
        ended = terminated | truncated
        shown, finals = observation, info.get("final_obs")
        if before[0].tensor is not None:
            info = tensors.as_arrays(info)
        observation, mask, tensor = self._seen(observation, info)
        if mask is None and ended.all() and before[0].action_mask is not None:
            # In final states nobody is asked, so nobody need say what is allowed.
            mask = np.ones_like(before[0].action_mask)
        if self.final_is_next:
            outcome, seen = self._next_step(
                observation, reward, terminated, truncated, mask, before[0]
            )
            if seen.active is not None:
                rows = np.flatnonzero(~seen.active)
                outcome = outcome._replace(final_info=numbers_of_rows(info, rows, self.num_envs))
            return [(outcome, seen if tensor is None else seen._replace(tensor=tensor))]
        final_rows, final, allowed, start, numbers = NO_ROWS, None, None, None, None
        if ended.any():
            start = ended
            about = info if self.mode == AutoresetMode.DISABLED else info.get("final_info")
            numbers = numbers_of_rows(about, np.flatnonzero(ended), self.num_envs)
            final_rows = np.flatnonzero(truncated & ~terminated)
            if self.mode == AutoresetMode.DISABLED:
                if len(final_rows):
                    final = np.array(observation[final_rows])
                    allowed = None if mask is None else np.array(mask[final_rows])
                # Copies: the reset may write over the vector's arrays.
                reward, terminated, truncated = map(np.array, (reward, terminated, truncated))
                mask = None if mask is None else np.array(mask)
                again = self._reset(options={"reset_mask": ended.copy()})
                observation, first, tensor = self._seen(*again)
                if mask is not None and first is not None:
                    # A partial reset's info has nothing of the rows that go on.
                    mask = np.where(ended[:, None], first, mask)
            elif len(final_rows):
                final = self._final(info, final_rows)
                self._check_kept(finals, final, final_rows, shown, before[0])
                allowed = self._final_mask(info, final_rows)
        outcome = Outcome(
            reward, terminated, truncated, final_rows, final, allowed, final_info=numbers
        )
        return [(outcome, Observed(observation, start, action_mask=mask, tensor=tensor))]

    def _step(self, action: Any, before: Observed) -> Any:
        # An agent that was trained elsewhere may have choices of fewer or more bits.
        dtype = self._action_space.dtype
        if before.tensor is None:
            return self.env.step(action.astype(dtype, copy=False))
        with tensors.of_its_own():
            return self.env.step(
                tensors.actions_for(self._of_tensors, action, dtype, before.tensor.device)
            )

    def _reset(self, **options: Any) -> tuple[Any, ...]:
        try:
            with tensors.of_its_own():
                returned = self.env.reset(**options)
        except Exception as error:
            self._say_where(error, "reset")
            if (said := vector_outputs.of_old_interface("reset", error)) is not None:
                raise said from error
            raise
        return vector_outputs.parts("reset", returned, ("observations", "info"))

    def _say_where(self, error: Exception, command: str) -> None:
        """Note which environment an error came from, if its traceback tells."""
        members = getattr(getattr(self.env, "unwrapped", self.env), "envs", None) or ()
        objects = [id(x) for x in members] + [id(x) for x in innermost(self.env)]
        trace = error.__traceback__
        while trace is not None and members:
            place = id(trace.tb_frame.f_locals.get("self"))
            if place in objects:
                number = objects.index(place) % len(members)
                error.add_note(f"in {command} of environment {number}")
                return
            trace = trace.tb_next

    def _next_step(
        self,
        observation: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        mask: Array | None,
        before: Observed,
    ) -> tuple[Outcome, Observed]:
        start = None
        if before.active is not None:
            # This step only reset these rows: its reward and flags mean nothing.
            start = ~before.active
            reward = np.where(start, 0, reward)
            terminated, truncated = terminated & ~start, truncated & ~start
        ended = terminated | truncated
        active = ~ended if ended.any() else None
        outcome = Outcome(reward, terminated, truncated, NO_ROWS, None, counted=before.active)
        return outcome, Observed(observation, start, active=active, action_mask=mask)

    def _check_kept(
        self, finals: Any, final: Array, rows: Array, observation: Any, before: Observed
    ) -> None:
        """Raise ValueError if final observations have been written over by the next ones.

        Args:
            finals: as the vector gave them.
            final: the same of some rows, stored form, [n, *shape].
            rows: these, [n].
            observation: what the vector shows next.
            before: what it showed before.

        """
        vector = getattr(self.env, "unwrapped", self.env)
        if isinstance(finals, np.ndarray) and finals.dtype == object:
            seen = getattr(vector, "_env_obs", None)
            if seen is None or len(finals) != self.num_envs:
                return
            pairs = [(finals[i], seen[i]) for i in rows]
        else:
            pairs = [(finals, observation)]
        if not any(_share_memory(*pair) for pair in pairs):
            return
        # An observation that never changes may well be one array. Where simulators write each over
        # the last, nothing is left to compare with.
        gone = before.tensor is not None and _share_memory(before.tensor, observation)
        if gone or not np.array_equal(final, before.observation[rows]):
            raise ValueError(
                f"info['final_obs']: expected the final observations of environments {rows}, got "
                f"arrays that the next episodes' first observations have been written into; build "
                f"the vector with make_vect_envs, or let the environment return copies"
            )

    def _final(self, info: Mapping[str, Any], rows: Array) -> Array:
        if "final_obs" not in info:
            raise ValueError(
                f"info['final_obs']: expected the final observations of environments {rows}, as "
                f"autoreset mode SAME_STEP promises, got none from {type(self.env).__name__}; is "
                f"the declared mode right?"
            )
        finals = info["final_obs"]
        expected = (self.num_envs, *self._layout.shape)
        if isinstance(finals, Mapping | tuple):  # of arrays, as observations are
            whole = part_mask(finals)[0] if self._mask_inside else finals
            stored = self._layout.pack(whole, (self.num_envs,))
            vector_outputs.observation_shape(stored, expected, "info['final_obs']")
            return stored[rows]
        if len(finals) != self.num_envs or any(finals[i] is None for i in rows):
            raise ValueError(
                f"info['final_obs']: expected the final observations of environments {rows} at "
                f"these places of {self.num_envs}, got {len(finals)} places: {finals}"
            )
        if isinstance(finals, np.ndarray) and finals.dtype != object:
            vector_outputs.observation_shape(finals, expected, "info['final_obs']")
            return self._layout.pack(finals[rows], (len(rows),))
        each = [part_mask(finals[i])[0] if self._mask_inside else finals[i] for i in rows]
        packed = [self._layout.pack(final) for final in each]
        for final in packed:
            vector_outputs.observation_shape(final[None], (1, *expected[1:]), "info['final_obs']")
        return np.stack(packed)

    def _final_mask(self, info: Mapping[str, Any], rows: Array) -> Array | None:
        """Return what is allowed in final states, if their infos or observations say it."""
        if not choices(self._action_space):
            return None
        about = info.get("final_info")
        stated = about.get("action_mask") if isinstance(about, Mapping) else None
        if stated is None and self._mask_inside:
            finals = info["final_obs"]
            if isinstance(finals, Mapping | tuple):
                stated = part_mask(finals)[1]
            else:
                stated = [None if final is None else part_mask(final)[1] for final in finals]
        if stated is None:
            return None
        if isinstance(stated, tuple) or (isinstance(stated, np.ndarray) and stated.dtype != object):
            masks: Array = flat_mask(stated)[rows]
            return masks
        each = [stated[i] for i in rows]
        return None if any(mask is None for mask in each) else np.stack([*map(flat_mask, each)])

    def _seen(
        self, observation: Any, info: Mapping[str, Any]
    ) -> tuple[Array, Array | None, Tensor | None]:
        """Return what is seen, what is allowed, and what is seen as a tensor.

        These are [N, *shape]; bool [N, n] or None; and [N, *shape] or None.
        """
        inside, shown = None, observation
        device = None if self._of_tensors is None else tensors.device_of(observation)
        if device is not None:
            if self.mode == AutoresetMode.DISABLED:
                raise ValueError(
                    "env.metadata['autoreset_mode']: expected SAME_STEP or NEXT_STEP of a vector "
                    "that shows tensors, got DISABLED; let it reset what has ended by itself"
                )
            observation, info = tensors.as_arrays(observation), tensors.as_arrays(info)
        if self._mask_inside:
            observation, inside = part_mask(observation)
        if not self._layout.nested:
            observation = vector_outputs.as_array("observation", observation)
        stored = self._layout.pack(observation, (self.num_envs,))
        vector_outputs.observation_shape(stored, (self.num_envs, *self._layout.shape))
        mask = self._mask(info, inside)
        if device is None:
            return stored, mask, None
        return stored, mask, tensors.stored_tensor(self._layout, shown, stored)

    def _mask(self, info: Mapping[str, Any], inside: Any) -> Array | None:
        """Return what is allowed, bool [N, n]; each row's mask from where it is found first."""
        stated = info.get("action_mask")
        if stated is None:
            return self._mask_beside_info(inside)
        if not choices(self._action_space):
            raise ValueError(
                f"info['action_mask']: expected none for {self._action_space}, as masks make sense "
                f"for Discrete and MultiDiscrete actions only; take it out of the info"
            )
        given = np.broadcast_to(info.get("_action_mask", True), self.num_envs)
        if isinstance(stated, np.ndarray) and stated.dtype != object:
            masks: Array = flat_mask(stated)[given]
        else:  # tuples, or None here and there
            given = given & [mask is not None for mask in stated]
            rows = np.flatnonzero(given)
            masks = np.stack([flat_mask(stated[i]) for i in rows]) if len(rows) else np.empty(0)
        if not given.any():
            return self._mask_beside_info(inside)
        if given.all():
            return masks
        others = self._mask_beside_info(inside)
        if others is None:  # who gives none allows everything
            others = np.ones((self.num_envs, masks.shape[1]), dtype=bool)
        others[given] = masks
        return others

    def _mask_beside_info(self, inside: Any) -> Array | None:
        if inside is not None:
            return flat_mask(inside)
        if self._mask_method is not None:
            return np.stack([flat_mask(mask) for mask in self._mask_method()])
        return None


def _share_memory(one: Any, other: Any) -> bool:
    return any(_overlap(a, b) for a in _arrays_within(one) for b in _arrays_within(other))


def _overlap(one: Array | Tensor, other: Array | Tensor) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return False
    return np.may_share_memory(one, other)


def _arrays_within(value: Any) -> Iterator[Array | Tensor]:
    if isinstance(value, np.ndarray | Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _arrays_within(part)


def _mask_method(env: Any) -> Callable[[], Any] | None:
    """Return the method that gives each environment's action mask, or None.

    Raises:
        ValueError: only some of the environments have one.

    """
    layer = env
    while layer is not None:  # wrappers of vectors do not pass on what they do not know
        own, call = getattr(layer, "action_masks", None), getattr(layer, "call", None)
        if callable(own):
            return own  # type: ignore[no-any-return]
        if callable(call):  # Gymnasium's own vectors
            has = list(call("has_wrapper_attr", "action_masks"))
            if any(has) and not all(has):
                raise ValueError(
                    f"env: expected a method action_masks() in all environments or in none, got "
                    f"none in {[i for i, there in enumerate(has) if not there]}; let it return "
                    f"ones where everything is allowed"
                )
            return functools.partial(call, "action_masks") if all(has) else None
        layer = getattr(layer, "env", None)
    return None


def check_distinct(envs: Sequence[Any]) -> None:
    """Raise ValueError if two of a vector's innermost environments are one object."""
    if len({id(env) for env in envs}) < len(envs):
        raise one_for_all()


def one_for_all() -> ValueError:
    """Return the error for an environment that stands in several places of a vector."""
    return ValueError(
        "env: expected an environment of its own for each place of the vector, got one object for "
        "several, whose episodes would run into each other; let the function build a new one each "
        "time: make_env=lambda: MyEnv(), not make_env=lambda: env"
    )
