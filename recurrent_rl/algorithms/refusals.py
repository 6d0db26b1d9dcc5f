"""What recorders refuse to learn from, and how they say so.

Letters: N rows (environment, agent), n allowed choices of an action.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from recurrent_rl.envs.rows import Observed
from recurrent_rl.functional.reward_scaling import REWARD_LIMIT
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.codec import ObservationCodec
from recurrent_rl.spaces.masks import check_mask

REWARDS = f"finite numbers up to +-{REWARD_LIMIT:g}"


@dataclass(frozen=True)
class Refusals:
    """Checks of what environments give, and the errors of those that fail.

    Attributes:
        policy: whose spaces these are.
        name: says what a row is.
        unit: what steps are counted in, "rollout" or "collection".
        loss: what becomes of these steps, for messages.

    """

    policy: Policy
    name: Callable[[int], str]
    unit: str
    loss: str

    def mask(self, t: int, seen: Observed, rows: int) -> Array:
        """Return a step's allowed actions, bool [N, n].

        Raises:
            ValueError: there are none, or a row that is to choose may choose nothing.

        """
        if seen.action_mask is None:
            raise ValueError(
                f"action_mask: expected one at every step, as before, got none at step {t} of this "
                f"{self.unit}; give it in reset() and in every step()"
            )
        return check_mask(
            seen.action_mask,
            self.policy.actions.space,
            rows,
            asked=seen.active,
            name=lambda row: f"{self.name(row)} at step {t} of this {self.unit}",
        )

    def first_invalid(
        self, observation: Tensor, exists: Tensor | None = None, *, central: bool = False
    ) -> list[int] | None:
        """Return where the first observation is that makes no sense; None: there is none.

        Args:
            observation: stored form, [..., *shape].
            exists: those that count, bool [...]; None: all.
            central: it is a central critic's view.

        """
        invalid = self._codec(central).invalid(observation)
        if exists is not None:
            invalid = invalid & exists
        return invalid.nonzero()[0].tolist() if bool(invalid.any()) else None

    def _codec(self, central: bool) -> ObservationCodec:
        codec = self.policy.view_codec if central else self.policy.codec
        assert codec is not None
        return codec

    def observation(
        self, what: str, stored: Tensor, row: int, t: int, *, central: bool = False
    ) -> ValueError:
        """Say what is wrong with an observation [*shape] that ``first_invalid`` has found."""
        fault = self._codec(central).layout.fault(stored.numpy())
        assert fault is not None
        part, expected, got = fault
        return self.error(what + part, expected, got, row, t)

    def error(self, what: str, expected: str, got: Any, row: int, t: int) -> ValueError:
        """Say what a row has at step ``t`` that was not expected."""
        return ValueError(
            f"{what}: expected {expected}, got {got} from {self.name(row)} at step {t} of this "
            f"{self.unit}; {self.loss}, the weights are as before, and the next collection resets "
            f"the environment"
        )


def first_beyond(values: Tensor, limit: float) -> list[int] | None:
    """Return where the first number is that is not within +-``limit``; None: there is none."""
    fine = values.abs() <= limit  # NaN is not
    return None if bool(fine.all()) else fine.logical_not().nonzero()[0].tolist()
