"""What imitation says of itself."""

from dataclasses import dataclass
from typing import Literal

StoppedBy = Literal["epochs", "patience", "on_epoch"]


@dataclass
class CloningEpoch:
    """What one pass over the demonstrations gave.

    Attributes:
        number: of the epoch, from 1 on.
        group: whose policy it was; "" where there is but one without a name.
        loss: mean over the steps that were trained on, each as it was before its own step: the
            negative log-likelihood [nats], or for DDPG and TD3 in Box spaces a mean square.
        held_out_loss: the same of held-out episodes after the epoch; NaN without any.
        accuracy: share of held-out steps whose most likely action is the demonstrated one, in
            [0, 1]; NaN of Box actions, and without held-out episodes.
        error: root mean square difference between those of Box actions [the space's units]; NaN of
            others, and without held-out episodes.
        grad_norm: mean norm of the gradient before clipping.
        updates: gradient steps taken.
        stops: no other epoch follows.

    """

    number: int
    group: str
    loss: float
    held_out_loss: float
    accuracy: float
    error: float
    grad_norm: float
    updates: int
    stops: bool = False

    def stop(self) -> None:
        """End after this epoch; for ``on_epoch``."""
        self.stops = True


@dataclass(frozen=True)
class CloningResult:
    """How the imitation of one group's demonstrations went.

    Attributes:
        epochs: in order.
        best: the one with the least held-out loss (without held-out episodes: loss), the earliest
            of equal ones.
        stopped_by: "epochs": all were made; "patience", or "on_epoch".
        steps: that were imitated in each epoch.
        held_out_steps: that were only compared.

    """

    epochs: list[CloningEpoch]
    best: CloningEpoch
    stopped_by: StoppedBy
    steps: int
    held_out_steps: int
