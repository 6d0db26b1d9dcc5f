"""Running statistics.

Letters: M samples, D features.
"""

import math
import warnings
from typing import Any, Final

import torch
from torch import Tensor, nn

from recurrent_rl.distributed import ALONE, World
from recurrent_rl.functional.reward_scaling import OUTLIER, greatest_factor, has_varied
from recurrent_rl.functional.statistics import Moments


class RunningNorm(nn.Module):
    """Standardise by running mean and variance, which move only when ``update`` is called.

    Where nothing is known of a feature's spread, before the first update and while it has never
    varied, it is shown as ``sign(d) log(1 + |d|)`` of its distance d from the mean: whatever its
    units are, different values stay different. A clip would make one of all of them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, features: int, clip: float = 10.0) -> None:
        """Start without statistics; what is standardised is clipped to +-``clip`` deviations."""
        super().__init__()
        self.clip = clip
        # float64: sums over 1e9 steps stay exact enough.
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self._refresh()

    def _refresh(self) -> None:
        # shift and scale are derived; kept so that acting costs two operations.
        self.scale = (self.variance + 1e-8).rsqrt().to(torch.get_default_dtype())
        self.shift = -(self.mean * (self.variance + 1e-8).rsqrt()).to(torch.get_default_dtype())
        # Up to rounding, also of float32 observations, what never varied has no variance.
        known = (self.count > 0) & (self.variance > 1e-12 * self.mean.square())
        self._known, self._centre = known, self.mean.to(torch.get_default_dtype())
        self._all_known, self._any_known = bool(known.all()), bool(known.any())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refresh()

    def _apply(self, *args: Any, **kwargs: Any) -> "RunningNorm":
        exact = dict(self._buffers)
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        # To another device, but not to another dtype: in half precision the count would overflow.
        for name, moment in self._buffers.items():
            before = exact[name]
            if moment is not None and before is not None and moment.dtype != before.dtype:
                self._buffers[name] = before.to(moment.device)
        self._refresh()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        if self._all_known:
            return torch.addcmul(self.shift, x, self.scale).clamp_(-self.clip, self.clip)
        distance = x - self._centre
        unknown = distance.sign() * distance.abs().log1p()
        if not self._any_known:
            return unknown
        known = torch.addcmul(self.shift, x, self.scale).clamp_(-self.clip, self.clip)
        return torch.where(self._known, known, unknown)

    def update(self, batch: Tensor, world: World = ALONE) -> None:
        """Take the moments of [M, D] on all ranks in; M = 0 changes nothing."""
        self.take(Moments.of(batch), world)

    @torch.no_grad()
    def take(self, new: Moments, world: World = ALONE) -> None:
        """Take what there is of the samples on all ranks in."""
        found = Moments.all_of(world.gather(new))
        if found.count == 0:
            return
        now = Moments(int(self.count), self.mean, self.variance).joined(found)
        self.mean.copy_(now.mean)
        self.variance.copy_(now.variance)
        self.count.fill_(now.count)
        self._refresh()


class RewardNorm(RunningNorm):
    """Running statistics of discounted returns, by whose deviation rewards are divided.

    Source: Engstrom et al. 2020, "Implementation Matters in Deep RL", algorithm 1.

    Attributes, beside those of ``RunningNorm``:
        scale: gives returns a deviation of one; 1 where they have not varied yet.

    """

    def __init__(self) -> None:
        """Start as the identity."""
        self._warned = False
        super().__init__(1)

    def _refresh(self) -> None:
        super()._refresh()
        if not has_varied(float(self.mean), float(self.variance)):
            self.scale = torch.ones_like(self.scale)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not math.isfinite(float(self.mean) + float(self.variance)):
            warnings.warn(
                "reward: the saved statistics of normalize_reward are not finite; they begin anew",
                stacklevel=2,
            )
            self.mean.zero_()
            self.variance.fill_(1)
            self.count.zero_()
            self._refresh()

    def factor(self, gamma: float) -> float:
        """Return what rewards are multiplied by."""
        mean, variance, scale = float(self.mean), float(self.variance), float(self.scale)
        if not has_varied(mean, variance):
            return scale
        return min(scale, greatest_factor(mean, variance, gamma))

    @property
    def greatest(self) -> float:
        """What a return counts as at most (``OUTLIER``); no bound before any was seen."""
        usual = math.sqrt(float(self.mean) ** 2 + float(self.variance)) if self.count else 0.0
        return OUTLIER * usual if usual else math.inf

    def update(self, batch: Tensor, world: World = ALONE) -> None:
        """Take the moments of returns on all ranks, [M, 1], in, each up to ``greatest``."""
        greatest = self.greatest
        found = float(batch.abs().max()) if len(batch) else 0.0
        if found > greatest:
            self._warn(
                f"a discounted return of {found:g} where the root mean square of all before is "
                f"{greatest / OUTLIER:g}; normalize_reward counts it as {greatest:g}"
            )
        super().update(batch.clamp(-greatest, greatest), world)
        if 0 < found * float(self.scale) < 1e-5:
            self._warn(
                f"discounted returns of {found:g} at most in this rollout where the deviation of "
                f"all so far is {1 / float(self.scale):g}; next to nothing is left of them after "
                f"normalize_reward"
            )

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            message = f"reward: {message}. Does the environment give such rewards on purpose?"
            warnings.warn(message, stacklevel=4)


class ReturnUnits(nn.Module):
    """Mean and deviation of returns, by an average over rollouts that forgets old ones.

    Source: van Hasselt et al. 2016, "Learning values across many orders of magnitude"; the average
    without bias towards its beginning and a least deviation, as in Yu et al. 2022, "The Surprising
    Effectiveness of PPO in Cooperative, Multi-Agent Games".

    Attributes:
        mean: of returns; 0 before any was seen.
        deviation: likewise; 1 before any was seen, and while they have not varied.

    """

    KEPT: Final = 0.95  # of the average, from one rollout to the next
    LEAST: Final = 0.01

    first: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self) -> None:
        """Start as the identity."""
        super().__init__()
        for name in ("first", "second", "weight"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self._refresh()

    def _refresh(self) -> None:
        self.mean, self.deviation = 0.0, 1.0
        if (weight := float(self.weight)) > 0:
            self.mean = float(self.first) / weight
            variance = max(float(self.second) / weight - self.mean**2, 0.0)
            if has_varied(self.mean, variance):
                self.deviation = max(math.sqrt(variance), self.LEAST)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refresh()

    def _apply(self, *args: Any, **kwargs: Any) -> "ReturnUnits":
        exact = dict(self._buffers)
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        for name, before in exact.items():  # to another device, but not to another dtype
            now = self._buffers[name]
            if before is not None and now is not None and now.dtype != before.dtype:
                self._buffers[name] = before.to(now.device)
        return self

    @torch.no_grad()
    def update(self, returns: Tensor, world: World = ALONE) -> None:
        """Take a rollout's returns on all ranks in, [M]; M = 0 changes nothing."""
        found, share = returns.double(), 1 - self.KEPT
        count = found.new_tensor(float(len(found)))
        sums = world.sum(torch.stack((found.sum(), found.square().sum(), count)))
        if sums[-1] == 0:
            return
        for moment, new in zip(
            (self.first, self.second, self.weight), sums / sums[-1], strict=True
        ):
            moment.mul_(self.KEPT).add_(new.to(moment), alpha=share)
        self._refresh()
