"""What comes from where when a network takes its weights from another of the same kind.

Each weight has an *origin* (see ``recurrent.growth``, which also has the rule for growing). The
same origins carry an optimiser's moments over, and those of units the hidden state. A convolution's
channels are its units. New layers are residual and start as the identity. Of a network that
shrinks, the most useful units stay. A network of the user's own stays as it is.

There are two things that no origin can keep, so mutations leave such widths alone: a LayerNorm that
normalises more units than before gives something else; and with state-dependent exploration
(``GeneralizedSDE``) the new units' sigma must be too small to be noticed, and would be learned only
in ages, as the gradient with respect to its logarithm is in proportion to its square.

Letters: K layers, N rows, H units, D features, A numbers of an action.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.custom import CustomEncoder
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.layers import Cnn, ResidualBlock
from recurrent_rl.networks.state_dependent import GeneralizedSDE
from recurrent_rl.recurrent.cell import Match
from recurrent_rl.recurrent.core import LayerOrigins
from recurrent_rl.recurrent.growth import (
    largest,
    matrix_origins,
    most_useful,
    need_of_inputs,
    row_norms,
    same_origins,
    spread_origins,
    take,
)
from recurrent_rl.recurrent.state import HiddenState

Origin = tuple[Tensor, Tensor]  # the old parameter, and the origins, in the new one's shape
Heads = list[tuple[nn.Sequential, nn.Sequential]]  # layers, old and new


@dataclass(frozen=True)
class Transfer:
    """What each weight and each unit of a policy takes over from another policy.

    Attributes:
        old: policy.
        new: policy, for the same spaces and hyper-parameters.
        origin: for each parameter of the new policy that has any, and of what learns with it, the
            old parameter and the origins, in the new one's shape.
        layers: for each encoder of the new policy and each of its recurrent layers, the old layer
            (None: it is new) and its units' origins, [H]; None for a network of the user's own,
            whose state stays as it is.

    """

    old: Policy
    new: Policy
    origin: dict[Tensor, Origin]
    layers: list[LayerOrigins | None]

    @torch.no_grad()
    def copy_weights(self) -> None:
        """Fill the new policy, its running statistics included."""
        copy_custom(self.old, self.new)
        if isinstance(sde := self.new.distribution, GeneralizedSDE):
            # What is FRESH here adds less to a variance, and to an action, than floats can tell.
            sde.log_std.fill_(0.5 * math.log(sde.least_variance) - 14)
        for parameter, (source, origin) in self.origin.items():
            parameter.copy_(take(origin.to(parameter.device), source, parameter))
        for old, new in zip(self.old.preprocessors, self.new.preprocessors, strict=True):
            new.load_state_dict(old.state_dict())

    def freeze(self, new: nn.Module) -> None:
        """Freeze what takes over from frozen parameters, and what is new in the midst of them."""
        named = dict(new.named_parameters())
        known = {n: self.origin[p][0].requires_grad for n, p in named.items() if p in self.origin}
        for name, parameter in named.items():
            around, trained = name, known.get(name)
            while trained is None and around:
                around = around.rpartition(".")[0]
                beside = [own for n, own in known.items() if n.startswith(f"{around}.")]
                trained = any(beside) if beside else None
            parameter.requires_grad_(trained is not False)

    def moments(
        self,
        old: Sequence[nn.Parameter],
        moments: Sequence[dict[str, Tensor]],
        new: Sequence[nn.Parameter],
    ) -> list[dict[str, Tensor]]:
        """Return Adam's moments for new parameters.

        Weights without a past get the mean second moment of their parameter (in a new layer: of
        all). With none they would take steps several times too long until theirs has built up, as
        the step count that corrects for it is that of the others.

        Args:
            old: parameters of an optimiser.
            moments: for each of them; {}: none.
            new: parameters of the optimiser that is to go on.

        """
        had = [m for m in moments if m]
        if not had:
            return []
        by_parameter = dict(zip(old, moments, strict=True))
        mean = torch.cat([m["exp_avg_sq"].flatten() for m in had]).mean()
        found = []
        for parameter in new:
            known = self.origin.get(parameter)
            square = torch.full_like(parameter, float(mean), requires_grad=False)
            step, average = had[0]["step"].clone(), torch.zeros_like(square)
            past = {} if known is None else by_parameter.get(cast("nn.Parameter", known[0]), {})
            if known is not None and past:
                origin = known[1].to(parameter.device)
                kept = origin >= 0
                average = torch.where(kept, take(origin, past["exp_avg"], average), 0)
                square = torch.full_like(square, float(past["exp_avg_sq"].mean()))
                square = torch.where(kept, take(origin, past["exp_avg_sq"], square), square)
            found.append({"step": step, "exp_avg": average, "exp_avg_sq": square})
        return found

    @torch.no_grad()
    def copy_twins(
        self, old: Sequence[tuple[Tensor, Tensor]], new: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Fill copies of the new parameters from copies of the old ones.

        What has no origin stays as the new copy was built: with the new parameter's first value.

        Args:
            old: copies, each with the old parameter that it follows.
            new: likewise, of the new ones.

        """
        twin_of = {source: twin for twin, source in old}
        for twin, source in new:
            if source in self.origin:
                was, origin = self.origin[source]
                twin.copy_(take(origin.to(twin.device), twin_of[was], twin))

    def state(self, state: HiddenState) -> HiddenState:
        """Return the hidden state of the new policy that goes on from one of the old."""
        tensors: list[Tensor] = []
        for encoder, layers in zip(self.old.encoders, self.layers, strict=True):
            for _ in encoder.shapes:
                x = state.tensors[len(tensors)]
                tensors.append(x if layers is None else _carried(x, layers))
        return HiddenState([*tensors, *state.tensors[self.old.memory :]], state.rows)


def copy_custom(old: nn.Module, new: nn.Module) -> None:
    """Copy the user's own networks in a module, with all their buffers, to those in another."""
    pairs = ([m for m in x.modules() if isinstance(m, CustomEncoder)] for x in (old, new))
    for a, b in zip(*pairs, strict=True):
        b.load_state_dict(a.state_dict())


class Origins:
    """Goes through two networks side by side, and notes what comes from where.

    Attributes: those of ``Transfer``.

    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.origin: dict[Tensor, Origin] = {}
        self.layers: list[LayerOrigins | None] = []

    def encoders(
        self, old: Policy, new: Policy, needed: Sequence[Sequence[Tensor]]
    ) -> list[Tensor]:
        """Go through the encoders, and return the origins of what each gives.

        ``needed`` has for each of them how much its features are by whoever reads them, [D] each.
        """
        pairs = zip(old.encoders, new.encoders, needed, strict=True)
        return [self._encoder(a, b, torch.stack(list(needs)).norm(dim=0)) for a, b, needs in pairs]

    def action_head(
        self,
        old: tuple[nn.Sequential, ActionDistribution],
        new: tuple[nn.Sequential, ActionDistribution],
        inputs: Tensor,
    ) -> None:
        """Go through layers and the distribution that they describe; ``inputs`` are origins."""
        latents = self.layers_of(old[0], new[0], inputs)
        before, after = old[1], new[1]
        if isinstance(before, GeneralizedSDE) and isinstance(after, GeneralizedSDE):
            # [Z, A]
            rows = spread_origins(latents, before.size).view_as(after.log_std)
            self.origin[after.log_std] = (before.log_std, rows)
        else:
            self.as_it_is(before, after)

    def _encoder(
        self, old: Encoder | CustomEncoder, new: Encoder | CustomEncoder, needed: Tensor
    ) -> Tensor:
        """Return the origins of an encoder's outputs; ``needed`` says how much each is."""
        if isinstance(old, CustomEncoder) or isinstance(new, CustomEncoder):
            self.layers.append(None)
            self.as_it_is(old, new)
            return same_origins(old.outputs)
        a, b = old.core, new.core
        if a is None or b is None:
            self.layers.append([])
            return self._front(old, new, needed)
        needed = needed_inputs([] if old.norm is None else [old.norm], needed)
        reading, by_layer = a.needs(needed)
        if old.skip is not None:
            reading = torch.hypot(reading, need_of_inputs(old.skip.weight, needed))
        # Behind the MLP's outputs are the extra inputs.
        features = self._front(old, new, reading[: old.mlp_outputs])
        inputs = torch.cat((features, torch.arange(old.mlp_outputs, a.rnn.input_size)))
        skipped = [] if old.skip is None else [row_norms([old.skip.weight])]
        matches, layers = a.match(b, inputs, by_layer, skipped)
        self._note(matches)
        self.layers.append(layers)
        units = layers[a.rnn.num_layers - 1][1]
        if old.skip is not None and new.skip is not None:
            self._affine(old.skip, new.skip, units, inputs)
        if old.norm is not None and new.norm is not None:
            self._norm(old.norm, new.norm, units)
        return units

    def _front(self, old: Encoder, new: Encoder, needed: Tensor) -> Tensor:
        """Go through the parts of an encoder and the MLP that reads them, joined.

        Args:
            old: with a vector, images and (in front of its MLP or not at all) extra inputs.
            new: with as many.
            needed: how much what the MLP gives is.

        """
        extra = old.inputs - sum(old.parts)
        vector, *images, _ = needed_inputs(list(old.mlp), needed).split([*old.parts, extra])
        if old.vector_mlp is None or new.vector_mlp is None:
            origins = [same_origins(old.parts[0])]
        else:
            width = cast(nn.Linear, old.vector_mlp[0]).in_features
            origins = [self.layers_of(old.vector_mlp, new.vector_mlp, same_origins(width), vector)]
        for a, b, need in zip(old.cnns, new.cnns, images, strict=True):
            origins.append(self._cnn(cast(Cnn, a), cast(Cnn, b), need))
        joined, begin = [], 0
        for origin, width in zip([*origins, same_origins(extra)], [*old.parts, extra], strict=True):
            joined.append(torch.where(origin < 0, origin, begin + origin))
            begin += width  # of the old part: origins are places in the old network
        return self.layers_of(old.mlp, new.mlp, torch.cat(joined), needed)

    def _cnn(self, old: Cnn, new: Cnn, needed: Tensor) -> Tensor:
        """Go through an image's convolutions, and return the origins of its vector."""
        convolutions = [
            [m for m in cnn.convolutions if isinstance(m, nn.Conv2d)] for cnn in (old, new)
        ]
        if not convolutions[0]:
            return same_origins(old.outputs)
        # [C * area] -> [C], as channels are flattened one after the other
        flat = needed_inputs(list(old.latent), needed).unflatten(0, (-1, old.area)).norm(dim=1)
        channels = same_origins(convolutions[0][0].in_channels)
        for i, (a, b) in enumerate(zip(*convolutions, strict=True)):
            useful = row_norms([a.weight.flatten(1)]) * needed_inputs(
                convolutions[0][i + 1 :], flat
            )
            kept = most_useful(useful, b.out_channels)
            self._affine(a, b, kept, spread_origins(channels, a.weight[0, 0].numel()))
            channels = kept
        return self.layers_of(old.latent, new.latent, spread_origins(channels, old.area), needed)

    def layers_of(
        self,
        old: nn.Sequential,
        new: nn.Sequential,
        inputs: Tensor,
        needed: Tensor | None = None,
    ) -> Tensor:
        """Go through an MLP, and return the origins of its last hidden units.

        Args:
            old: linear layers (each perhaps with a LayerNorm), then residual blocks, then the
                output layer of a head.
            new: as many linear layers.
            inputs: origins.
            needed: how much what comes out is; None for a head, whose outputs stay.

        """
        linear = [[m for m in mlp if isinstance(m, nn.Linear)] for mlp in (old, new)]
        blocks = [[m for m in mlp if isinstance(m, ResidualBlock)] for mlp in (old, new)]
        norms = [[m for m in mlp if isinstance(m, nn.LayerNorm)] for mlp in (old, new)]
        outputs = [] if needed is not None else [(linear[0].pop(), linear[1].pop())]
        modules = list(old)
        for i, (a, b) in enumerate(zip(*linear, strict=True)):
            adding = [x.outer.weight for x in blocks[0]] if a is linear[0][-1] else []
            useful = row_norms([a.weight, *adding])
            useful = useful * needed_inputs(modules[modules.index(a) + 1 :], needed)
            units = most_useful(useful, b.out_features)
            self._affine(a, b, units, inputs)
            for x, y in zip(norms[0][i : i + 1], norms[1][i : i + 1], strict=True):
                self._norm(x, y, units)
            inputs = units
        self._blocks(blocks[0], blocks[1], inputs)
        for a, b in outputs:
            self._affine(a, b, same_origins(a.out_features), inputs)
        return inputs

    def _blocks(
        self, old: Sequence[ResidualBlock], new: Sequence[ResidualBlock], inputs: Tensor
    ) -> None:
        """Match residual blocks, all of which read and write units of the origins ``inputs``."""
        by_size = [float(x.outer.weight.detach().norm()) for x in old]
        for i, y in zip(largest(by_size, len(new)), new, strict=False):
            x = old[i]
            useful = row_norms([x.inner.weight]) * x.outer.weight.detach().norm(dim=0)
            units = most_useful(useful, y.inner.out_features)
            self._affine(x.inner, y.inner, units, inputs)
            self._affine(x.outer, y.outer, inputs, units)

    def _note(self, matches: Sequence[Match]) -> None:
        for new, old, origin in matches:
            self.origin[new] = (old, origin)

    def _affine(
        self,
        old: nn.Linear | nn.Conv2d,
        new: nn.Linear | nn.Conv2d,
        units: Tensor,
        inputs: Tensor,
    ) -> None:
        """Match weights [units, inputs] (of convolutions: channels and the kernel, flat)."""
        origin = matrix_origins(units, inputs, old.weight[0].numel())
        self.origin[new.weight] = (old.weight, origin.view_as(new.weight))
        if old.bias is not None and new.bias is not None:
            self.origin[new.bias] = (old.bias, units)

    def _norm(self, old: nn.LayerNorm, new: nn.LayerNorm, units: Tensor) -> None:
        self.origin[new.weight], self.origin[new.bias] = (old.weight, units), (old.bias, units)

    def as_it_is(self, old: nn.Module, new: nn.Module) -> None:
        """Note that a module stays as it is; it may be the same."""
        for p, q in zip(old.parameters(), new.parameters(), strict=True):
            self.origin[q] = (p, torch.arange(p.numel()).view(p.shape))


def _carried(state: Tensor, layers: LayerOrigins) -> Tensor:
    """[K, N, H] of the old network -> [K, N, H] of the new one."""
    carried = []
    for layer, units in ((k, u.to(state.device)) for k, u in layers):
        if layer is None:
            carried.append(state.new_zeros(state.shape[1], len(units)))
        else:
            carried.append(torch.where(units < 0, 0, state[layer][:, units.clamp_min(0)]))
    return torch.stack(carried)


def needed_inputs(modules: Sequence[nn.Module], outputs: Tensor | None = None) -> Tensor:
    """Return the need of what goes into some layers, from that of what comes out; None: 1."""
    need = outputs
    for module in reversed(modules):
        if isinstance(module, nn.Linear):
            need = module.weight.new_ones(module.out_features) if need is None else need
            need = need_of_inputs(module.weight, need)
        elif isinstance(module, nn.Conv2d) and need is not None:
            # [C * kernel] -> [C]
            read = need_of_inputs(module.weight.flatten(1), need)
            need = read.unflatten(0, (module.in_channels, -1)).norm(dim=1)
        elif isinstance(module, nn.LayerNorm) and need is not None:
            need = need * module.weight.detach().abs()
        elif isinstance(module, ResidualBlock) and need is not None:
            inner = need_of_inputs(module.inner.weight, need_of_inputs(module.outer.weight, need))
            need = torch.hypot(need, inner)
    assert need is not None
    return need
