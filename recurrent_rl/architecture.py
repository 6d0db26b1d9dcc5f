"""Change a policy's architecture and keep what it does.

A new policy takes its weights from an old one, weight by weight: each has an *origin*, which is the
flat position of the old weight that it takes over, or ZERO, or FRESH (it keeps its own initial
value). The same origins carry the optimiser's moments over, and those of units the hidden state.

The rule for growing (in the spirit of Wei et al. 2016, "Network Morphism"): what old units read of
new ones is ZERO, what new units read is FRESH. So old units, and with them all outputs, are as
before, while gradients reach the new units' weights. In recurrent layers this holds gate by gate.
A convolution's channels are its units. New layers are residual and start as the identity. Of a
policy that shrinks, the most useful units stay. A network of the user's own stays as it is.

There are two things that no origin can keep, so mutations leave such widths alone: a LayerNorm that
normalises more units than before gives something else; and with state-dependent exploration
(``SdeHead``) the new units' sigma must be too small to be noticed, and would be learned only in
ages, as the gradient with respect to its logarithm is in proportion to its square.

Letters: K layers, N rows, H units, D features, A numbers of an action.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recurrent_rl.config import NetConfig
from recurrent_rl.distributions import SdeHead
from recurrent_rl.encoders import Cnn, CustomEncoder, Encoder, ResidualBlock
from recurrent_rl.group import AgentGroup
from recurrent_rl.networks import ActorCritic, split_adam_state
from recurrent_rl.recurrent import HiddenState, RecurrentCore

FRESH, ZERO = -1, -2

# Of each recurrent layer the old one (None: it is new) and its units' origins, [H].
Layers = list[tuple[int | None, Tensor]]


def morph(group: AgentGroup, net_config: NetConfig, generator: torch.Generator) -> "Transfer":
    """Give a group's policy another architecture; weights and the optimiser's state come along.

    Growing changes no output: not over whole sequences, and not with hidden states carried over;
    unless a LayerNorm reads what has grown.

    Args:
        group: changed in place; its next collection starts afresh.
        net_config: may differ from the present one in widths (and channels), activations and
            residual layers.
        generator: draws the new weights.

    Returns:
        what came from where.

    """
    policy = group.build_policy(net_config, generator)
    transfer = Transfer(group.policy, policy)
    transfer.copy_weights()
    old = split_adam_state(group.optimizer.state_dict(), list(group.policy.parameters()))
    group.replace_policy(net_config, policy, transfer.moments(old))
    return transfer


class Transfer:
    """What each weight and each unit of a policy takes over from another policy.

    Attributes:
        origin: for each parameter of the new policy that has any, the old parameter and the
            origins, in the new one's shape.
        layers: for each encoder of the new policy and each of its recurrent layers, the old layer
            (None: it is new) and its units' origins, [H]; None for a network of the user's own,
            whose state stays as it is.

    """

    def __init__(self, old: ActorCritic, new: ActorCritic) -> None:
        """Find the origins; both policies must be for the same spaces and hyper-parameters."""
        self.old, self.new = old, new
        self.origin: dict[Tensor, tuple[Tensor, Tensor]] = {}
        self.layers: list[Layers | None] = []
        heads = [(old.actor, new.actor), (old.critic, new.critic)]
        theirs, ours = (
            cast(Sequence[Encoder | CustomEncoder], policy.encoders) for policy in (old, new)
        )
        features: list[Tensor] = []
        for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            # One encoder is read by both heads; of two, the first by the actor.
            read_by = heads if len(theirs) == 1 else heads[i : i + 1]
            needed = torch.stack([_needed(list(head)) for head, _ in read_by])
            features.append(self._encoder(a, b, needed.norm(dim=0)))
        latents, _ = (
            self._layers(x, y, inputs)
            for (x, y), inputs in zip(heads, (features[0], features[-1]), strict=True)
        )
        if isinstance(old.head, SdeHead) and isinstance(new.head, SdeHead):
            theirs_std, ours_std = old.head.log_std, new.head.log_std  # [Z, A]
            rows = _spread(latents, old.head.size).view_as(ours_std)
            self.origin[ours_std] = (theirs_std, rows)
        else:
            self._as_it_is(old.head, new.head)

    # --- applying the origins ---------------------------------------------------------------

    @torch.no_grad()
    def copy_weights(self) -> None:
        """Fill the new policy, its running statistics included."""
        for theirs, ours in zip(self.old.encoders, self.new.encoders, strict=True):
            if isinstance(theirs, CustomEncoder):  # it may have buffers
                ours.load_state_dict(theirs.state_dict())
        if isinstance(head := self.new.head, SdeHead):
            # What is FRESH here adds less to a variance, and to an action, than floats can tell.
            head.log_std.fill_(0.5 * math.log(head.least_variance) - 14)
        for new, (old, origin) in self.origin.items():
            new.copy_(_taken(origin.to(new.device), old, new))
        if self.new.norm is not None and self.old.norm is not None:
            self.new.norm.load_state_dict(self.old.norm.state_dict())
        self.new.image_norms.load_state_dict(self.old.image_norms.state_dict())

    def moments(self, old: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Adam's moments for each new parameter, from those for each old one.

        Weights without a past get the mean second moment of their parameter (in a new layer: of
        all). With none they would take steps several times too long until theirs has built up, as
        the step count that corrects for it is that of the others.
        """
        if not old:
            return []
        by_parameter: dict[Tensor, dict[str, Tensor]]
        by_parameter = dict(zip(self.old.parameters(), old, strict=True))
        mean = torch.cat([m["exp_avg_sq"].flatten() for m in old]).mean()
        found = []
        for new in self.new.parameters():
            known = self.origin.get(new)
            square = torch.full_like(new, float(mean), requires_grad=False)
            step, average = old[0]["step"].clone(), torch.zeros_like(square)
            if known is not None:
                past, origin = by_parameter[known[0]], known[1].to(new.device)
                kept = origin >= 0
                average = torch.where(kept, _taken(origin, past["exp_avg"], average), 0)
                square = torch.full_like(square, float(past["exp_avg_sq"].mean()))
                square = torch.where(kept, _taken(origin, past["exp_avg_sq"], square), square)
            found.append({"step": step, "exp_avg": average, "exp_avg_sq": square})
        return found

    def state(self, state: HiddenState) -> HiddenState:
        """Return the hidden state of the new policy that goes on from one of the old."""
        tensors: list[Tensor] = []
        for encoder, layers in zip(self.old.encoders, self.layers, strict=True):
            for _ in cast(Encoder | CustomEncoder, encoder).shapes:
                x = state.tensors[len(tensors)]
                tensors.append(x if layers is None else _carried(x, layers))
        return HiddenState([*tensors, *state.tensors[self.old.memory :]], state.rows)

    # --- finding them -----------------------------------------------------------------------

    def _encoder(
        self, old: Encoder | CustomEncoder, new: Encoder | CustomEncoder, needed: Tensor
    ) -> Tensor:
        """Return the origins of an encoder's outputs; ``needed`` says how much each is."""
        if isinstance(old, CustomEncoder) or isinstance(new, CustomEncoder):
            self.layers.append(None)
            self._as_it_is(old, new)
            return _same(old.outputs)
        a, b = old.core, new.core
        if a is None or b is None:
            self.layers.append([])
            return self._front(old, new, needed)
        needed = _needed([] if old.norm is None else [old.norm], needed)
        reading, *by_layer = _needed_of_layers(a, needed)
        if old.skip is not None:
            reading = torch.hypot(reading, _read(old.skip.weight, needed))
        # Behind the MLP's outputs are the extra inputs.
        features = self._front(old, new, reading[: old.mlp_outputs])
        inputs = torch.cat((features, torch.arange(old.mlp_outputs, a.rnn.input_size)))
        units = self._core(a, b, inputs, by_layer, old.skip)
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
        vector, *images, _ = _needed(list(old.mlp), needed).split([*old.parts, extra])
        if old.vector_mlp is None or new.vector_mlp is None:
            origins = [_same(old.parts[0])]
        else:
            width = cast(nn.Linear, old.vector_mlp[0]).in_features
            origins = [self._layers(old.vector_mlp, new.vector_mlp, _same(width), vector)]
        for a, b, need in zip(old.cnns, new.cnns, images, strict=True):
            origins.append(self._cnn(cast(Cnn, a), cast(Cnn, b), need))
        joined, begin = [], 0
        for origin, width in zip([*origins, _same(extra)], [*old.parts, extra], strict=True):
            joined.append(torch.where(origin < 0, origin, begin + origin))
            begin += width  # of the old part: origins are places in the old network
        return self._layers(old.mlp, new.mlp, torch.cat(joined), needed)

    def _cnn(self, old: Cnn, new: Cnn, needed: Tensor) -> Tensor:
        """Go through an image's convolutions, and return the origins of its vector."""
        convolutions = [
            [m for m in cnn.convolutions if isinstance(m, nn.Conv2d)] for cnn in (old, new)
        ]
        if not convolutions[0]:
            return _same(old.outputs)
        # [C * area] -> [C], as channels are flattened one after the other
        flat = _needed(list(old.latent), needed).unflatten(0, (-1, old.area)).norm(dim=1)
        channels = _same(convolutions[0][0].in_channels)
        for i, (a, b) in enumerate(zip(*convolutions, strict=True)):
            useful = _row_norm([a.weight.flatten(1)]) * _needed(convolutions[0][i + 1 :], flat)
            kept = _most_useful(useful, b.out_channels)
            self._affine(a, b, kept, _spread(channels, a.weight[0, 0].numel()))
            channels = kept
        return self._layers(old.latent, new.latent, _spread(channels, old.area), needed)

    def _layers(
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
            useful = _row_norm([a.weight, *adding])
            useful = useful * _needed(modules[modules.index(a) + 1 :], needed)
            units = _most_useful(useful, b.out_features)
            self._affine(a, b, units, inputs)
            for x, y in zip(norms[0][i : i + 1], norms[1][i : i + 1], strict=True):
                self._norm(x, y, units)
            inputs = units
        self._blocks(blocks[0], blocks[1], inputs)
        for a, b in outputs:
            self._affine(a, b, _same(a.out_features), inputs)
        return inputs

    def _blocks(
        self, old: Sequence[ResidualBlock], new: Sequence[ResidualBlock], inputs: Tensor
    ) -> None:
        """Match residual blocks, all of which read and write units of the origins ``inputs``."""
        by_size = [float(x.outer.weight.detach().norm()) for x in old]
        for i, y in zip(_largest(by_size, len(new)), new, strict=False):
            x = old[i]
            useful = _row_norm([x.inner.weight]) * x.outer.weight.detach().norm(dim=0)
            units = _most_useful(useful, y.inner.out_features)
            self._affine(x.inner, y.inner, units, inputs)
            self._affine(x.outer, y.outer, inputs, units)

    def _core(
        self,
        old: RecurrentCore,
        new: RecurrentCore,
        inputs: Tensor,
        needed: Sequence[Tensor],
        skip: nn.Linear | None,
    ) -> Tensor:
        """Go through recurrent layers.

        Args:
            old: plain layers, then residual ones.
            new: as many plain ones.
            inputs: origins.
            needed: how much the units of each plain layer are, [H] each.
            skip: what else writes to the outputs.

        """
        gates = 4 if old.is_lstm else 3
        plain = old.rnn.num_layers
        # Residual layers share the units of the layer that they stand on.
        above = old.stacks[1:]
        layers: Layers = []
        units = inputs
        for k, (a, b) in enumerate(zip(old.rnn.all_weights, new.rnn.all_weights, strict=True)):
            adding = above if k == plain - 1 else ()
            writing = [*a[:2], *(w for rnn in adding for w in rnn.all_weights[0][:2])]
            written = [_by_gate(w, gates).norm(dim=(0, 2)) for w in writing]
            written += [_row_norm([skip.weight])] if skip is not None and k == plain - 1 else []
            useful = torch.stack(written).norm(dim=0) * needed[k]
            units = _most_useful(useful, new.rnn.hidden_size)
            self._cell(a, b, units, inputs, gates)
            layers.append((k, units))
            inputs = units
        candidates = [float(_by_gate(r.all_weights[0][0], gates)[2].norm()) for r in above]
        kept = _largest(candidates, len(new.added))
        for j, rnn in enumerate(new.stacks[1:]):
            if j < len(kept):
                self._cell(above[kept[j]].all_weights[0], rnn.all_weights[0], units, units, gates)
                layers.append((plain + kept[j], units))
            else:
                layers.append((None, torch.full((rnn.hidden_size,), FRESH)))
        self.layers.append(layers)
        return units

    def _cell(
        self,
        old: Sequence[Tensor],
        new: Sequence[Tensor],
        units: Tensor,
        inputs: Tensor,
        gates: int,
    ) -> None:
        """Match the weights of one recurrent layer: of inputs, of the state, and two biases."""
        offset = torch.arange(gates)[:, None] * (len(old[2]) // gates)
        rows = torch.where(units >= 0, units + offset, FRESH).flatten()  # [G, H] -> [G * H]
        for a, b, columns in zip(old[:2], new[:2], (inputs, units), strict=True):
            self.origin[b] = (a, _block(rows, columns, a.shape[1]))
        for a, b in zip(old[2:], new[2:], strict=True):
            self.origin[b] = (a, rows)

    def _affine(
        self,
        old: nn.Linear | nn.Conv2d,
        new: nn.Linear | nn.Conv2d,
        units: Tensor,
        inputs: Tensor,
    ) -> None:
        """Match weights [units, inputs] (of convolutions: channels and the kernel, flat)."""
        origin = _block(units, inputs, old.weight[0].numel())
        self.origin[new.weight] = (old.weight, origin.view_as(new.weight))
        if old.bias is not None and new.bias is not None:
            self.origin[new.bias] = (old.bias, units)

    def _norm(self, old: nn.LayerNorm, new: nn.LayerNorm, units: Tensor) -> None:
        self.origin[new.weight], self.origin[new.bias] = (old.weight, units), (old.bias, units)

    def _as_it_is(self, old: nn.Module, new: nn.Module) -> None:
        for p, q in zip(old.parameters(), new.parameters(), strict=True):
            self.origin[q] = (p, torch.arange(p.numel()).view_as(p))


def _carried(state: Tensor, layers: Layers) -> Tensor:
    """[K, N, H] of the old network -> [K, N, H] of the new one."""
    carried = []
    for layer, units in ((k, u.to(state.device)) for k, u in layers):
        if layer is None:
            carried.append(state.new_zeros(state.shape[1], len(units)))
        else:
            carried.append(torch.where(units < 0, 0, state[layer][:, units.clamp_min(0)]))
    return torch.stack(carried)


def _taken(origin: Tensor, old: Tensor, fresh: Tensor) -> Tensor:
    values = old.detach().flatten()[origin.clamp_min(0)]
    return torch.where(origin >= 0, values, torch.where(origin == ZERO, 0, fresh))


def _block(rows: Tensor, columns: Tensor, width: int) -> Tensor:
    """Origins of a matrix [R, C] from those of its rows and columns; the old one is ``width``."""
    place = rows[:, None] * width + columns
    place = torch.where(columns < 0, ZERO, place)
    return torch.where(rows[:, None] < 0, FRESH, place)


def _same(width: int) -> Tensor:
    return torch.arange(width)


def _spread(units: Tensor, size: int) -> Tensor:
    """Origins of the numbers of units that have ``size`` each, one after the other, [C * size]."""
    each = units[:, None]
    return torch.where(each < 0, each, each * size + torch.arange(size)).flatten()


def _most_useful(useful: Tensor, width: int) -> Tensor:
    """Origins of ``width`` units: all old ones and new ones behind, or the best in their order."""
    old = len(useful)
    if width >= old:
        return torch.cat((torch.arange(old), torch.full((width - old,), FRESH)))
    return useful.detach().cpu().topk(width).indices.sort().values


def _largest(sizes: Sequence[float], count: int) -> list[int]:
    """Positions of the ``count`` largest, in order."""
    return sorted(sorted(range(len(sizes)), key=lambda i: -sizes[i])[:count])


# How much units are needed: the outputs' own need is 1, and what a layer reads is needed as much as
# its weights say, times the need of what it writes (in the spirit of Molchanov et al. 2017,
# "Pruning Convolutional Neural Networks", but from weights alone: no data is at hand).


def _needed(modules: Sequence[nn.Module], outputs: Tensor | None = None) -> Tensor:
    """Return the need of what goes into some layers, from that of what comes out; None: 1."""
    need = outputs
    for module in reversed(modules):
        if isinstance(module, nn.Linear):
            need = module.weight.new_ones(module.out_features) if need is None else need
            need = _read(module.weight, need)
        elif isinstance(module, nn.Conv2d) and need is not None:
            # [C * kernel] -> [C]
            read = _read(module.weight.flatten(1), need)
            need = read.unflatten(0, (module.in_channels, -1)).norm(dim=1)
        elif isinstance(module, nn.LayerNorm) and need is not None:
            need = need * module.weight.detach().abs()
        elif isinstance(module, ResidualBlock) and need is not None:
            inner = _read(module.inner.weight, _read(module.outer.weight, need))
            need = torch.hypot(need, inner)
    assert need is not None
    return need


def _needed_of_layers(core: RecurrentCore, outputs: Tensor) -> list[Tensor]:
    """Return the need of a core's inputs, and of the units of each plain layer."""
    gates = 4 if core.is_lstm else 3
    need = outputs
    for rnn in reversed(core.stacks[1:]):
        # A unit without a candidate adds nothing, whatever its other gates read.
        added = need * _by_gate(rnn.all_weights[0][0], gates)[2].norm(dim=1)
        need = torch.hypot(need, _read_by_gates(rnn.all_weights[0][0], added, gates))
    found: list[Tensor] = []
    for weights in reversed(core.rnn.all_weights):
        # One step back through the recurrence: what other needed units read of a unit.
        need = torch.hypot(need, _read_by_gates(weights[1], need, gates))
        found.insert(0, need)
        need = _read_by_gates(weights[0], need, gates)
    return [need, *found]


def _read(weight: Tensor, need: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(need[:, None] * weight.detach(), dim=0)
    return norm


def _read_by_gates(weight: Tensor, need: Tensor, gates: int) -> Tensor:
    return _read(weight, need.repeat(gates))


def _by_gate(weight: Tensor, gates: int) -> Tensor:
    """[G * H, D] -> [G, H, D]."""
    return weight.detach().view(gates, -1, weight.shape[1])


def _row_norm(weights: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.cat([w.detach() for w in weights], 1), dim=1)
    return norm
