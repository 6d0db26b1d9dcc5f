"""Hyper-parameters: what describes a policy, its sequences, and what an algorithm does with them.

Users give one flat list of keywords. An ``AlgorithmConfig`` is that list, ``PPOConfig`` for
example; it *is* a ``PolicyConfig`` and a ``SequenceConfig`` too, so each part of the code asks for
no more than the part that it needs.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypedDict

from recurrent_rl.algorithms.schedule_config import SCHEDULE, ScheduleConfig
from recurrent_rl.algorithms.schedules import Schedule
from recurrent_rl.networks.configs import NetConfig, PolicyConfig, ValuePolicyConfig
from recurrent_rl.validation import COUNT, NON_NEGATIVE, POSITIVE, UNIT, WHOLE, Config, shown


@dataclass(frozen=True)
class SequenceConfig(Config):
    """How rollouts are cut into the sequences that a policy with memory is trained on.

    Attributes:
        max_seq_len: L, the longest training sequence [environment steps]; gradients do not flow
            further back.
        burn_in: steps replayed without gradient in front of each training sequence that continues
            an episode, so that its first state is fresh [environment steps]. Below max_seq_len.
        refresh_hidden_state: recompute the stored states with the current weights at the start of
            each epoch after the first.

    """

    max_seq_len: Annotated[int, COUNT] = 64
    burn_in: Annotated[int, WHOLE] = 0
    refresh_hidden_state: bool = False


@dataclass(frozen=True)
class AlgorithmConfig(ScheduleConfig, SequenceConfig, PolicyConfig, ABC):
    """What agents, populations and training loops ask of any algorithm's hyper-parameters.

    Attributes, beside those of ``PolicyConfig``, ``SequenceConfig`` and ``ScheduleConfig``:
        MUTABLE: names of those that a search may change.
        CHANGEABLE: names of those that ``reconfigure`` may change, as they act from one collection
            to the next; those of ``MUTABLE`` are among them. The others are built in.
        COMMON: names of those of ``CHANGEABLE`` that all groups of an agent have in common.
        learn_step: T, steps per environment in a rollout.

    """

    MUTABLE: ClassVar[tuple[str, ...]] = ("learn_step",)
    CHANGEABLE: ClassVar[tuple[str, ...]] = MUTABLE
    # All groups of an environment take their steps together.
    COMMON: ClassVar[tuple[str, ...]] = ("learn_step",)

    learn_step: Annotated[int, COUNT] = 128

    def __post_init__(self) -> None:
        """Check single fields, then the ones that depend on each other."""
        super().__post_init__()
        if self.recurrent and self.burn_in >= self.max_seq_len:
            raise ValueError(
                f"{type(self).__name__}.burn_in: expected less than max_seq_len = "
                f"{self.max_seq_len}, got {self.burn_in}"
            )

    @property
    @abstractmethod
    def update_ratio(self) -> float:
        """Gradient steps for each environment step, about; they take most of the time."""


class Coefficients(NamedTuple):
    """Those of PPO's hyper-parameters that schedules change, as they are at some time.

    Attributes:
        lr: Adam's step size.
        clip_coef: clipping range of the probability ratio.
        ent_coef: weight of the entropy bonus.

    """

    lr: float
    clip_coef: float
    ent_coef: float


@dataclass(frozen=True)
class PPOConfig(AlgorithmConfig, ValuePolicyConfig):
    """Everything about a PPO agent that is not a space or a network shape.

    Attributes, beside those of ``AlgorithmConfig`` and ``ValuePolicyConfig``:
        batch_size: transitions (active steps) in a minibatch, about: sequences stay whole. With
            more than a rollout has, each epoch is one minibatch.
        update_epochs: passes over each rollout.
        lr: Adam's step size.
        adam_eps: Adam's epsilon.
        gamma: discount factor, of each environment step or each decision of an agent's own.
        discount_by: "step", or "decision": gamma counts an agent's own decisions. In a turn-based
            (AEC) game every turn is a step, so that by steps gamma=0.9 becomes 0.9**10 a round of
            ten players; by decisions it means what it means in the game's parallel form. The same
            where every agent decides at every step.
        gae_lambda: lambda of generalised advantage estimation.
        clip_coef: PPO's clipping range of the probability ratio.
        clip_schedule: what clip_coef is multiplied with, as lr_schedule says of step sizes.
        clip_vf_coef: range for clipping the value's change; None, the default, does not clip.
        ent_coef: weight of the entropy bonus.
        ent_schedule: what ent_coef is multiplied with, as lr_schedule says of step sizes.
        vf_coef: weight of the value loss.
        max_grad_norm: gradients are scaled down to this norm, actor's and critic's together, as in
            PPO's usual implementations: normalised rewards are bounded, so that the critic's do
            not leave the actor without any.
        target_kl: stop a rollout's updates once a minibatch's approximate KL divergence from the
            collecting policy exceeds this; None never stops.
        normalize_advantage: to zero mean and unit deviation over the rollout's active steps.
        normalize_reward: divide rewards by the running deviation of the discounted return (by 1
            until it has varied), then clip them to +-10.
        reward_scale: multiply rewards by this before learning.

    """

    MUTABLE: ClassVar[tuple[str, ...]] = (
        "learn_step",
        "batch_size",
        "update_epochs",
        "lr",
        "gamma",
        "gae_lambda",
        "clip_coef",
        "clip_vf_coef",
        "ent_coef",
        "vf_coef",
        "max_grad_norm",
        "target_kl",
        "reward_scale",
    )
    CHANGEABLE: ClassVar[tuple[str, ...]] = (
        *MUTABLE,
        "discount_by",
        "lr_schedule",
        "clip_schedule",
        "ent_schedule",
        "total_steps",
        "normalize_advantage",
        "refresh_hidden_state",
    )
    SCHEDULES: ClassVar[Mapping[str, str]] = {
        "lr_schedule": "lr",
        "clip_schedule": "clip_coef",
        "ent_schedule": "ent_coef",
    }

    batch_size: Annotated[int, COUNT] = 256
    update_epochs: Annotated[int, COUNT] = 4
    lr: Annotated[float, POSITIVE] = 1e-3
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    gamma: Annotated[float, UNIT] = 0.99
    discount_by: Literal["step", "decision"] = "step"
    gae_lambda: Annotated[float, UNIT] = 0.95
    clip_coef: Annotated[float, POSITIVE] = 0.2
    clip_schedule: Annotated[Schedule, SCHEDULE] = "constant"
    clip_vf_coef: Annotated[float | None, POSITIVE] = None
    ent_coef: Annotated[float, NON_NEGATIVE] = 0.0
    ent_schedule: Annotated[Schedule, SCHEDULE] = "constant"
    vf_coef: Annotated[float, NON_NEGATIVE] = 0.5
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    target_kl: Annotated[float | None, POSITIVE] = None
    normalize_advantage: bool = True
    normalize_reward: bool = True
    reward_scale: Annotated[float, POSITIVE] = 1.0

    def __post_init__(self) -> None:
        """Check single fields, then the ones that depend on each other."""
        super().__post_init__()
        if "ent_schedule" in self.running() and self.ent_coef == 0:
            raise ValueError(
                f"{type(self).__name__}.ent_coef: expected more than 0 for ent_schedule to "
                f"multiply, got 0; say where it begins, ent_coef=0.01 for example"
            )

    def coefficients(self, env_steps: int) -> Coefficients:
        """Return what schedules make of hyper-parameters after so many environment steps."""
        return Coefficients(
            self.lr * self.factor("lr_schedule", env_steps),
            self.clip_coef * self.factor("clip_schedule", env_steps),
            self.ent_coef * self.factor("ent_schedule", env_steps),
        )

    @property
    def update_ratio(self) -> float:
        return self.update_epochs / self.batch_size


@dataclass(frozen=True)
class MAPPOConfig(PPOConfig):
    """Everything about a MAPPO agent that is not a space or a network shape.

    Attributes: those of ``PPOConfig``; the critic always has an encoder to itself, and values have
    units of their own instead of rewards (Yu et al. 2022).

    """

    share_encoders: bool = False
    value_norm: bool = True
    normalize_reward: bool = False


def check_net_config(net_config: Any) -> None:
    """Raise TypeError unless it is what agents take."""
    if net_config is not None and not isinstance(net_config, NetConfig | Mapping):
        raise TypeError(
            f"net_config: expected a dictionary or a NetConfig, got {shown(net_config)}"
        )


def sorted_options(
    net_config: NetConfig | Mapping[str, Any] | None, hyperparameters: Mapping[str, Any]
) -> tuple[NetConfig, dict[str, Any]]:
    """Sort what users give into network shapes and hyper-parameters.

    Args:
        net_config: as ``PPO`` takes it; its encoder may have ``max_seq_len``.
        hyperparameters: the flat list.

    Returns:
        shapes, without a sequence length; hyper-parameters, with it if it was given.

    Raises:
        ValueError: it was given in both places, or an unknown name.

    """
    if not isinstance(net_config, NetConfig):
        check_net_config(net_config)
        net_config = NetConfig.from_dict({} if net_config is None else net_config)
    encoder = net_config.encoder_config
    length, options = encoder.max_seq_len, dict(hyperparameters)
    if length is None:
        return net_config, options
    if options.setdefault("max_seq_len", length) != length:
        raise ValueError(
            f"max_seq_len: expected it among the hyper-parameters or in encoder_config, got "
            f"{options['max_seq_len']} there and {length} here"
        )
    return net_config.replace(encoder_config=encoder.replace(max_seq_len=None)), options


# The same lists as editors and type checkers understand them in a function's keywords.


class PolicyOptions(TypedDict, total=False):
    """The fields of ``PolicyConfig``."""

    recurrent: bool
    share_encoders: bool
    previous_action: bool
    previous_reward: bool
    normalize_obs: bool
    normalize_images: bool
    action_std_init: float
    squash_output: bool | None
    state_dependent_std: bool
    use_sde: bool
    sde_sample_freq: int
    ortho_init: bool
    compiled: bool


class SequenceOptions(TypedDict, total=False):
    """The fields of ``SequenceConfig``."""

    max_seq_len: int
    burn_in: int
    refresh_hidden_state: bool


class ScheduleOptions(TypedDict, total=False):
    """The fields of ``ScheduleConfig``."""

    lr_schedule: Schedule
    total_steps: int | None


class PPOOptions(PolicyOptions, SequenceOptions, ScheduleOptions, total=False):
    """The fields of ``PPOConfig``."""

    learn_step: int
    batch_size: int
    update_epochs: int
    lr: float
    adam_eps: float
    gamma: float
    discount_by: Literal["step", "decision"]
    gae_lambda: float
    clip_coef: float
    clip_schedule: Schedule
    clip_vf_coef: float | None
    ent_coef: float
    ent_schedule: Schedule
    vf_coef: float
    max_grad_norm: float
    target_kl: float | None
    normalize_advantage: bool
    normalize_reward: bool
    reward_scale: float
    value_norm: bool
