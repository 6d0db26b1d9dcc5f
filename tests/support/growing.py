"""Networks of all kinds, each with a larger one, and whether two of them do the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from support.agents import randomise, trainer_of
from support.helpers import ACTIONS, OBSERVATIONS
from torch import Tensor, nn

from recurrent_rl import PPO, HiddenState, NetConfig
from recurrent_rl.evolution.morphing import morph
from recurrent_rl.networks.policy import ActorCritic

BAR = 1e-5  # of a function-preserving growth, over 200 steps


# --- what a policy does -------------------------------------------------------------------------


@dataclass
class Played:
    """What stepping gives: head parameters [T, N, ...], values [T, N], extra inputs, the end."""

    params: Tensor
    values: Tensor
    extra: Tensor | None
    state: HiddenState


@torch.no_grad()
def play(
    policy: ActorCritic, observation: Tensor, reward: Tensor, state: HiddenState | None = None
) -> Played:
    """Step through [T, N, *shape] with the memory carried along, from its beginning if None."""
    steps, rows = reward.shape
    state = policy.initial_state(rows) if state is None else state
    params, values, extras = [], [], []
    for t in range(steps):
        extra = policy.extra.joined(state, reward[t])
        acted = policy.act(observation[t], extra, state, None)
        params.append(of_action(policy, acted.dist_params))
        values.append(policy.value_of(acted.critic_features))
        extras.append(extra)
        state = acted.state
    known = None if extras[0] is None else torch.stack([x for x in extras if x is not None])
    return Played(torch.stack(params), torch.stack(values), known, state)


@torch.no_grad()
def whole(
    policy: ActorCritic, observation: Tensor, extra: Tensor | None, state: HiddenState
) -> tuple[Tensor, Tensor]:
    """The same in the learner's way, a whole sequence at once: parameters and values."""
    params, values = policy.unroll(observation, extra, state.tensors[: policy.memory], None)
    shape = observation.shape[0], state.rows
    return of_action(policy, params).view(*shape, -1), values.view(shape)


def of_action(policy: ActorCritic, params: Tensor) -> Tensor:
    """Head parameters but for the latents of state-dependent exploration, which may grow."""
    return params[..., : params.shape[-1] - policy.action_head.distribution.latents]


def difference(ours: Any, theirs: Any) -> float:
    """The greatest difference of head parameters and values."""
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def inputs_for(
    policy: ActorCritic, steps: int, rows: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random observations and rewards."""
    generator = torch.Generator().manual_seed(seed)
    shape, space = (steps, rows), policy.codec.space
    if not isinstance(space, Discrete) and (isinstance(space, Dict) or len(space.shape) > 1):
        space.seed(seed)
        layout = policy.codec.layout
        drawn = np.stack([layout.pack(space.sample()) for _ in range(steps * rows)])
        observation = torch.from_numpy(drawn).view(*shape, *layout.shape).to(layout.dtype)
    elif policy.codec.dtype.is_floating_point:
        observation = 2 * torch.randn(*shape, *policy.codec.shape, generator=generator)
    else:
        observation = 2 + torch.randint(4, shape, generator=generator)
    return observation, torch.randn(shape, generator=generator)


def gap(old: ActorCritic, new: ActorCritic, steps: int = 200, seed: int = 0) -> float:
    """How far two policies are apart, by stepping and over whole sequences."""
    observation, reward = inputs_for(old, steps, seed=seed)
    a, b = (play(policy, observation, reward) for policy in (old, new))
    stepped = difference((a.params, a.values), (b.params, b.values))
    begin = [policy.initial_state(3) for policy in (old, new)]
    sequences = [
        whole(policy, observation, a.extra, state)
        for policy, state in zip((old, new), begin, strict=True)
    ]
    assert difference(sequences[0], (a.params, a.values)) < BAR  # the check itself
    return max(stepped, difference(*sequences))


# --- architectures ------------------------------------------------------------------------------


@dataclass
class Growth:
    """An architecture, a larger one, and the rest of an agent."""

    small: dict[str, Any]
    large: dict[str, Any]
    config: dict[str, Any]
    observation: str
    action: str
    own: dict[str, tuple[int, int]] = field(default_factory=dict)  # arguments of Own

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The user's own, in the default dtype."""
        return {name: Own(*arguments) for name, arguments in self.own.items()}

    def agent(self, seed: int = 0) -> PPO:
        """The small one, with random weights and observations that have been seen."""
        agent = PPO(
            (OBSERVATIONS | SPACES)[self.observation],
            ACTIONS[self.action],
            self.small,
            seed=seed,
            **self.networks,
            **self.config,
        )
        randomise(agent.policy, seed)
        if agent.policy.preprocessor.norm is not None:
            agent.policy.preprocessor.norm.update(
                1 + 3 * torch.randn(50, agent.policy.codec.continuous)
            )
        return agent

    def grow(self, agent: PPO) -> Any:
        """Make the agent large."""
        return change(agent, self.large)


def change(agent: Any, net: dict[str, Any] | NetConfig, seed: int = 1) -> Any:
    """Morph an agent, or the group of a trainer, by a configuration."""
    net = net if isinstance(net, NetConfig) else NetConfig.from_dict(net)
    return morph(trainer_of(agent), net, torch.Generator().manual_seed(seed))


def named_weights(policy: ActorCritic) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


# --- images, dictionaries, networks of one's own ------------------------------------------------


# Of different sizes, so that an offset or an area of one used for another is noticed.
SPACES: dict[str, gym.Space[Any]] = {
    "image": Box(0, 255, (8, 9, 2), np.uint8),
    "all": Dict(vector=Box(-2, 2, (3,)), index=Discrete(4, start=2), image=Box(0, 1, (1, 7, 8))),
    "images": Dict(
        vector=Box(-2, 2, (2,)), left=Box(0, 255, (8, 9, 2), np.uint8), right=Box(-1, 1, (1, 7, 7))
    ),
}


class Own(nn.Module):
    """A network of a user: of a vector, with a memory, and a buffer that the policy depends on."""

    scale: Tensor

    def __init__(self, extra: int, cells: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3 + extra, cells)
        self.last = nn.Linear(cells, 4)
        self.register_buffer("scale", torch.ones(()))

    def initial_state(self, rows: int) -> tuple[Tensor, Tensor]:
        zeros = self.last.weight.new_zeros(1, rows, self.rnn.hidden_size)
        return zeros, zeros

    def forward(
        self, observation: Tensor, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        x = observation if extra is None else torch.cat((observation, extra), -1)
        y, after = self.rnn(x, (state[0], state[1]))
        return self.scale * self.last(y), after


CONVOLUTIONS = {"channel_size": (4, 3), "kernel_size": (3, 2), "stride_size": (2, 1)}
WIDER = {**CONVOLUTIONS, "channel_size": (7, 5)}
CORE: dict[str, Any] = {"hidden_state_size": 4, "latent_dim": 5}
VECTORS = {"vector_space_mlp": True, "mlp_config": {"hidden_size": (4,), "activation": "ELU"}}
NORMS = {"layer_norm": True, "core_layer_norm": True, "hidden_size": (5, 3)}


def case(
    observation: str,
    small: dict[str, Any],
    large: dict[str, Any],
    *,
    head: dict[str, Any] | None = None,
    larger_head: dict[str, Any] | None = None,
    action: str = "discrete",
    own: dict[str, tuple[int, int]] | None = None,
    **config: Any,
) -> Growth:
    """An encoder, what of it is larger in the large one, and the heads' likewise."""
    encoder = {**CORE, **small}
    head = {"hidden_size": (6,), **(head or {})}
    return Growth(
        {"encoder_config": encoder, "head_config": head},
        {"encoder_config": {**encoder, **large}, "head_config": {**head, **(larger_head or {})}},
        {"squash_output": False, "max_seq_len": 4, **config},
        observation,
        action,
        own or {},
    )


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Options as they go into a configuration; for those that replace a nested one whole."""
    return {"cnn_config": {**options, "activation": "ELU"}}


CASES: dict[str, Growth] = {
    "image": case("image", flat(CONVOLUTIONS), flat(WIDER)),
    "image's latents": case("image", flat(CONVOLUTIONS), {"latent_dim": 8}),
    "image, all larger": case(
        "image",
        {**flat(CONVOLUTIONS), "hidden_size": (4,)},
        {**flat(WIDER), "latent_dim": 8, "hidden_size": (6,), "hidden_state_size": 7},
        share_encoders=False,
    ),
    "image, feed-forward": case(
        "image",
        {**flat(CONVOLUTIONS), "residual_layers": 1},
        {**flat(WIDER), "latent_dim": 8, "residual_layers": 2},
        recurrent=False,
        previous_action=True,
    ),
    "flattened image": case(
        "image", {"channel_size": (), "hidden_size": (4,)}, {"hidden_size": (6,)}
    ),
    "dictionary": case(
        "all",
        {**flat(CONVOLUTIONS), "hidden_size": ()},
        {**flat(WIDER), "latent_dim": 7},
        normalize_obs=True,
        previous_action=True,
        previous_reward=True,
    ),
    "dictionary, feed-forward": case(
        "all",
        {**flat(CONVOLUTIONS), **VECTORS, "hidden_size": (), "residual_layers": 1},
        {**flat(WIDER), "latent_dim": 7},
        recurrent=False,
        previous_action=True,
        previous_reward=True,
    ),
    "two images": case(
        "images",
        {**flat(CONVOLUTIONS), "hidden_size": (5, 3)},
        {**flat(WIDER), "latent_dim": 6, "hidden_size": (5, 7)},
    ),
    "two images, feed-forward": case(
        "images",
        {**flat(CONVOLUTIONS), **VECTORS, "hidden_size": ()},
        {**flat(WIDER), "latent_dim": 6},
        recurrent=False,
        share_encoders=False,
        previous_reward=True,
    ),
    "two flattened images": case(
        "images",
        {**VECTORS, "channel_size": ()},
        {"latent_dim": 9, "mlp_config": {"hidden_size": (7,), "activation": "ELU"}},
    ),
    "vector's MLP": case(
        "vector",
        {**VECTORS, "cell": "gru"},
        {"latent_dim": 9, "mlp_config": {"hidden_size": (7,), "activation": "ELU"}},
    ),
    "vector's MLP with LayerNorm": case(
        "all",
        {
            **flat(CONVOLUTIONS),
            "vector_space_mlp": True,
            "mlp_config": {"hidden_size": (4,), "layer_norm": True},
            "hidden_size": (6,),
        },
        {**flat(WIDER), "hidden_size": (8,)},
    ),
    "LayerNorm": case(
        "all",
        {**flat(CONVOLUTIONS), **NORMS},
        {**flat(WIDER), "latent_dim": 7, "residual_layers": 1},
        head={"hidden_size": (6, 5), "layer_norm": True},
        larger_head={"residual_layers": 2},
    ),
    "LayerNorm, feed-forward": case(
        "vector",
        {**NORMS, **VECTORS},
        {"latent_dim": 7, "residual_layers": 2},
        head={"layer_norm": True, "residual_layers": 1},
        recurrent=False,
    ),
    "around the core": case(
        "vector",
        {"core_residual": True, "num_layers": 2, "residual_layers": 1, "hidden_size": (3,)},
        {"hidden_state_size": 7, "residual_layers": 2, "hidden_size": (6,)},
        previous_action=True,
    ),
    "around and behind the core": case(
        "all",
        {**flat(CONVOLUTIONS), "core_residual": True, "core_layer_norm": True, "hidden_size": ()},
        {**flat(WIDER), "latent_dim": 6, "residual_layers": 1},
        previous_action=True,
        share_encoders=False,
    ),
    "exploration by state": case(
        "vector",
        {},
        {"hidden_state_size": 7},
        head={"hidden_size": (5, 6)},
        larger_head={"hidden_size": (9, 6), "residual_layers": 1},
        action="box",
        use_sde=True,
    ),
    "exploration by more latents": case(
        "vector",
        {},
        {"residual_layers": 1},
        larger_head={"hidden_size": (11,), "residual_layers": 1},
        action="box",
        use_sde=True,
    ),
    "deviation by state": case(
        "vector",
        {},
        {"hidden_state_size": 7},
        larger_head={"hidden_size": (11,)},
        action="box",
        state_dependent_std=True,
    ),
    "own actor": case(
        "vector",
        {"cell": "gru"},
        {"hidden_state_size": 7, "hidden_size": (70,)},
        larger_head={"hidden_size": (9,)},
        own={"actor_network": (3, 3)},
        share_encoders=False,
        previous_action=True,
    ),
    "own critic": case(
        "vector",
        {},
        {"hidden_state_size": 7, "residual_layers": 1},
        larger_head={"hidden_size": (9,)},
        own={"critic_network": (0, 3)},
    ),
    "own network": case(
        "vector",
        {},
        {},
        head={"hidden_size": ()},
        larger_head={"residual_layers": 1},
        own={"actor_network": (0, 3)},
    ),
    "two own networks": case(
        "vector",
        {},
        {},
        larger_head={"hidden_size": (9,), "residual_layers": 1},
        own={"actor_network": (0, 3), "critic_network": (0, 5)},
    ),
}


def agent_of(growth: Growth, seed: int = 0) -> PPO:
    """A case's agent, whose own networks have been used: their buffers are not those of Own."""
    agent = growth.agent(seed)
    for module in agent.policy.modules():
        if isinstance(module, Own):
            module.scale.fill_(1.7)
    return agent


class Sampled(gym.Env[Any, Any]):
    """Random observations of any space, in episodes of five steps."""

    def __init__(self, growth: Growth) -> None:
        self.observation_space = (OBSERVATIONS | SPACES)[growth.observation]
        self.action_space = ACTIONS[growth.action]
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        reward = float(np.sum(action)) % 1.3
        return self.observation_space.sample(), reward, self.time == 5, False, {}


def sampled(growth: Growth) -> Any:
    return SyncVectorEnv([lambda: Sampled(growth)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
