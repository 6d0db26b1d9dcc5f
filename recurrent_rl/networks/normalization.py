"""Running statistics.

Letters: M samples, D features.
"""

from typing import Any

import torch
from torch import Tensor, nn


class RunningNorm(nn.Module):
    """Standardise by running mean and variance, which move only when ``update`` is called.

    Source: Chan et al. 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances".
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, features: int, clip: float = 10.0) -> None:
        """Start as the identity; outputs are clipped to +-``clip`` deviations."""
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

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._refresh()

    def _apply(self, *args: Any, **kwargs: Any) -> "RunningNorm":
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._refresh()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return torch.addcmul(self.shift, x, self.scale).clamp_(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, batch: Tensor) -> None:
        """Take the moments of [M, D] in; M = 0 changes nothing."""
        if len(batch) == 0:
            return
        batch = batch.double()
        total = self.count + len(batch)
        delta = batch.mean(0) - self.mean
        moment = self.variance * self.count + batch.var(0, unbiased=False) * len(batch)
        moment += delta.square() * self.count * len(batch) / total
        self.mean += delta * len(batch) / total
        self.variance.copy_(moment / total)
        self.count.copy_(total)
        self._refresh()
