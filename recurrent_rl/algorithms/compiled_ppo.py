"""PPO's gradient of a minibatch by one call of a compiled kernel.

For policies made of plain layers, LSTMs and GRUs, with a density whose derivatives are known.
Sequences are not padded there, and nothing is left to autograd. Everything else goes through
``ppo_loss``, which this must equal up to rounding.

Letters: T steps, N rows, M active steps, P outputs of the actor.
"""

import functools
import math
import warnings
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.compiled_reach import obstacle_of
from recurrent_rl.algorithms.ppo_loss import ByHand, Update
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.compiled import structures
from recurrent_rl.compiled.kernels import Kernels, kernels
from recurrent_rl.compiled.structures import address
from recurrent_rl.networks.distributions import Gaussian, squashing
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.plain_layers import plain_sequence
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.networks.trunk import Trunk
from recurrent_rl.recurrent.sequences import Sequences
from recurrent_rl.spaces.codec import Features


class CompiledGradient:
    """The gradients of one rollout's minibatches, written into the parameters' ``grad``.

    Attributes:
        computed: steps that were run so far.
        padding: 0.

    """

    writes: ClassVar[bool] = True

    def __init__(self, found: Kernels, heads: ByHand, update: Update) -> None:
        """Describe policy and rollout for the kernel, and the heads that it has."""
        policy, _, buffer, cuts, targets, config, now = update
        self._kernels, self._distribution = found, policy.distribution
        self._config, self._ent_coef = config, now.ent_coef
        self._length = cuts.length
        self.computed = self.padding = 0
        self._kept: list[Any] = [buffer, cuts]  # whatever is pointed to
        self._policy = self._described(policy, heads, buffer, cuts)
        self._rollout = self._recorded(policy, buffer, cuts, targets)
        clip_value = -1.0 if config.clip_vf_coef is None else config.clip_vf_coef
        self._now = structures.Coefficients(
            now.clip_coef, clip_value, config.vf_coef, now.ent_coef, 0.0
        )
        outputs = policy.distribution.outputs
        self._outputs = torch.empty(len(cuts.order), outputs, dtype=torch.float32)

    # --- what the kernel is told -------------------------------------------------------------

    def _keep(self, tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> int | None:
        """Return where a tensor's numbers are, floats as float32, and keep them there."""
        if tensor is None:
            return None
        tensor = tensor.detach().contiguous()
        if tensor.is_floating_point():
            tensor = tensor.float()
        self._kept.append(tensor)
        return address(tensor, dtype)

    def _described(
        self, policy: ActorCritic, heads: ByHand, buffer: SequenceRolloutBuffer, cuts: Sequences
    ) -> structures.Policy:
        every = torch.arange(buffer.active.numel())
        seen, where = buffer.obs.flatten(0, 1), None
        if len(cuts.order) < len(every):
            # Nothing that does not exist is shown to anybody: it need not be in the space.
            seen, where = seen[cuts.order], torch.zeros_like(every)
            where[cuts.order] = torch.arange(len(cuts.order))
        # Once for all minibatches: statistics of observations move between rollouts only.
        with torch.no_grad():
            inputs = policy.trunk_inputs(seen, buffer.extra, buffer.views)
        trunks = [self._trunk(*inputs[0], where, buffer)]
        if len(inputs) > 1:
            if buffer.views is not None:
                where = buffer.view_places(every)
            trunks.append(self._trunk(*inputs[1], where, buffer))
        log_std = own = None
        least = 0.0
        if isinstance(policy.distribution, Gaussian):
            log_std, least = policy.distribution.log_std, policy.distribution.least
            own = log_std.grad
        return structures.Policy(
            len(trunks),
            (structures.Trunk * len(trunks))(*trunks),
            structures.mlp(*heads.actor),
            structures.mlp(*heads.critic),
            address(log_std),
            address(own),
            least,
        )

    def _trunk(
        self,
        trunk: Trunk,
        seen: Features,
        extra: Tensor | None,
        where: Tensor | None,
        buffer: SequenceRolloutBuffer,
    ) -> structures.Trunk:
        encoder = cast(Encoder, trunk.encoder)
        front = plain_sequence(encoder.mlp, ends_on_activation=True)
        assert front is not None
        cells: Any = None
        h = c = None
        if encoder.core is not None:
            rnn = encoder.core.rnn
            assert isinstance(rnn, nn.LSTM | nn.GRU)
            cells = structures.cells(rnn)
            h, *others = buffer.hidden[trunk.place]
            c = others[0] if others else None
        return structures.Trunk(
            seen.vector.shape[-1],
            0 if extra is None else extra.shape[-1],
            trunk.outputs,
            0 if cells is None else len(cells),
            self._keep(seen.vector),
            self._keep(where, torch.int64),
            self._keep(extra),
            structures.mlp(front.layers, front.activation, ends_on_activation=True),
            cells,
            address(h),
            address(c),
        )

    def _recorded(
        self, policy: ActorCritic, buffer: SequenceRolloutBuffer, cuts: Sequences, targets: Tensor
    ) -> structures.Rollout:
        log_prob, value, advantage, returns = targets
        distribution = policy.distribution
        if isinstance(distribution, Gaussian) and distribution.half_range is not None:
            # What squashing adds depends on the action alone.
            log_prob = log_prob + squashing(buffer.action, distribution.half_range).flatten()
        if (units := policy.value_head.units) is not None:
            value, returns = ((x - units.mean) / units.deviation for x in (value, returns))
        gaussian = isinstance(distribution, Gaussian)
        places = (cuts.order, cuts.first, cuts.length, cuts.row, cuts.chunk)
        return structures.Rollout(
            buffer.rows,
            *(self._keep(place, torch.int64) for place in places),
            self._keep(cuts.fresh, torch.bool),
            self._keep(cuts.active_mask, torch.bool),
            self._keep(buffer.action) if gaussian else None,
            None if gaussian else self._keep(buffer.action, torch.int64),
            self._keep(buffer.action_mask, torch.bool),
            *map(self._keep, (log_prob, value, advantage, returns)),
        )

    # --- minibatches ------------------------------------------------------------------------

    def loss(self, which: Tensor, steps: int, *, with_entropy: bool) -> tuple[Tensor, Tensor]:
        """Write the gradients of a minibatch's loss, too; see ``ppo_update.Gradient``."""
        self._now.share = 1 / steps
        found = self._kernels.ppo_gradient(
            self._policy, self._rollout, self._now, which, self._outputs
        )
        self.computed += int(self._length[which].sum())
        entropy = math.nan
        if self._ent_coef > 0 or with_entropy:
            entropy = self._entropy(found)
        loss = found.policy_loss + self._config.vf_coef * found.value_loss
        if self._ent_coef > 0:
            loss -= self._ent_coef * entropy
        noted = (found.policy_loss, found.value_loss, entropy, found.kl, found.clipped, loss)
        result = torch.tensor(noted, dtype=torch.float32).div_(steps)
        return result[-1], result[:-1]

    def _entropy(self, found: structures.Record) -> float:
        """Return the sum over steps [nats]."""
        distribution = self._distribution
        if isinstance(distribution, Gaussian) and distribution.half_range is not None:
            with torch.no_grad():
                return float(distribution.entropy(self._outputs[: found.active]).sum())
        return found.entropy


def compiled_gradient(update: Update) -> CompiledGradient | None:
    """Return what computes gradients by compiled kernels; None where autograd is needed.

    To be asked for each rollout. A warning says, once for each reason, why autograd is needed,
    unless parameters are frozen.
    """
    if not update.config.compiled:
        return None
    policy, heads = update.policy, update.heads
    obstacle = obstacle_of(policy, heads, update.buffer)
    if heads is None or obstacle is not None:
        if policy.device.type == "cpu":  # others are warned of where agents are built
            _warn_of(obstacle)
        return None
    parameters = policy.trained_parameters()
    if not all(p.requires_grad for p in parameters):
        return None  # frozen for a while, which is not worth a word
    found = kernels()
    if found is None:
        return None
    for p in parameters:
        if p.grad is None or not p.grad.is_contiguous():  # not of one vector
            p.grad = torch.zeros_like(p, memory_format=torch.contiguous_format)
    return CompiledGradient(found, heads, update)


@functools.cache  # once, not at each rollout
def _warn_of(obstacle: str | None) -> None:
    warnings.warn(
        f"compiled=True: expected a policy that PPO's kernel knows, got {obstacle}: autograd "
        f"computes its gradients, which takes longer and gives the same; LSTMs and Adam's steps "
        f"are compiled by themselves",
        RuntimeWarning,
        stacklevel=2,
    )
