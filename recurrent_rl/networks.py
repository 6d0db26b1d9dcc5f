"""Encoders, heads, and the recurrent actor-critic made of them.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features, F width of the
extra inputs (previous action and reward). Of images: C channels, and height and width.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from recurrent_rl.config import CnnConfig, NetConfig, PPOConfig
from recurrent_rl.distributions import ActionHead, make_head
from recurrent_rl.observations import Features, ObservationCodec
from recurrent_rl.recurrent import HiddenState, RecurrentCore, run_by_length
from recurrent_rl.spaces import action_features


class ResidualBlock(nn.Module):
    """``x + W2 act(W1 x + b1) + b2``.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks"; starting as the identity
    from Zhang et al. 2019, "Fixup Initialization".
    """

    def __init__(self, width: int, activation: str) -> None:
        """Arg ``width``: of what comes in, of what goes out, and in between."""
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.activation: nn.Module = getattr(nn, activation)()

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Give out what comes in; only W2 is zero, so gradients reach it at once."""
        self.outer.weight.zero_()
        self.outer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        y: Tensor = x + self.outer(self.activation(self.inner(x)))
        return y


def mlp(
    inputs: int,
    hidden: Sequence[int],
    activation: str,
    outputs: int | None,
    residual: int = 0,
    layer_norm: bool = False,
) -> nn.Sequential:
    """Linear layers with an activation after each hidden one, then residual blocks.

    ``outputs=None`` ends on those. ``layer_norm`` normalises in front of each activation (Ba et al.
    2016, "Layer Normalization").
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        layers += [nn.LayerNorm(width)] if layer_norm else []
        layers.append(getattr(nn, activation)())
        inputs = width
    layers += [ResidualBlock(inputs, activation) for _ in range(residual)]
    if outputs is not None:
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def orthogonal_init(module: nn.Module, gain: float) -> None:
    """Orthogonal weights and zero biases; those of recurrent layers are so gate by gate.

    Source: Saxe et al. 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks"; gains as in Andrychowicz et al. 2021, "What Matters in On-Policy RL".
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LSTM | nn.GRU):
            for name, parameter in layer.named_parameters():
                if name.startswith("bias"):
                    nn.init.zeros_(parameter)
                    continue
                for gate in parameter.data.split(layer.hidden_size):
                    nn.init.orthogonal_(gate, 1.0)


def share_memory_of(module: nn.Module) -> nn.Parameter:
    """Move all parameters, and gradients, into one vector each, of which they become views.

    An optimiser then takes one step for one tensor rather than for each of a dozen small ones:
    clipping and stepping a small policy takes 0.09 rather than 0.16 ms. For the CPU: cuDNN has its
    own layout.

    Returns:
        the vector, to be given to the optimiser in the parameters' stead.

    """
    parameters = list(module.parameters())
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.cat([g.flatten() for g in grads])
    sizes = [p.numel() for p in parameters]
    for p, data, grad in zip(
        parameters, flat.data.split(sizes), flat.grad.split(sizes), strict=True
    ):
        p.data, p.grad = data.view_as(p), grad.view_as(p)
    return flat


def split_adam_state(
    state: dict[str, Any], parameters: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """Return Adam's moments and step count for each parameter; none before its first step.

    Args:
        state: from ``state_dict``, over one vector of all parameters or over each.
        parameters: all, in the vector's order.

    """
    moments = state["state"]
    if not moments or len(moments) == len(parameters):
        return [dict(moments[i]) for i in range(len(moments))]
    sizes = [p.numel() for p in parameters]
    split = {name: x.split(sizes) for name, x in moments[0].items() if name != "step"}
    return [
        {
            "step": moments[0]["step"].clone(),
            **{name: split[name][i].view_as(p).clone() for name in split},
        }
        for i, p in enumerate(parameters)
    ]


def adam_state_for(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], parameters: Sequence[Tensor]
) -> dict[str, Any]:
    """Fit Adam's saved state to an optimiser over one vector of all parameters, or over each.

    On the CPU an agent's optimiser has the one, on a GPU the others (see ``share_memory_of``).

    Args:
        optimizer: with one group.
        state: from either's ``state_dict``.
        parameters: all, in the vector's order.

    Returns:
        what ``optimizer.load_state_dict`` takes; a copy, as that would share the tensors.

    """
    (group,), moments = state["param_groups"], state["state"]
    count = len(optimizer.param_groups[0]["params"])
    if moments and len(moments) != count:
        each = split_adam_state(state, parameters)
        if count == 1:
            joined = {name: torch.cat([m[name].flatten() for m in each]) for name in each[0]}
            each = [{**joined, "step": each[0]["step"].clone()}]
        moments = dict(enumerate(each))
    moments = {i: {name: x.clone() for name, x in m.items()} for i, m in moments.items()}
    return {"state": moments, "param_groups": [{**group, "params": list(range(count))}]}


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


class Cnn(nn.Module):
    """Images to vectors: convolutions, then a linear layer, each with an activation.

    Source: LeCun et al. 1989, "Backpropagation Applied to Handwritten Zip Code Recognition".

    Attributes:
        convolutions: empty if images are only flattened; then there is no linear layer either.
        area: pixels that the last convolution leaves of each channel.
        outputs: width of the vectors.

    """

    def __init__(self, shape: Sequence[int], config: CnnConfig, latent_dim: int) -> None:
        """Raise ValueError for a kernel that is too large; ``shape`` is (C, height, width)."""
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for wider, kernel, stride in config.layers(height, width):
            layers += [nn.Conv2d(channels, wider, kernel, stride)]
            layers += [getattr(nn, config.activation)()]
            channels = wider
            height, width = ((size - kernel) // stride + 1 for size in (height, width))
        self.convolutions = nn.Sequential(*layers)
        self.area, self.outputs = height * width, channels * height * width
        self.latent = nn.Sequential()
        if layers:
            self.latent = mlp(self.outputs, (latent_dim,), config.activation, None)
            self.outputs = latent_dim

    def forward(self, x: Tensor) -> Tensor:
        """[..., C, height, width] -> [..., latent_dim]."""
        lead = x.shape[:-3]
        y: Tensor = self.latent(self.convolutions(x.reshape(-1, *x.shape[-3:])).flatten(1))
        return y.reshape(*lead, self.outputs)


class Encoder(nn.Module):
    """Observation features and extra inputs to what a head reads.

    Each image goes through its own convolutions, the vector as it is or through an MLP of its own;
    what they give is joined and goes through an MLP, then through the recurrent core.

    Attributes:
        cnns: one for each image.
        vector_mlp: the vector's own MLP, None without.
        parts: widths of what is joined: the vector's, then the images'.
        inputs: width of what the MLP reads.
        mlp_outputs: of what it gives.
        core: the recurrent core; None in a feed-forward encoder.
        skip: linear map around the core, None without.
        norm: behind both, None without.
        outputs: width of what comes out at the end.

    """

    def __init__(
        self, codec: ObservationCodec, extra: int, net: NetConfig, recurrent: bool
    ) -> None:
        """Args: what observations are like, extra F; ``net.encoder_config`` gives the widths."""
        super().__init__()
        config = net.encoder_config
        self.cnns = nn.ModuleList(
            Cnn(shape, config.cnn_config, config.latent_dim) for shape in codec.image_shapes
        )
        width = codec.features
        self.vector_mlp: nn.Sequential | None = None
        if config.vector_space_mlp and width:
            own = config.mlp_config
            hidden = (*own.hidden_size, config.latent_dim)
            self.vector_mlp = mlp(width, hidden, own.activation, None, layer_norm=own.layer_norm)
            width = config.latent_dim
        self.parts = [width, *(cast(Cnn, cnn).outputs for cnn in self.cnns)]
        hidden = config.widths(recurrent, bool(self.cnns))
        # Extra inputs join behind the MLP when there is a core to remember them.
        front = sum(self.parts) + (0 if recurrent else extra)
        blocks = 0 if recurrent else config.residual_layers
        self.mlp = mlp(front, hidden, config.activation, None, blocks, config.layer_norm)
        width = hidden[-1] if hidden else front
        self.inputs, self.mlp_outputs = front, width
        self.core: RecurrentCore | None = None
        self.skip: nn.Linear | None = None
        self.norm: nn.LayerNorm | None = None
        if recurrent:
            hidden_size = config.hidden_state_size
            self.core = RecurrentCore(
                width + extra,
                hidden_size,
                config.num_layers,
                config.cell,
                config.residual_layers,
            )
            if config.core_residual:
                self.skip = nn.Linear(width + extra, hidden_size, bias=False)
            if config.core_layer_norm:
                self.norm = nn.LayerNorm(hidden_size)
            width = hidden_size
        self.outputs = width

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(K, H) of each state tensor."""
        return self.core.shapes if self.core is not None else []

    def _front(self, x: Features, extra: Tensor | None) -> Tensor:
        vector = x.vector if self.vector_mlp is None else self.vector_mlp(x.vector)
        joined = [vector] if vector.shape[-1] else []
        joined += [cnn(image) for cnn, image in zip(self.cnns, x.images, strict=True)]
        if extra is not None and self.core is None:
            joined.append(extra)
        y: Tensor = self.mlp(joined[0] if len(joined) == 1 else torch.cat(joined, -1))
        return y if extra is None or self.core is None else torch.cat((y, extra), -1)

    def _behind(self, read: Tensor, given: Tensor) -> Tensor:
        """Go around and behind the core, which made of what it ``read`` what it has ``given``."""
        if self.skip is not None:
            given = given + self.skip(read)
        return given if self.norm is None else self.norm(given)

    def step(
        self, x: Features, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step: [N, D] -> [N, H], and the state after it."""
        y = self._front(x, extra)
        if self.core is None:
            return y, ()
        given, after = self.core.step(y, state)
        return self._behind(y, given), after

    def forward(
        self, x: Features, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Whole sequences: [L, S, D] -> [L, S, H], and the state after them."""
        y = self._front(x, extra)
        if self.core is None:
            return y, ()
        given, after = self.core(y, state)
        return self._behind(y, given), after

    def run(
        self, x: Features, extra: Tensor | None, length: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the state after sequences of different ``length`` [S]."""
        if self.core is None:
            return ()
        return self.core.run(self._front(x, extra), length, state)[1]


class SequenceNetwork(Protocol):
    """What a network of one's own (``actor_network``, ``critic_network``) must offer.

    It is a ``torch.nn.Module`` that takes the place of an encoder: the heads, which ``head_config``
    describes, read what it gives. It knows nothing of episodes: where one starts, and where a row
    pauses, is the policy's business. What it gives may depend on a row's own past alone, not on
    other rows or on chance, or the learner would not find what collection saw: BatchNorm and
    Dropout are refused.
    """

    def initial_state(self, rows: int) -> Sequence[Tensor]:
        """Return the memory of N rows at the start of an episode: zeros, [K, N, H] each.

        Empty for a network without memory.
        """

    def forward(
        self, observation: Any, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Go through whole sequences; acting is the case of L = 1.

        Args:
            observation: [L, S, ...], floats in the structure of the observation space: a Box in its
                own shape, but images as [C, height, width], bytes of them scaled to [0, 1]; one-hot
                vectors for Discrete and (joined) for MultiDiscrete; bits for MultiBinary. Not
                standardised, whatever ``normalize_obs`` is.
            extra: previous action, previous reward, identity, as far as the policy sees them, [L,
                S, F]; None without any.
            state: before the first step, [K, S, H] each.

        Returns:
            output: [L, S, anything].
            state: after the last step.

        """


class CustomEncoder(nn.Module):
    """A network of the user's own in the place of an encoder.

    Attributes:
        network: it.
        shapes: (K, H) of each state tensor.
        outputs: width of what it gives.

    """

    def __init__(
        self, network: nn.Module, codec: ObservationCodec, extra: int, recurrent: bool, name: str
    ) -> None:
        """Try the network out.

        Raises:
            TypeError: it is no module, or has not the two methods.
            ValueError: it gives something else than ``SequenceNetwork`` says.

        """
        super().__init__()
        _check_own(network, name)
        self.network = network
        with torch.no_grad():
            state = tuple(network.initial_state(1))  # type: ignore[operator]
            if any(x.ndim != 3 or x.shape[1] != 1 or bool(x.any()) for x in state):
                raise ValueError(
                    f"{name}: expected initial_state(1) to give zeros of shape [K, 1, H], got "
                    f"{[list(x.shape) for x in state]}"
                )
            if state and not recurrent:
                raise ValueError(
                    f"{name}: expected a network without state, as recurrent=False, got one with "
                    f"{len(state)} state tensors; leave recurrent=False out"
                )
            self.shapes = [(len(x), x.shape[2]) for x in state]
            blank = torch.from_numpy(codec.layout.blank).to(codec.dtype)
            like = next((p for p in network.parameters()), torch.zeros(()))
            seen = tree(lambda x: x.to(like), codec.nested(blank.expand(1, 1, *blank.shape)))
            given, after = network(seen, like.new_zeros(1, 1, extra) if extra else None, state)
            shapes = [list(x.shape) for x in after]
            if given.ndim != 3 or shapes != [list(x.shape) for x in state]:
                raise ValueError(
                    f"{name}: expected forward to give [L, S, ...] and a state like that of "
                    f"initial_state, got {list(given.shape)} and {shapes} from one step of one row"
                )
        self.outputs = int(given.shape[2])

    def step(
        self, x: Any, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step: [N, ...] -> [N, outputs], and the state after it."""
        y, after = self(tree(lambda part: part[None], x), _or_none(extra), state)
        return y[0], after

    def forward(
        self, x: Any, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Whole sequences: [L, S, ...] -> [L, S, outputs], and the state after them."""
        y, after = self.network(x, extra, tuple(state))
        return y, tuple(after)

    def run(
        self, x: Any, extra: Tensor | None, length: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the state after sequences of different ``length`` [S]."""

        def some(steps: int, which: Tensor, before: list[Tensor]) -> tuple[Tensor, Any]:
            part = tree(lambda leaf: leaf[:steps, which], x)
            return self.forward(part, None if extra is None else extra[:steps, which], before)

        return run_by_length(some, length, state)[1]


def _check_own(network: nn.Module, name: str) -> None:
    """Refuse what a policy cannot work with.

    Raises:
        TypeError: it is no module, has not the two methods, or has parameters of another dtype.
        ValueError: it has layers whose output depends on other rows or on chance.

    """
    if not isinstance(network, nn.Module) or not hasattr(network, "initial_state"):
        raise TypeError(
            f"{name}: expected a torch.nn.Module with initial_state(rows) and "
            f"forward(observation, extra, state), as recurrent_rl.SequenceNetwork describes, "
            f"got {type(network).__name__}"
        )
    for part, module in network.named_modules():
        dropout = getattr(module, "dropout", 0) if isinstance(module, nn.RNNBase) else 0
        if isinstance(module, _BatchNorm | _DropoutNd) or dropout:
            raise ValueError(
                f"{name}: expected layers whose output depends on a row's own past alone, got "
                f"{module} at {part!r}; use LayerNorm, or leave it out"
            )
    for part, parameter in network.named_parameters():
        if parameter.dtype != torch.get_default_dtype():
            raise TypeError(
                f"{name}: expected parameters of {torch.get_default_dtype()}, got "
                f"{parameter.dtype} at {part!r}"
            )


def tree(function: Any, value: Any) -> Any:
    """Apply a function to each tensor of a nested observation."""
    if isinstance(value, dict):
        return {key: tree(function, part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(tree(function, part) for part in value)
    return function(value)


def _or_none(extra: Tensor | None) -> Tensor | None:
    return None if extra is None else extra[None]


class Acted(NamedTuple):
    """What one acting step gives, [N, ...] each.

    Log-probabilities and values are not needed to act: whoever wants them computes them from
    ``params`` (the action head's) and ``critic_features``, for many steps at once.
    """

    action: Tensor
    params: Tensor
    critic_features: Tensor
    state: HiddenState


class ActorCritic(nn.Module):
    """A policy and its value function, with memory.

    The encoder is shared by both heads, or each has its own; the state of the actor's comes first
    in the hidden state. With ``previous_action`` the hidden state also holds the last action.

    Attributes:
        codec: how observations are stored and encoded.
        head: the action head.
        encoders: one for both heads, or the actor's and the critic's.
        extra: F, width of the previous-action, previous-reward and identity inputs.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net: NetConfig,
        config: PPOConfig,
        identities: int = 0,
        actor_network: nn.Module | None = None,
        critic_network: nn.Module | None = None,
    ) -> None:
        """Raise TypeError for spaces that are not supported.

        Args:
            observation_space: of one agent.
            action_space: likewise.
            net: widths.
            config: hyper-parameters.
            identities: the number of agents that the policy is to tell apart; 0 for none.
            actor_network: in place of the actor's encoder, see ``SequenceNetwork``; the critic's as
                well, where they share one. It becomes a part of the policy, without a copy.
            critic_network: in place of the critic's encoder, which it then has to itself.

        """
        super().__init__()
        cnn = net.encoder_config.cnn_config
        self.codec = ObservationCodec(
            observation_space,
            normalize_images=config.normalize_images,
            channels_last=cnn.channels_last,
        )
        heads, recurrent = net.head_config, config.recurrent
        networks = [("actor_network", actor_network)]
        if critic_network is not None or not config.share_encoders:
            networks.append(("critic_network", critic_network))
        self.previous_action, self.previous_reward = config.previous_action, config.previous_reward
        self.identities = identities
        action = action_features(action_space) if self.previous_action else 0
        self.extra = action + int(self.previous_reward) + identities
        encoders: list[Encoder | CustomEncoder] = [
            Encoder(self.codec, self.extra, net, recurrent)
            if network is None
            else CustomEncoder(network, self.codec, self.extra, recurrent, name)
            for name, network in networks
        ]
        widths = encoders[0].outputs, encoders[-1].outputs
        latents = heads.hidden_size[-1] if heads.hidden_size else widths[0]
        self.head: ActionHead = make_head(action_space, config, latents)
        normalize, numbers = config.normalize_obs, self.codec.continuous
        self.norm = RunningNorm(numbers) if normalize and numbers else None
        # Pixel by pixel: what never changes vanishes, and small things that do stand out.
        self.image_norms = nn.ModuleList(
            RunningNorm(math.prod(shape)) for shape in self.codec.image_shapes if normalize
        )
        self.encoders = nn.ModuleList(encoders)
        self.actor, self.critic = (
            mlp(
                width,
                heads.hidden_size,
                heads.activation,
                outputs,
                heads.residual_layers,
                heads.layer_norm,
            )
            for width, outputs in zip(widths, (self.head.outputs, 1), strict=True)
        )
        own = [e for e in encoders if isinstance(e, Encoder)]
        if config.ortho_init:
            for module in (*own, self.actor, self.critic):
                orthogonal_init(module, math.sqrt(2))
            orthogonal_init(self.actor[-1], 0.01)  # a nearly uniform first policy
            orthogonal_init(self.critic[-1], 1.0)
        for encoder in own:
            if encoder.core is not None and net.encoder_config.forget_bias:
                encoder.core.set_forget_bias(net.encoder_config.forget_bias)
        for part in (*own, self.actor, self.critic):
            for module in part.modules():
                if isinstance(module, ResidualBlock | RecurrentCore):
                    module.start_as_identity()
        shapes = [shape for encoder in encoders for shape in encoder.shapes]
        self.memory = len(shapes)
        self.state_shapes = shapes + [(1, self.head.features)] * self.previous_action

    def initial_state(self, rows: int) -> HiddenState:
        """Zeros for N rows."""
        like = next(self.parameters())
        return HiddenState([like.new_zeros(k, rows, h) for k, h in self.state_shapes], rows)

    def features(self, observation: Tensor) -> Features:
        """Stored observations [..., *shape] to features [..., D], standardised if so configured."""
        x = self.codec.forward(observation)  # not through Module's call: 3 us, at each step
        if self.norm is None and not self.image_norms:
            return x
        vector, images = x
        if self.norm is not None:
            numbers = self.codec.continuous
            vector = self.norm(x.vector[..., :numbers])
            if numbers < self.codec.features:
                vector = torch.cat((vector, x.vector[..., numbers:]), -1)
        if self.image_norms:
            pairs = zip(self.image_norms, images, strict=True)
            images = tuple(norm(x.flatten(-3)).view(x.shape) for norm, x in pairs)
        return Features(vector, images)

    @torch.no_grad()
    def update_norms(self, observation: Tensor, exists: Tensor) -> None:
        """Take the observations of a rollout into the running statistics, if there are any.

        Args:
            observation: stored form, [T, N, *shape], on any device.
            exists: those that are real, bool [T, N].

        """
        if self.norm is None and not self.image_norms:
            return
        device, numbers = next(self.parameters()).device, []
        # In blocks of steps, since images as floats take a lot of room.
        for seen, real in zip(observation.split(16), exists.split(16), strict=True):
            x: Features = self.codec(seen[real].to(device))
            numbers.append(x.vector[:, : self.codec.continuous])
            for norm, image in zip(self.image_norms, x.images, strict=False):
                cast(RunningNorm, norm).update(image.flatten(1))
        if self.norm is not None:
            self.norm.update(torch.cat(numbers))

    def _with_inputs(
        self, observation: Tensor, tensors: Sequence[Tensor]
    ) -> list[tuple[Encoder | CustomEncoder, Any, Sequence[Tensor]]]:
        """Join each encoder, the actor's first and the critic's last, with what it reads.

        That is the observation in the encoder's form, and its own part of the state.
        """
        encoders = cast(Sequence[Encoder | CustomEncoder], self.encoders)
        features: Features | None = None
        joined, begin = [], 0
        for encoder in encoders:
            end = begin + len(encoder.shapes)
            x: Any
            if isinstance(encoder, Encoder):
                x = features = self.features(observation) if features is None else features
            else:
                x = self.codec.nested(observation)
            joined.append((encoder, x, tensors[begin:end]))
            begin = end
        return joined

    def _head_parameters(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Go through the actor: [..., H] to the head's parameters."""
        if not self.head.latents:
            return self.head.parameters_of(self.actor(features), mask)
        latents = self.actor[:-1](features)
        return self.head.parameters_of(torch.cat((self.actor[-1](latents), latents), -1), mask)

    def extra_inputs(
        self, state: HiddenState, reward: Tensor | None, identity: Tensor | None = None
    ) -> Tensor | None:
        """Return all that a policy may see beside the observation as one input [N, F], or None.

        Args:
            state: holds the previous action.
            reward: the previous one, [N].
            identity: which of the agents each row is, one-hot, [N, A].

        """
        if not self.extra:
            return None
        parts = [state.tensors[-1][0]] if self.previous_action else []
        if self.previous_reward:
            assert reward is not None
            parts.append(reward[:, None])
        if self.identities:
            assert identity is not None
            parts.append(identity)
        return torch.cat(parts, -1)

    def act(
        self,
        observation: Tensor,
        extra: Tensor | None,
        state: HiddenState,
        noise: Tensor | None,
        mask: Tensor | None = None,
        forced: tuple[Tensor, Tensor] | None = None,
    ) -> Acted:
        """Choose one step's actions and advance the state.

        Args:
            observation: stored form, [N, *shape].
            extra: from ``extra_inputs``, [N, F] or None.
            state: before the step.
            noise: from the head, [N, ...]; None takes the mode.
            mask: allowed actions, bool [N, mask_size], or None.
            forced: rows whose action somebody else chose, bool [N], and those actions in stored
                form, [N, ...]; or None.

        Returns:
            the stored form of the actions, head parameters, critic features, the state after.

        """
        outputs: list[Tensor] = []
        after: list[Tensor] = []
        for encoder, x, part in self._with_inputs(observation, state.tensors):
            y, s = encoder.step(x, extra, part)
            outputs.append(y)
            after += s
        params = self._head_parameters(outputs[0], mask)
        action = self.head.mode(params) if noise is None else self.head.sample(params, noise)
        if forced is not None:
            rows, theirs = forced
            action = torch.where(rows.view(-1, *[1] * (action.ndim - 1)), theirs, action)
        if self.previous_action:
            after.append(self.head.encode(action)[None])
        return Acted(action, params, outputs[-1], HiddenState(after, state.rows))

    def value_of(self, critic_features: Tensor) -> Tensor:
        """[..., H] -> [...]."""
        value: Tensor = self.critic(critic_features).squeeze(-1)
        return value

    def value(self, observation: Tensor, extra: Tensor | None, state: HiddenState) -> Tensor:
        """V of observations [N, *shape] given the state before them, which stays as it is; [N]."""
        encoder, x, part = self._with_inputs(observation, state.tensors)[-1]
        return self.value_of(encoder.step(x, extra, part)[0])

    def evaluate(
        self,
        observation: Tensor,
        extra: Tensor | None,
        state: Sequence[Tensor],
        chosen: Tensor | None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Head parameters and values over whole sequences.

        Args:
            observation: [L, S, *shape].
            extra: [L, S, F] or None.
            state: before the first step, [K, S, H] each.
            chosen: flat positions (l * S + s) of the M steps that matter, or None for all: the
                heads run on those only, so nothing else can touch a loss or a gradient.
            mask: of the chosen steps, bool [M, mask_size], or None.

        Returns:
            params: [M, ...].
            value: [M].

        """
        outputs = []
        for encoder, x, part in self._with_inputs(observation, state):
            y = encoder(x, extra, part)[0].flatten(0, 1)  # [L, S, H] -> [L * S, H]
            outputs.append(y if chosen is None else y[chosen])
        return self._head_parameters(outputs[0], mask), self.value_of(outputs[-1])

    @torch.no_grad()
    def advance(
        self,
        observation: Tensor,
        extra: Tensor | None,
        length: Tensor,
        state: Sequence[Tensor],
    ) -> list[Tensor]:
        """Return the memory after sequences of different ``length`` [S], without gradients."""
        after: list[Tensor] = []
        for encoder, x, part in self._with_inputs(observation, state):
            after += encoder.run(x, extra, length, part)
        return after
