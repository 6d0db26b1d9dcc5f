"""Shapes of networks: typed, ranged, validated once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from recurrent_rl.recurrent.cells import CellKind
from recurrent_rl.validation import COUNT, LAYERS, POSITIVE, WIDTH, Config, Range

Activation = Literal["Tanh", "ReLU", "ELU", "GELU", "SiLU", "LeakyReLU", "Identity"]


# What describes convolutions; in dictionaries they may stand beside the encoder's own options.
CONVOLUTIONS = ("channel_size", "kernel_size", "stride_size")


@dataclass(frozen=True)
class CnnConfig(Config):
    """From an image to a vector: convolutions, each with an activation.

    Attributes:
        channel_size: channels of each convolution. None chooses all three by the image's size; ()
            uses none, which flattens the image.
        kernel_size: width and height of each convolution's kernel [pixels].
        stride_size: of each convolution [pixels].
        activation: behind each.
        channels_last: images are [height, width, channels] rather than [channels, height, width];
            None finds out: two equal axes are height and width; otherwise the channels are the
            smaller of the first and the last axis (the last, if they are equal). Stacks of images,
            of four axes, are images whose channels are all frames'.

    """

    channel_size: tuple[Annotated[int, WIDTH], ...] | None = None
    kernel_size: tuple[Annotated[int, WIDTH], ...] | None = None
    stride_size: tuple[Annotated[int, WIDTH], ...] | None = None
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
class MlpConfig(Config):
    """An MLP of its own for the vectors among other observations.

    Attributes:
        hidden_size: widths of its hidden layers; one of ``latent_dim`` follows.
        activation: behind each layer.
        layer_norm: normalise each layer's outputs in front of the activation.

    """

    hidden_size: tuple[Annotated[int, WIDTH], ...] = (64,)
    activation: Activation = "Tanh"
    layer_norm: bool = False


@dataclass(frozen=True)
class EncoderConfig(Config):
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
        mlp_config: the MLP that vectors go through by themselves, with vector_space_mlp.
        vector_space_mlp: whether vectors go through an MLP of their own before they are joined.
        cell: kind of recurrent core. "lstm" and "gru" are PyTorch's; "mingru" and "lru" are linear
            recurrences, which train by a scan and take less time than an LSTM; one layer of
            "mingru" cannot count steps, so give it three.
        hidden_state_size: H, units of a recurrent layer.
        num_layers: recurrent layers, one on top of the other.
        residual_layers: further ones on top, each of which adds to what it reads (or, in a
            feed-forward encoder, blocks ``x + W2 act(W1 x)``). They start as the identity, so that
            an architecture mutation can add one without changing what the policy does.
        core_residual: add a linear map of what the recurrent core reads to what it gives.
        core_layer_norm: normalise what the recurrent core (with that sum) gives.
        max_seq_len: accepted here as well; agents move it to where sequences are described, see
            ``SequenceConfig``.
        forget_bias: initial bias of an LSTM's forget gates, or of a GRU's or minGRU's update gates.
            A memory fades at first by a factor of sigmoid(forget_bias) a step; what must be
            remembered for T steps wants about log(T). Of an LRU it is what every unit keeps; 0
            leaves its units as they start, each of which keeps another share.

    """

    hidden_size: tuple[Annotated[int, WIDTH], ...] | None = None
    activation: Activation = "Tanh"
    layer_norm: bool = False
    latent_dim: Annotated[int, WIDTH] = 128
    cnn_config: CnnConfig = field(default_factory=CnnConfig)
    mlp_config: MlpConfig = field(default_factory=MlpConfig)
    vector_space_mlp: bool = False
    cell: CellKind = "lstm"
    hidden_state_size: Annotated[int, WIDTH] = 64
    num_layers: Annotated[int, Range(1, LAYERS.high)] = 1
    residual_layers: Annotated[int, LAYERS] = 0
    core_residual: bool = False
    core_layer_norm: bool = False
    max_seq_len: Annotated[int | None, COUNT] = None
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
class HeadConfig(Config):
    """From features to action parameters (actor) or a value (critic).

    Attributes:
        hidden_size: widths of the hidden layers; () is one linear layer.
        activation: between them.
        layer_norm: normalise the outputs of each hidden layer in front of the activation.
        residual_layers: blocks ``x + W2 act(W1 x)`` behind them, see ``EncoderConfig``.

    """

    hidden_size: tuple[Annotated[int, WIDTH], ...] = (64,)
    activation: Activation = "Tanh"
    layer_norm: bool = False
    residual_layers: Annotated[int, LAYERS] = 0


@dataclass(frozen=True)
class NetConfig(Config):
    """The whole policy network: ``net_config={"encoder_config": {...}, "head_config": {...}}``.

    Attributes:
        encoder_config: from observations to features, memory included.
        head_config: from features to actions and values, of each head alike.

    """

    encoder_config: EncoderConfig = field(default_factory=EncoderConfig)
    head_config: HeadConfig = field(default_factory=HeadConfig)


@dataclass(frozen=True)
class PolicyConfig(Config):
    """What describes a policy beside the spaces and the network's shapes; built in for good.

    Attributes:
        recurrent: with memory; False gives a feed-forward policy, trained by the same learner.
        share_encoders: one encoder for actor and critic; False gives each its own.
        previous_action: feed the last action to the policy as well.
        previous_reward: feed the last reward to the policy as well.
        normalize_obs: standardise numbers and images (pixel by pixel) by running statistics that
            live in the policy; they move between rollouts only and are saved with the weights.
        normalize_images: scale images of whole numbers, and bytes of any shape, by their space's
            bounds: the one that is furthest from zero is seen as 1 or -1.
        action_std_init: initial standard deviation of Box actions [half ranges of the space when
            bounded and squashed, the space's own units otherwise]. It stays above 0.005 times the
            greater of this and 1. Of bounded whole numbers 1 plays all about equally often.
        squash_output: tanh-squash Box actions into their bounds instead of clipping them; None
            does so where all bounds are finite and at most 1e18. Each of some bounded whole numbers
            has an equal share either way, by tanh or by the normal distribution function.
        state_dependent_std: the deviation of Box actions is an output of the network, rather than a
            parameter of its own.
        use_sde: generalised state-dependent exploration: Box actions deviate by a random linear
            function of what the actor's last layer reads, which is drawn anew every
            ``sde_sample_freq`` steps, so that exploration is smooth in time.
        sde_sample_freq: steps for which such a function holds [environment steps]. A rollout draws
            new ones at its start and then at least once in 64 steps, unless this is more, and
            ``get_action`` at each call.
        ortho_init: orthogonal initial weights with the customary PPO gains, else PyTorch's own.
        compiled: on the CPU, learn by kernels in C, which the C compiler of the machine builds at
            their first use (once for all runs): LSTMs over whole sequences, Adam's step, and PPO's
            losses. Small networks learn 1.4 to 3 times as fast; results differ by rounding.
            Without a compiler a warning says so, and PyTorch's operations are used; another says
            what keeps a policy's losses from the kernels.

    """

    recurrent: bool = True
    share_encoders: bool = True
    previous_action: bool = False
    previous_reward: bool = False
    normalize_obs: bool = False
    normalize_images: bool = True
    action_std_init: Annotated[float, POSITIVE] = 1.0
    squash_output: bool | None = None
    state_dependent_std: bool = False
    use_sde: bool = False
    sde_sample_freq: Annotated[int, COUNT] = 4
    ortho_init: bool = True
    compiled: bool = False

    def __post_init__(self) -> None:
        """Check single fields, then the ones that depend on each other."""
        super().__post_init__()
        if self.use_sde and self.state_dependent_std:
            raise ValueError(
                f"{type(self).__name__}: expected one of use_sde and state_dependent_std, got "
                f"both; with use_sde the deviation depends on the state already"
            )


@dataclass(frozen=True)
class ValuePolicyConfig(PolicyConfig):
    """What describes a policy with a value function; built in for good.

    Attributes, beside those of ``PolicyConfig``:
        value_norm: learn values in units of the returns' deviation, as deviations from their mean;
            both follow the returns from rollout to rollout, and the last layer is changed with them
            so that no value is (van Hasselt et al. 2016, "Learning values across many orders of
            magnitude"). Rewards stay as they are, where normalize_reward rescales them.

    """

    value_norm: bool = False


@dataclass(frozen=True)
class QPolicyConfig(PolicyConfig):
    """What describes a policy that compares its actions' values; built in for good.

    Attributes, beside those of ``PolicyConfig``:
        dueling: values are that of the state plus an advantage of each action (Wang et al. 2016).

    """

    dueling: bool = False
