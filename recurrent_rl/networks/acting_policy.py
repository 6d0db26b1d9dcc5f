"""What acts: trunks with memory, and a distribution over actions.

Letters: N rows, S sequences, L longest sequence, K layers, H width of the features, F width of the
extra inputs (previous action, previous reward, identity).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Self

import gymnasium as gym
import torch
from torch import Tensor, nn

from recurrent_rl.distributed import ALONE, World
from recurrent_rl.networks.configs import NetConfig, PolicyConfig
from recurrent_rl.networks.custom import CustomEncoder
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.layers import ResidualBlock, orthogonal_init
from recurrent_rl.networks.trunk import ExtraInputs, Preprocessor, Trunk
from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.actions import action_codec
from recurrent_rl.spaces.codec import ObservationCodec


class CustomNetworks(NamedTuple):
    """Modules of the user's own in the encoders' places, see ``SequenceNetwork``; None: built in.

    Attributes:
        actor: the actor's, and the critic's too where they share one.
        critic: the critic's.

    """

    actor: nn.Module | None = None
    critic: nn.Module | None = None


class Central(NamedTuple):
    """What a critic is shown that actors are not.

    Attributes:
        view_space: of what it reads instead of the actor's observation; None: it reads that.
        identity: only it sees which agent it is about, not the actor.

    """

    view_space: gym.Space[Any] | None = None
    identity: bool = False


class Acted(NamedTuple):
    """What one acting step gives, [N, ...] each.

    Log-probabilities and values are not needed to act: whoever wants them computes them from
    ``dist_params`` and ``critic_features``, for many steps at once.

    Attributes:
        action: in stored form.
        dist_params: of the distribution over actions.
        critic_features: of the last trunk that was run; what a value head reads. None if nobody
            has shown a central critic what it reads.
        state: after the step.

    """

    action: Tensor
    dist_params: Tensor
    critic_features: Tensor | None
    state: HiddenState


class Policy(nn.Module):
    """Trunks and what they share, and how to act by them; algorithms add heads.

    A trunk may serve all heads, or the actor and the critic have one each; the state of the actor's
    comes first in the hidden state. With ``previous_action`` the hidden state also holds the last
    action.

    A central critic reads a view of its own, of all that there is to see, in place of the row's
    observation. It only judges: without a view the actor acts all the same, and the critic's memory
    stays as it is.

    Attributes:
        codec: how observations are stored and shown.
        view_codec: likewise, of what a central critic reads; None without one.
        actions: how actions are stored and taken by environments.
        trunks: one for all heads, or the actor's and the critic's.
        extra: what the policy sees beside the observation.
        state_shapes: (K, H) of each tensor of a hidden state.
        memory: how many of these are the trunks', the first.
        one_trunk: there is no critic beside what acts.

    """

    one_trunk: ClassVar[bool] = False

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net: NetConfig,
        config: PolicyConfig,
        identities: int = 0,
        networks: CustomNetworks = CustomNetworks(),  # noqa: B008 - immutable
        central: Central = Central(),  # noqa: B008 - immutable
    ) -> None:
        """Build untrained trunks.

        Args:
            observation_space: of one agent.
            action_space: likewise.
            net: widths.
            config: what is built into the policy.
            identities: the number of agents that the policy is to tell apart; 0 for none.
            networks: in place of encoders. Each becomes a part of the policy, without a copy. One
                for the critic makes it have an encoder to itself.
            central: what the critic is shown and the actor is not.

        Raises:
            TypeError: spaces that are not supported.

        """
        super().__init__()
        shown: dict[str, Any] = {
            "normalize_images": config.normalize_images,
            "channels_last": net.encoder_config.cnn_config.channels_last,
        }
        self.codec = ObservationCodec(observation_space, **shown)
        self.view_codec = None
        if central.view_space is not None:
            self.view_codec = ObservationCodec(central.view_space, **shown)
        self.actions = action_codec(action_space, config.squash_output)
        self.extra = ExtraInputs(
            self.actions.features if config.previous_action else 0,
            config.previous_reward,
            identities,
        )
        # The identity comes last among the extra inputs.
        self._hidden_from_actor = identities if central.identity else 0
        trunks = self._build_trunks(net, config, networks)
        self.trunks = nn.ModuleList(trunks)
        self._ends = (trunks[0], trunks[-1])  # faster to reach than in a list of modules
        self._carried = self._ends  # run while acting
        shapes = [shape for trunk in trunks for shape in trunk.shapes]
        self.memory = len(shapes)
        self.state_shapes = shapes
        if self.extra.action:
            self.state_shapes = [*shapes, (1, self.extra.action)]

    def _build_trunks(
        self, net: NetConfig, config: PolicyConfig, networks: CustomNetworks
    ) -> list[Trunk]:
        asked = [("actor_network", networks.actor)]
        if self.one_trunk and networks.critic is not None:
            raise ValueError(
                "critic_network: expected None, as this algorithm's one network both acts and "
                "judges, got a module; give it as actor_network"
            )
        if not self.one_trunk and (networks.critic is not None or not config.share_encoders):
            asked.append(("critic_network", networks.critic))
        if len(asked) == 1 and (self.view_codec is not None or self._hidden_from_actor):
            raise ValueError(
                "share_encoders: expected False, as the critic is shown something else than the "
                "actor, got True; leave it out"
            )
        shared = Preprocessor(self.codec, config.normalize_obs)
        trunks: list[Trunk] = []
        place = 0
        for name, network in asked:
            preprocessor = shared
            if trunks and self.view_codec is not None:
                preprocessor = Preprocessor(self.view_codec, config.normalize_obs)
            codec, extra = preprocessor.codec, self.extra_width(len(trunks))
            encoder = (
                Encoder(codec, extra, net, config.recurrent, compiled=config.compiled)
                if network is None
                else CustomEncoder(network, codec, extra, config.recurrent, name)
            )
            trunks.append(Trunk(preprocessor, encoder, place))
            place += len(encoder.shapes)
        return trunks

    def _initialise(
        self, heads: Sequence[tuple[nn.Sequential, float]], orthogonal: bool, forget_bias: float
    ) -> None:
        """Draw the first weights, but for the user's own modules.

        Args:
            heads: their layers, and the gain of each one's last.
            orthogonal: see ``PolicyConfig.ortho_init``.
            forget_bias: see ``EncoderConfig``.

        """
        built_in = [encoder for encoder in self.encoders if isinstance(encoder, Encoder)]
        layers = [head for head, _ in heads]
        if orthogonal:
            for module in (*built_in, *layers):
                orthogonal_init(module, 2**0.5)
            for head, gain in heads:
                orthogonal_init(head[-1], gain)
        for encoder in built_in:
            if encoder.core is not None and forget_bias:
                encoder.core.set_forget_bias(forget_bias)
        for part in (*built_in, *layers):
            for module in part.modules():
                if isinstance(module, ResidualBlock | RecurrentCore):
                    module.start_as_identity()

    def _note_parts(self) -> None:
        """Remember what the policy is made of; to be called when it is whole."""
        self._built = {(name, x.shape) for name, x in self.state_dict().items()}
        every = dict(self.named_parameters(remove_duplicate=False))
        self._tied = every.keys() - dict(self.named_parameters()).keys()

    @property
    def encoders(self) -> list[Encoder | CustomEncoder]:
        """The trunks' encoders."""
        return [trunk.encoder for trunk in self._ends[: len(self.trunks)]]

    @property
    def actor_trunk(self) -> Trunk:
        """What the head reads that acts."""
        return self._ends[0]

    @property
    def preprocessor(self) -> Preprocessor:
        """What all trunks have in front, but for a central critic's."""
        return self._ends[0].preprocessor

    @property
    def preprocessors(self) -> list[Preprocessor]:
        """What the trunks have in front: one, and a central critic's."""
        first, last = (trunk.preprocessor for trunk in self._ends)
        return [first] if first is last else [first, last]

    def update_statistics(
        self, seen: Tensor, exists: Tensor, *, views: bool = False, world: World = ALONE
    ) -> None:
        """Take what was seen into the running statistics, if there are any and none is frozen.

        They are a part of the trunks that read them: a trunk that is frozen as a whole would give
        something else if they moved.

        Args:
            seen: observations in stored form, [T, N, *shape], on any device.
            exists: those that are real, bool [T, N].
            views: these are what a central critic reads.
            world: whose ranks have seen more.

        """
        preprocessor = self.preprocessors[-1 if views else 0]
        readers = [trunk for trunk in self._ends if trunk.preprocessor is preprocessor]
        if not any(trunk.is_frozen for trunk in readers):
            preprocessor.update(seen, exists, world)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return all parameters, in the order in which optimisers (and checkpoints) have them."""
        raise NotImplementedError

    def check_parts(self) -> None:
        """Raise RuntimeError if a trunk was replaced: acting would go on with the old one."""
        if self.trunks[0] is not self._ends[0] or self.trunks[-1] is not self._ends[-1]:
            raise RuntimeError(
                "policy.trunks: expected the trunks that the policy was built with, got another "
                "module (of torch.compile?); build the agent with actor_network=... instead"
            )

    def changed_parts(self) -> list[str]:
        """Names of weights and statistics that were added, removed, reshaped or tied."""
        now = {(name, x.shape) for name, x in self.state_dict().items()}
        every = dict(self.named_parameters(remove_duplicate=False))
        tied = every.keys() - dict(self.named_parameters()).keys()
        return sorted({name for name, _ in now ^ self._built} | (tied - self._tied))

    def initial_state(self, rows: int) -> HiddenState:
        """Zeros for N rows."""
        like = next(self.parameters())
        return HiddenState([like.new_zeros(k, rows, h) for k, h in self.state_shapes], rows)

    def _inputs(
        self, observation: Tensor, trunks: Sequence[Trunk], view: Tensor | None = None
    ) -> list[tuple[Trunk, Any]]:
        """Join each trunk with what it reads, which is computed once where it is the same.

        Without a view a central critic's trunk is left out.
        """
        first, last = trunks[0], trunks[-1]
        x = first.inputs(observation)
        if first is last:
            return [(first, x)]
        if self.view_codec is not None:
            return [(first, x)] if view is None else [(first, x), (last, last.inputs(view))]
        return [
            (first, x),
            (last, x if first.is_custom == last.is_custom else last.inputs(observation)),
        ]

    @property
    def tells_apart(self) -> bool:
        """Whether the actor is shown which of the agents it acts for."""
        return self.extra.identities > self._hidden_from_actor

    @property
    def actor_extra(self) -> ExtraInputs:
        """What the actor sees beside observations."""
        return replace(self.extra, identities=self.extra.identities * self.tells_apart)

    def extra_width(self, trunk: int) -> int:
        """Return how many of the F extra inputs trunk number ``trunk`` is shown."""
        return self.extra.width - (0 if trunk else self._hidden_from_actor)

    def _extra_of(self, trunk: Trunk, extra: Tensor | None) -> Tensor | None:
        """Return those of the extra inputs [..., F] that a trunk is shown."""
        if extra is None or not self._hidden_from_actor or trunk is not self._ends[0]:
            return extra
        shown = extra[..., : -self._hidden_from_actor]
        return shown if shown.shape[-1] else None

    def actor_alone(self) -> Self:
        """Return a copy that acts as this policy does, without what only judges.

        Its hidden state is the actor's: the tensors of the first trunk, and the last action.
        """
        alone = copy.deepcopy(self)
        first = alone._ends[0]
        judges = [alone.view_codec, *(head for *_, head in alone.heads()[1:])]
        for name, part in list(alone.named_children()):
            if part in judges:
                delattr(alone, name)
        alone.trunks, alone.view_codec = nn.ModuleList([first]), None
        alone._ends = alone._carried = (first, first)
        alone.extra = self.actor_extra
        alone._hidden_from_actor = 0
        alone.memory = len(first.shapes)
        alone.state_shapes = [*first.shapes, *self.state_shapes[self.memory :]]
        return alone

    # --- acting -----------------------------------------------------------------------------

    @property
    def distribution(self) -> ActionDistribution:
        """Over stored actions."""
        raise NotImplementedError

    def dist_params(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distribution's parameters [N, *] from the first trunk's features [N, H].

        ``mask`` has the allowed actions, bool [N, mask_size], or is None.
        """
        raise NotImplementedError

    def heads(self) -> list[tuple[str, int, str, nn.Module]]:
        """Return name, width of what it reads, what it gives in words, and module of each head."""
        raise NotImplementedError

    def chosen_value(self, acted: Acted) -> Tensor:
        """Return the value of what was seen, or of the action that was chosen upon it, [N]."""
        raise NotImplementedError

    def act(
        self,
        observation: Tensor,
        extra: Tensor | None,
        state: HiddenState,
        noise: Tensor | None,
        mask: Tensor | None = None,
        forced: tuple[Tensor, Tensor] | None = None,
        *,
        view: Tensor | None = None,
        judge: bool = False,
    ) -> Acted:
        """Choose one step's actions and advance the state.

        Args:
            observation: stored form, [N, *shape].
            extra: from ``extra.joined``, [N, F] or None.
            state: before the step.
            noise: from the distribution, [N, ...]; None takes the mode.
            mask: allowed actions, bool [N, mask_size], or None.
            forced: rows whose action somebody else chose, bool [N], and those actions in stored
                form, [N, ...]; or None.
            view: what a central critic reads, stored form, [N, *shape]; None: nobody judges.
            judge: run a critic's trunk in any case, which is left out if it remembers nothing and
                nobody wants a value.

        """
        outputs: list[Tensor] = []
        after: list[Tensor] = []
        trunks = self._ends if judge else self._carried
        for trunk, x in self._inputs(observation, trunks, view):
            y, s = trunk.step(x, self._extra_of(trunk, extra), state.tensors)
            outputs.append(y)
            after += s
        judged: Tensor | None = outputs[-1]
        if self.view_codec is not None and view is None:
            judged = None
            after += state.tensors[self._ends[1].place]
        dist_params = self.dist_params(outputs[0], mask)
        distribution = self.distribution
        if noise is None:
            action = distribution.mode(dist_params)
        else:
            action = distribution.sample(dist_params, noise)
        if forced is not None:
            rows, given = forced
            action = torch.where(rows.view(-1, *[1] * (action.ndim - 1)), given, action)
        if self.extra.action:
            after.append(self.actions.encode(action)[None])
        return Acted(action, dist_params, judged, HiddenState(after, state.rows))

    @torch.no_grad()
    def advance(
        self,
        observation: Tensor,
        extra: Tensor | None,
        length: Tensor,
        state: Sequence[Tensor],
        view: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the memory after sequences of different ``length`` [S], without gradients.

        Args:
            observation: [L, S, *shape].
            extra: [L, S, F] or None.
            length: [S].
            state: before the first step, [K, S, H] each.
            view: what a central critic reads, [L, S, *shape]; None without one.

        """
        after: list[Tensor] = []
        for trunk, x in self._inputs(observation, self._ends, view):
            after += trunk.run(x, self._extra_of(trunk, extra), length, state)
        return after
