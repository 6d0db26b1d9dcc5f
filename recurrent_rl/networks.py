"""The recurrent actor-critic, made of encoders and heads.

Letters: N rows, S sequences, L longest sequence, K layers, H units, D features, F width of the
extra inputs (previous action, previous reward, identity).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from recurrent_rl.config import NetConfig, PPOConfig
from recurrent_rl.distributions import ActionHead, make_head
from recurrent_rl.encoders import CustomEncoder, Encoder, ResidualBlock, mlp, orthogonal_init
from recurrent_rl.observations import Features, ObservationCodec
from recurrent_rl.recurrent import HiddenState, RecurrentCore
from recurrent_rl.spaces import action_features


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
        self._initialise(config.ortho_init, net.encoder_config.forget_bias)
        shapes = [shape for encoder in encoders for shape in encoder.shapes]
        self.memory = len(shapes)
        self.state_shapes = shapes + [(1, self.head.features)] * self.previous_action

    def _initialise(self, orthogonal: bool, forget_bias: float) -> None:
        """Draw the first weights, but for the user's own modules."""
        own = [encoder for encoder in self.encoders if isinstance(encoder, Encoder)]
        if orthogonal:
            for module in (*own, self.actor, self.critic):
                orthogonal_init(module, math.sqrt(2))
            orthogonal_init(self.actor[-1], 0.01)  # a nearly uniform first policy
            orthogonal_init(self.critic[-1], 1.0)
        for encoder in own:
            if encoder.core is not None and forget_bias:
                encoder.core.set_forget_bias(forget_bias)
        for part in (*own, self.actor, self.critic):
            for module in part.modules():
                if isinstance(module, ResidualBlock | RecurrentCore):
                    module.start_as_identity()

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
