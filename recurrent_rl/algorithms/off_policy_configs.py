"""Hyper-parameters of algorithms that learn from a replay."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from recurrent_rl.algorithms.configs import (
    AlgorithmConfig,
    PolicyOptions,
    ScheduleOptions,
    SequenceOptions,
)
from recurrent_rl.networks.configs import QPolicyConfig
from recurrent_rl.validation import COUNT, NON_NEGATIVE, POSITIVE, UNIT, WHOLE, Range

# Of all groups of a team alike: those of the replay, the critic and what it learns.
_COMMON = (
    "learn_step",
    "gradient_steps",
    "batch_size",
    "gamma",
    "tau",
    "n_step",
    "reward_scale",
)
_OTHERS = (
    "lr_schedule",
    "total_steps",
    "learning_starts",
    "max_grad_norm",
    "priority_exponent",
    "priority_weight",
    "priority_mix",
    "stored_state",
)


@dataclass(frozen=True)
class OffPolicyConfig(AlgorithmConfig):
    """What all algorithms that learn from a replay have.

    Attributes, beside those of ``AlgorithmConfig``:
        memory_size: environment steps, over all environments, that the replay holds.
        batch_size: transitions in a batch, about: windows of max_seq_len steps stay whole.
        learn_step: environment steps, over all environments, between two rounds of learning.
        gradient_steps: updates in each round.
        learning_starts: environment steps before the first update, in which actions are uniformly
            random.
        gamma: discount factor of an environment step.
        tau: share by which target networks move towards their models at each of their updates.
        n_step: decisions whose rewards stand in a target before a value does.
        overlap: places that each window shares with the one before it [environment steps]. Below
            max_seq_len.
        sampling: "uniform"; "priority" draws windows by their last errors (Schaul et al. 2016), of
            sequences by R2D2's mix of the greatest and the mean (Kapturowski et al. 2019);
            "episodes" draws whole ones.
        priority_exponent: alpha, of priorities.
        priority_weight: beta, by how much losses are weighted against priorities' bias.
        priority_mix: eta, the share of the greatest error of a sequence in its priority.
        stored_state: windows begin with the "stored" state, or with "zero" as after a reset; of
            states that another agent has stored, or another network, with zero in any case.
        share_encoders: one encoder for actor and critic, which only the critic's loss trains.
        lr_encoder: step size of the encoders; None: that of the network they are a part of.
        adam_eps: Adam's epsilon.
        max_grad_norm: gradients of a network are scaled down to this norm; None leaves them.
        reward_scale: multiplies rewards.

    """

    memory_size: Annotated[int, COUNT] = 100_000
    batch_size: Annotated[int, COUNT] = 256
    learn_step: Annotated[int, COUNT] = 1
    gradient_steps: Annotated[int, COUNT] = 1
    learning_starts: Annotated[int, WHOLE] = 1000
    gamma: Annotated[float, UNIT] = 0.99
    tau: Annotated[float, Range(0, 1, open_low=True)] = 0.005
    n_step: Annotated[int, Range(1, 1000)] = 1
    overlap: Annotated[int, WHOLE] = 0
    sampling: Literal["uniform", "priority", "episodes"] = "uniform"
    priority_exponent: Annotated[float, UNIT] = 0.6
    priority_weight: Annotated[float, UNIT] = 0.4
    priority_mix: Annotated[float, UNIT] = 0.9
    stored_state: Literal["stored", "zero"] = "stored"
    share_encoders: bool = False
    lr_encoder: Annotated[float | None, POSITIVE] = None
    adam_eps: Annotated[float, POSITIVE] = 1e-8
    max_grad_norm: Annotated[float | None, POSITIVE] = None
    reward_scale: Annotated[float, POSITIVE] = 1.0
    ortho_init: bool = False

    MUTABLE: ClassVar[tuple[str, ...]] = _COMMON
    CHANGEABLE: ClassVar[tuple[str, ...]] = (*_COMMON, *_OTHERS)
    COMMON: ClassVar[tuple[str, ...]] = (*_COMMON, *_OTHERS)

    def __post_init__(self) -> None:
        """Check single fields, then the ones that depend on each other."""
        super().__post_init__()
        if self.recurrent and self.overlap >= self.max_seq_len:
            raise ValueError(
                f"{type(self).__name__}.overlap: expected less than max_seq_len = "
                f"{self.max_seq_len}, got {self.overlap}"
            )
        if self.refresh_hidden_state:
            raise ValueError(
                f"{type(self).__name__}.refresh_hidden_state: expected False, as states in a "
                f"replay are made fresh by burn_in, got True; set burn_in=... instead"
            )
        if self.sampling == "episodes" and not self.recurrent:
            raise ValueError(
                f"{type(self).__name__}.sampling: expected 'uniform' or 'priority' with "
                f"recurrent=False, as single steps have no use for whole episodes, got 'episodes'"
            )

    @property
    def step_sizes(self) -> dict[str, float]:
        """Step sizes that were given, by name."""
        names = [n for n in self.names() if n == "lr" or n.startswith("lr_")]
        given = {name: getattr(self, name) for name in names if name not in self.SCHEDULES}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def update_ratio(self) -> float:
        return self.gradient_steps / self.learn_step


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig, QPolicyConfig):
    """Everything about a DQN agent that is not a space or a network shape.

    Attributes, beside those of ``OffPolicyConfig`` and ``QPolicyConfig``:
        lr: Adam's step size.
        double: the online network chooses the action whose value the target network gives (van
            Hasselt et al. 2016).
        huber: errors beyond this count linearly; None: all squared.
        rescale: learn values squeezed by ``h(x) = sign(x)(sqrt(|x| + 1) - 1) + x / 1000``, as R2D2.
        epsilon_start: share of uniformly random actions at first.
        epsilon_end: at last.
        epsilon_steps: environment steps from the one to the other, linearly.
        epsilon_per_env: instead of a schedule give environment i of E the share
            ``epsilon_start ** (1 + 7 i / (E - 1))``, for good (Horgan et al. 2018).
        target_update: updates between two of the target network.
        share_encoders: always, as there is one network.

    """

    lr: Annotated[float, POSITIVE] = 1e-3
    double: bool = True
    huber: Annotated[float | None, POSITIVE] = 1.0
    rescale: bool = False
    epsilon_start: Annotated[float, UNIT] = 1.0
    epsilon_end: Annotated[float, UNIT] = 0.05
    epsilon_steps: Annotated[int, COUNT] = 10_000
    epsilon_per_env: bool = False
    target_update: Annotated[int, COUNT] = 1
    share_encoders: bool = True

    MUTABLE: ClassVar[tuple[str, ...]] = (*_COMMON, "lr", "epsilon_end", "target_update")
    CHANGEABLE: ClassVar[tuple[str, ...]] = (
        *MUTABLE,
        *_OTHERS,
        "double",
        "huber",
        "epsilon_start",
        "epsilon_steps",
        "epsilon_per_env",
    )

    def __post_init__(self) -> None:
        """Check single fields, then the ones that depend on each other."""
        super().__post_init__()
        if not self.share_encoders:
            raise ValueError(
                "DQNConfig.share_encoders: expected True, as one network both acts and judges, got "
                "False; leave it out"
            )
        if self.epsilon_per_env and self.epsilon_start == 1:
            raise ValueError(
                "DQNConfig.epsilon_start: expected less than 1 with epsilon_per_env=True, as any "
                "power of 1 is 1 and all actions would be random, got 1; 0.4 is usual"
            )


@dataclass(frozen=True)
class ActorCriticConfig(OffPolicyConfig):
    """What algorithms with an actor and critics have that judge its actions.

    Attributes, beside those of ``OffPolicyConfig``:
        lr_actor: Adam's step size for the actor.
        lr_critic: for the critic, of a team for all its critics.
        critics: heads of the critic, of whose values targets take the least.
        policy_freq: updates of the critic for each one of the actor and of the target networks.

    """

    lr_actor: Annotated[float, POSITIVE] = 3e-4
    lr_critic: Annotated[float, POSITIVE] = 3e-4
    critics: Annotated[int, Range(1, 100)] = 2
    policy_freq: Annotated[int, COUNT] = 1

    MUTABLE: ClassVar[tuple[str, ...]] = (*_COMMON, "lr_actor", "lr_critic", "policy_freq")
    CHANGEABLE: ClassVar[tuple[str, ...]] = (*MUTABLE, *_OTHERS)
    COMMON: ClassVar[tuple[str, ...]] = (*_COMMON, *_OTHERS, "lr_critic", "policy_freq")


@dataclass(frozen=True)
class SACConfig(ActorCriticConfig):
    """Everything about a SAC agent that is not a space or a network shape.

    Attributes, beside those of ``ActorCriticConfig``:
        ent_coef: temperature, the weight of the entropy; None learns it.
        ent_coef_init: where learning begins.
        lr_alpha: Adam's step size for the temperature; None: lr_critic.
        target_entropy: that the temperature aims at [nats, of actions in (-1, 1)]; None: minus the
            number of the action's dimensions; of Discrete ones 0.89 log n, with n allowed choices.
        state_dependent_std: always, unless use_sde.

    """

    ent_coef: Annotated[float | None, NON_NEGATIVE] = None
    ent_coef_init: Annotated[float, POSITIVE] = 1.0
    lr_alpha: Annotated[float | None, POSITIVE] = None
    target_entropy: Annotated[float | None, Range()] = None
    state_dependent_std: bool = True

    CHANGEABLE: ClassVar[tuple[str, ...]] = (
        *ActorCriticConfig.CHANGEABLE,
        "target_entropy",
        "lr_alpha",
    )


@dataclass(frozen=True)
class DDPGConfig(ActorCriticConfig):
    """Everything about a DDPG or MADDPG agent that is not a space or a network shape.

    Attributes, beside those of ``ActorCriticConfig``:
        o_u_noise: exploration noise is an Ornstein-Uhlenbeck process rather than independent.
        expl_noise: its deviation [half ranges of the space; without bounds its own units], or the
            process's sigma.
        mean_noise: its mean.
        theta: how fast the process returns to its mean.
        dt: time of a step, in the process.
        policy_noise: deviation of noise added to the target policy's actions.
        noise_clip: greatest size of that noise.
        action_reg: weight, in the actor's loss, of the mean square of what its head gives: actions
            before they are squashed, or log-probabilities. It keeps them from where squashing has
            no slope; Lowe et al.'s own code has 1e-3.
        others: what an actor's action is judged beside, of a team: the others' "replayed" actions
            (Lowe et al. 2017), or those that their "present" policies would take (Peng et al. 2021,
            "FACMAC").

    """

    critics: Annotated[int, Range(1, 100)] = 1
    lr_actor: Annotated[float, POSITIVE] = 1e-4
    lr_critic: Annotated[float, POSITIVE] = 1e-3
    o_u_noise: bool = True
    expl_noise: Annotated[float, NON_NEGATIVE] = 0.1
    mean_noise: Annotated[float, Range()] = 0.0
    theta: Annotated[float, NON_NEGATIVE] = 0.15
    dt: Annotated[float, POSITIVE] = 0.01
    policy_noise: Annotated[float, NON_NEGATIVE] = 0.0
    noise_clip: Annotated[float, NON_NEGATIVE] = 0.5
    action_reg: Annotated[float, NON_NEGATIVE] = 0.0
    others: Literal["replayed", "present"] = "replayed"

    MUTABLE: ClassVar[tuple[str, ...]] = (*ActorCriticConfig.MUTABLE, "expl_noise")
    CHANGEABLE: ClassVar[tuple[str, ...]] = (
        *ActorCriticConfig.CHANGEABLE,
        "expl_noise",
        "mean_noise",
        "theta",
        "dt",
        "policy_noise",
        "noise_clip",
        "action_reg",
        "others",
    )


@dataclass(frozen=True)
class TD3Config(DDPGConfig):
    """Everything about a TD3 or MATD3 agent that is not a space or a network shape.

    Attributes: those of ``DDPGConfig``, with two critics, noise on the target policy's actions, and
    an actor that learns at every other update (Fujimoto et al. 2018).

    """

    critics: Annotated[int, Range(1, 100)] = 2
    lr_actor: Annotated[float, POSITIVE] = 3e-4
    lr_critic: Annotated[float, POSITIVE] = 3e-4
    o_u_noise: bool = False
    policy_noise: Annotated[float, NON_NEGATIVE] = 0.2
    policy_freq: Annotated[int, COUNT] = 2


# The same lists as editors and type checkers understand them in a function's keywords.


class OffPolicyOptions(PolicyOptions, SequenceOptions, ScheduleOptions, total=False):
    """The fields of ``OffPolicyConfig``."""

    memory_size: int
    batch_size: int
    learn_step: int
    gradient_steps: int
    learning_starts: int
    gamma: float
    tau: float
    n_step: int
    overlap: int
    sampling: Literal["uniform", "priority", "episodes"]
    priority_exponent: float
    priority_weight: float
    priority_mix: float
    stored_state: Literal["stored", "zero"]
    lr_encoder: float | None
    adam_eps: float
    max_grad_norm: float | None
    reward_scale: float


class DQNOptions(OffPolicyOptions, total=False):
    """The fields of ``DQNConfig``."""

    dueling: bool
    lr: float
    double: bool
    huber: float | None
    rescale: bool
    epsilon_start: float
    epsilon_end: float
    epsilon_steps: int
    epsilon_per_env: bool
    target_update: int


class ActorCriticOptions(OffPolicyOptions, total=False):
    """The fields of ``ActorCriticConfig``."""

    lr_actor: float
    lr_critic: float
    critics: int
    policy_freq: int


class SACOptions(ActorCriticOptions, total=False):
    """The fields of ``SACConfig``."""

    ent_coef: float | None
    ent_coef_init: float
    lr_alpha: float | None
    target_entropy: float | None


class DDPGOptions(ActorCriticOptions, total=False):
    """The fields of ``DDPGConfig``."""

    o_u_noise: bool
    expl_noise: float
    mean_noise: float
    theta: float
    dt: float
    policy_noise: float
    noise_clip: float
    action_reg: float
    others: Literal["replayed", "present"]


class TD3Options(DDPGOptions, total=False):
    """The fields of ``TD3Config``."""
