"""Hyper-parameters and network shapes: typed, ranged, validated once.

A field states its range beside its type (``Annotated[float, Range(0, 1)]``), so the check, the
error message and the documentation cannot disagree. Unknown names raise and suggest the nearest
known one; nothing is ever ignored.
"""

import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

Activation = Literal["Tanh", "ReLU", "ELU", "GELU", "SiLU", "LeakyReLU", "Identity"]


@dataclass(frozen=True)
class Range:
    """An interval of allowed numbers; ``open_low`` excludes ``low`` itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether ``value`` lies in the interval."""
        above = value > self.low if self.open_low else value >= self.low
        return above and value <= self.high

    def __str__(self) -> str:
        """The interval as a mathematician writes it."""
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


POSITIVE = Range(0, open_low=True)
NON_NEGATIVE = Range(0)
UNIT = Range(0, 1)
COUNT = Range(1)


class _Config:
    """Validation shared by the configuration dataclasses below."""

    def __post_init__(self) -> None:
        """Check every field against its annotation, normalising numbers and sequences."""
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            where = f"{type(self).__name__}.{name}"
            object.__setattr__(self, name, _checked(where, getattr(self, name), hint))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values.

        Raises:
            ValueError: an unknown name (the message has the nearest known one), or a value out of
                range.
            TypeError: a value of the wrong type.

        """
        fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            if name not in fields:
                known = [*fields, *cls._shorthands()]
                raise ValueError(unknown_name(cls.__name__, name, known))
        return cls(**values)

    @classmethod
    def _shorthands(cls) -> tuple[str, ...]:
        """Names that ``from_dict`` takes beside the fields'."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Names and plain values, as ``from_dict`` takes them."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        return type(self).from_dict({**self.to_dict(), **changes})


def unknown_name(owner: str, name: object, known: list[str]) -> str:
    """Return the message for a name that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(str(name).strip(), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{owner} has no option {name!r}{hint} Known options: {', '.join(sorted(known))}"


def _checked(where: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the annotation ``hint`` has it, or raise naming the field ``where``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _checked(where, value, args[0])
        for bounds in args[1:]:
            if value is not None and value not in bounds:
                raise ValueError(f"{where}: expected a number in {bounds}, got {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _checked(where, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where}: expected one of {list(args)}, got {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise TypeError(f"{where}: expected a list of numbers, got {value!r}")
        return tuple(_checked(f"{where}[{i}]", v, args[0]) for i, v in enumerate(value))
    if issubclass(hint, _Config):
        if isinstance(value, Mapping):
            return hint.from_dict(value)
        if not isinstance(value, hint):
            raise TypeError(
                f"{where}: expected a dictionary or {hint.__name__}, got {type(value).__name__}"
            )
        return value
    return _checked_scalar(where, value, hint)


def _checked_scalar(where: str, value: Any, kind: type) -> Any:
    """Accept Python and NumPy scalars of the right kind; a bool is not a number."""
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, numbers.Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not is_bool:
        if not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, got {value!r}")
        return float(value)
    raise TypeError(f"{where}: expected {kind.__name__}, got {value!r} ({type(value).__name__})")


# What describes convolutions; in dictionaries they may stand beside the encoder's own options.
CONVOLUTIONS = ("channel_size", "kernel_size", "stride_size")


@dataclass(frozen=True)
class CnnConfig(_Config):
    """From an image to a vector: convolutions, each with an activation.

    Attributes:
        channel_size: channels of each convolution. None chooses all three by the image's size; ()
            uses none, which flattens the image.
        kernel_size: width and height of each convolution's kernel [pixels].
        stride_size: of each convolution [pixels].
        activation: behind each.
        channels_last: images are [height, width, channels] rather than [channels, height, width];
            None finds out: two equal axes are height and width; otherwise the channels are the
            smaller of the first and the last axis (the last, if they are equal).

    """

    channel_size: tuple[Annotated[int, COUNT], ...] | None = None
    kernel_size: tuple[Annotated[int, COUNT], ...] | None = None
    stride_size: tuple[Annotated[int, COUNT], ...] | None = None
    activation: Activation = "ReLU"
    channels_last: bool | None = None

    def __post_init__(self) -> None:
        """Check single fields, then that the lists are of one length."""
        super().__post_init__()
        sizes = {name: getattr(self, name) for name in CONVOLUTIONS}
        if self.channel_size == ():  # no convolution needs no numbers
            sizes = {name: size or () for name, size in sizes.items()}
        if len({None if size is None else len(size) for size in sizes.values()}) > 1:
            raise ValueError(
                f"{type(self).__name__}: expected channel_size, kernel_size and stride_size of the "
                f"same length, one number for each convolution, or none of them, got {sizes}"
            )

    def layers(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """Channels, kernel and stride of each convolution, with None resolved.

        Args:
            height: of the image [pixels].
            width: likewise.

        Raises:
            ValueError: a kernel that is larger than what it is to read.

        """
        if self.channel_size is None:
            return default_convolutions(min(height, width))
        kernels, strides = self.kernel_size or (), self.stride_size or ()
        layers = tuple(zip(self.channel_size, kernels, strides, strict=True))
        size = min(height, width)
        for i, (_, kernel, stride) in enumerate(layers):
            if kernel > size:
                raise ValueError(
                    f"CnnConfig.kernel_size[{i}]: expected at most {size}, which is what the "
                    f"convolutions before leave of an image of {height} x {width}, got {kernel}"
                )
            size = (size - kernel) // stride + 1
        return layers


def default_convolutions(size: int) -> tuple[tuple[int, int, int], ...]:
    """Channels, kernel and stride of each convolution for images of ``size`` pixels.

    Source for large ones: Mnih et al. 2015, "Human-level control through deep reinforcement
    learning".
    """
    if size >= 36:
        return (32, 8, 4), (64, 4, 2), (64, 3, 1)
    if size >= 14:
        return (16, 4, 2), (32, 3, 2)
    if size >= 4:
        return (16, 2, 1), (32, 2, 1), (64, 2, 1)
    return ((32, size, 1),)


@dataclass(frozen=True)
class MlpConfig(_Config):
    """An MLP of its own for the vectors among other observations.

    Attributes:
        hidden_size: widths of its hidden layers; one of ``latent_dim`` follows.
        activation: behind each layer.
        layer_norm: normalise each layer's outputs in front of the activation.

    """

    hidden_size: tuple[Annotated[int, COUNT], ...] = (64,)
    activation: Activation = "Tanh"
    layer_norm: bool = False


@dataclass(frozen=True)
class EncoderConfig(_Config):
    """From an observation to the features that the heads read.

    Images go through convolutions, each image through its own; vectors are joined into one, with
    numbers of choices as one-hot vectors. All that is joined goes through an MLP, then through the
    recurrent core. In dictionaries ``channel_size``, ``kernel_size`` and ``stride_size`` may stand
    beside the others, instead of in ``cnn_config``.

    Attributes:
        hidden_size: widths of the MLP in front of the recurrent core (or of the whole encoder of a
            feed-forward policy). None chooses (64,) for recurrent and (64, 64) for feed-forward
            policies, and where there are images one layer less; () gives a recurrent core the
            observation as it is.
        activation: of that MLP.
        layer_norm: normalise the outputs of each of its layers in front of the activation.
        latent_dim: width of what is made of each image, and of the vectors if they have an MLP of
            their own.
        cnn_config: convolutions for images.
        mlp_config: the vectors' own MLP,
        vector_space_mlp: if they are to have one.
        cell: kind of recurrent core. PyTorch's fused CPU kernel covers "lstm" only, so "gru" is
            several times slower there.
        hidden_state_size: H, units of a recurrent layer.
        num_layers: recurrent layers, one on top of the other.
        residual_layers: further ones on top, each of which adds to what it reads (or, in a
            feed-forward encoder, blocks ``x + W2 act(W1 x)``). They start as the identity, so that
            an architecture mutation can add one without changing what the policy does.
        core_residual: add a linear map of what the recurrent core reads to what it gives.
        core_layer_norm: normalise what the recurrent core (with that sum) gives.
        max_seq_len: L, the longest training sequence [environment steps]; gradients do not flow
            further back.
        forget_bias: initial bias of an LSTM's forget gates, or of a GRU's update gates. A memory
            fades at first by a factor of sigmoid(forget_bias) a step; what must be remembered for
            T steps wants about log(T).

    """

    hidden_size: tuple[Annotated[int, COUNT], ...] | None = None
    activation: Activation = "Tanh"
    layer_norm: bool = False
    latent_dim: Annotated[int, COUNT] = 128
    cnn_config: CnnConfig = field(default_factory=CnnConfig)
    mlp_config: MlpConfig = field(default_factory=MlpConfig)
    vector_space_mlp: bool = False
    cell: Literal["lstm", "gru"] = "lstm"
    hidden_state_size: Annotated[int, COUNT] = 64
    num_layers: Annotated[int, COUNT] = 1
    residual_layers: Annotated[int, NON_NEGATIVE] = 0
    core_residual: bool = False
    core_layer_norm: bool = False
    max_seq_len: Annotated[int, COUNT] = 64
    forget_bias: Annotated[float, Range(-10, 10)] = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values; the convolutions' may stand beside the others.

        Raises:
            ValueError: an unknown name, a value out of range, or convolutions given twice.
            TypeError: a value of the wrong type.

        """
        short = {name: values[name] for name in CONVOLUTIONS if name in values}
        if not short:
            return super().from_dict(values)
        rest = {name: value for name, value in values.items() if name not in short}
        cnn = rest.get("cnn_config", {})
        cnn = cnn.to_dict() if isinstance(cnn, CnnConfig) else cnn
        for name in short:
            if isinstance(cnn, Mapping) and cnn.get(name) is not None:
                raise ValueError(
                    f"{cls.__name__}: expected {name} in cnn_config or beside it, got both"
                )
        if isinstance(cnn, Mapping):
            rest["cnn_config"] = {**cnn, **short}
        return super().from_dict(rest)

    @classmethod
    def _shorthands(cls) -> tuple[str, ...]:
        return CONVOLUTIONS

    def widths(self, recurrent: bool, images: bool = False) -> tuple[int, ...]:
        """Widths of the MLP, with None resolved; ``images`` says whether there are any."""
        if self.hidden_size is not None:
            return self.hidden_size
        return (64,) * (2 - recurrent - images)


@dataclass(frozen=True)
class HeadConfig(_Config):
    """From features to action parameters (actor) or a value (critic).

    Attributes:
        hidden_size: widths of the hidden layers; () is one linear layer.
        activation: between them.
        layer_norm: normalise the outputs of each hidden layer in front of the activation.
        residual_layers: blocks ``x + W2 act(W1 x)`` behind them, see ``EncoderConfig``.

    """

    hidden_size: tuple[Annotated[int, COUNT], ...] = (64,)
    activation: Activation = "Tanh"
    layer_norm: bool = False
    residual_layers: Annotated[int, NON_NEGATIVE] = 0


@dataclass(frozen=True)
class NetConfig(_Config):
    """The whole policy network: ``net_config={"encoder_config": {...}, "head_config": {...}}``."""

    encoder_config: EncoderConfig = field(default_factory=EncoderConfig)
    head_config: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class PPOConfig(_Config):
    """Everything about a PPO agent that is not a space or a network shape.

    Attributes:
        learn_step: T, steps per environment in a rollout.
        batch_size: transitions (active steps) in a minibatch, about: sequences stay whole.
        update_epochs: passes over each rollout.
        lr: Adam's step size.
        lr_schedule: "linear" decays lr to zero over total_steps.
        total_steps: environment steps (summed over environments) of the whole training; the
            schedule's horizon.
        adam_eps: Adam's epsilon.
        gamma: discount factor.
        gae_lambda: lambda of generalised advantage estimation.
        clip_coef: PPO's clipping range of the probability ratio.
        clip_vf_coef: range for clipping the value's change; None, the default, does not clip.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: gradients are scaled down to this norm.
        target_kl: stop a rollout's updates once a minibatch's approximate KL divergence from the
            collecting policy exceeds this; None never stops.
        normalize_advantage: to zero mean and unit deviation over the rollout's active steps.
        recurrent: with memory; False gives a feed-forward policy, trained by the same learner.
        share_encoders: one encoder for actor and critic; False gives each its own.
        previous_action: feed the last action to the policy as well.
        previous_reward: feed the last reward to the policy as well.
        normalize_obs: standardise numbers and images (pixel by pixel) by running statistics that
            live in the policy; they move between rollouts only and are saved with the weights.
        normalize_images: divide images of bytes (two or three dimensions) by 255.
        normalize_reward: divide rewards by the running deviation of the discounted return.
        reward_scale: multiply rewards by this before learning.
        action_std_init: initial standard deviation of Box actions [half ranges of the space when
            bounded and squashed, the space's own units otherwise].
        squash_output: tanh-squash Box actions into their bounds instead of clipping them; None
            does so where all bounds are finite.
        state_dependent_std: the deviation of Box actions is an output of the network, rather than a
            parameter of its own.
        use_sde: generalised state-dependent exploration: Box actions deviate by a random linear
            function of what the actor's last layer reads, which is drawn anew every
            ``sde_sample_freq`` steps, so that exploration is smooth in time.
        sde_sample_freq: steps for which such a function holds [environment steps]. A rollout draws
            new ones at each 64th step as well, and ``get_action`` at each call.
        ortho_init: orthogonal initial weights with the customary PPO gains, else PyTorch's own.
        burn_in: steps replayed without gradient in front of each training sequence that continues
            an episode, so that its first state is fresh [environment steps]. Below max_seq_len.
        refresh_hidden_state: recompute the stored states with the current weights at the start of
            each epoch after the first.

    """

    learn_step: Annotated[int, COUNT] = 128
    batch_size: Annotated[int, COUNT] = 256
    update_epochs: Annotated[int, COUNT] = 4
    lr: Annotated[float, POSITIVE] = 3e-4
    lr_schedule: Literal["constant", "linear"] = "constant"
    total_steps: Annotated[int | None, COUNT] = None
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    gamma: Annotated[float, UNIT] = 0.99
    gae_lambda: Annotated[float, UNIT] = 0.95
    clip_coef: Annotated[float, POSITIVE] = 0.2
    clip_vf_coef: Annotated[float | None, POSITIVE] = None
    ent_coef: Annotated[float, NON_NEGATIVE] = 0.0
    vf_coef: Annotated[float, NON_NEGATIVE] = 0.5
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    target_kl: Annotated[float | None, POSITIVE] = None
    normalize_advantage: bool = True
    recurrent: bool = True
    share_encoders: bool = True
    previous_action: bool = False
    previous_reward: bool = False
    normalize_obs: bool = False
    normalize_images: bool = True
    normalize_reward: bool = True
    reward_scale: Annotated[float, POSITIVE] = 1.0
    action_std_init: Annotated[float, POSITIVE] = 1.0
    squash_output: bool | None = None
    state_dependent_std: bool = False
    use_sde: bool = False
    sde_sample_freq: Annotated[int, Range(1, 64)] = 4
    ortho_init: bool = True
    burn_in: Annotated[int, NON_NEGATIVE] = 0
    refresh_hidden_state: bool = False

    def __post_init__(self) -> None:
        """Check single fields, then the ones that depend on each other."""
        super().__post_init__()
        if self.lr_schedule != "constant" and self.total_steps is None:
            raise ValueError(
                f"PPOConfig.total_steps: expected the training's length in environment steps, as "
                f"lr_schedule={self.lr_schedule!r} needs it, got None"
            )
        if self.use_sde and self.state_dependent_std:
            raise ValueError(
                "PPOConfig: expected one of use_sde and state_dependent_std, got both; with "
                "use_sde the deviation depends on the state already"
            )
