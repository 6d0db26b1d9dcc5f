"""Adam over exactly those parameters of a policy that require gradients."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recurrent_rl.networks.flat_parameters import (
    flatten_parameters,
    padded_vector,
    padding,
    split_adam_state,
    without_padding,
)


class Trainable(Protocol):
    """Modules whose parameters an optimiser steps: a policy, or a part of one."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return those that an optimiser may step, in order."""

    def check_parts(self) -> None:
        """Raise RuntimeError if a part was replaced that would not be noticed."""


Moments = dict[str, Tensor]  # Adam's of one parameter, and its step count


def steps_one_vector(device: torch.device) -> bool:
    """Whether parameters are joined: on a GPU cuDNN has its own layout."""
    return device.type == "cpu"


class PolicyOptimizer:
    """Adam over a policy's parameters, whatever is done to these between rollouts.

    On the CPU the parameters are views of one vector, which is what Adam steps. Much that one may
    do to a policy cuts that tie: ``zero_grad``, ``p.data = ...``, ``load_state_dict(assign=True)``,
    another module in a part's place. ``join`` makes it anew, with the values that it finds.

    Frozen parameters are left out, so that momentum does not move them. Their moments are kept, and
    go on when they are unfrozen; parameters without any begin with the mean second moment of the
    others, as the count of steps is one for all.

    Attributes:
        adam: the optimiser.
        lr: the step size that was set last; any other in ``adam`` is the user's.

    """

    def __init__(self, policy: Trainable, device: torch.device, lr: float, eps: float) -> None:
        """Join the parameters of ``policy``, which is on ``device``."""
        self._device, self._dtype = device, next(policy.parameters()).dtype
        self._one_vector = steps_one_vector(device)
        self._names: list[str] = []
        self._members: list[nn.Parameter] = []
        self._shapes: list[torch.Size] = []
        self._resting: dict[str, Moments] = {}  # of parameters that are not members
        self.lr = lr
        # Adam insists on a parameter; `join` has the right ones.
        nothing = [nn.Parameter(torch.zeros(0, device=device))]
        self.adam = torch.optim.Adam(nothing, lr=lr, eps=eps, fused=True)
        self.join(policy)

    # --- the parameters ---------------------------------------------------------------------

    def check(self, policy: Trainable) -> dict[str, nn.Parameter]:
        """Return the parameters that can be trained, frozen ones included, by name, in order.

        Raises:
            RuntimeError: the policy was moved, converted, or changed beyond what is understood.

        """
        names = {p: name for name, p in policy.named_parameters()}
        trained = dict.fromkeys(policy.trained_parameters())  # each once, if some are tied
        for p, name in names.items():
            if p.dtype != self._dtype or p.device.type != self._device.type:
                raise RuntimeError(
                    f"policy: expected parameters of {self._dtype} on {self._device.type}, as the "
                    f"agent was built, got {p.dtype} on {p.device.type} at {name!r}; convert it "
                    f"back, or load the saved agent with another device"
                )
            if p not in trained and p.requires_grad:
                raise RuntimeError(
                    f"policy: expected parameters in its trunks, action_head.layers, distribution "
                    f"and value_head only, got {name!r}, which nothing trains; freeze it, or give "
                    f"the agent a network of your own (actor_network)"
                )
        policy.check_parts()
        return {names[p]: p for p in trained}

    def join(self, policy: Trainable) -> bool:
        """Step exactly the parameters that require gradients; whether there are any.

        Raises:
            RuntimeError: see ``check``; or the optimiser has other parameters than the agent's.

        """
        found = self.check(policy)
        wanted = {name: p for name, p in found.items() if p.requires_grad}
        if wanted and not self._is_joined(wanted):
            self._join(found, wanted)
        return bool(wanted)

    def _is_joined(self, wanted: Mapping[str, nn.Parameter]) -> bool:
        members = list(wanted.values())
        if len(members) != len(self._members) or not all(map(_is, members, self._members)):
            return False
        stepped = self.adam.param_groups[0]["params"]
        if not self._one_vector:
            return all(
                p is q and p.shape == shape and p.is_contiguous()
                for p, q, shape in zip(stepped, members, self._shapes, strict=True)
            )
        (vector,) = stepped
        if vector.grad is None:
            return False
        at, grad_at = vector.data_ptr(), vector.grad.data_ptr()
        for p, shape in zip(members, self._shapes, strict=True):
            if p.grad is None or p.shape != shape or not p.is_contiguous():
                return False
            if p.numel() and (p.data_ptr(), p.grad.data_ptr()) != (at, grad_at):
                return False
            room = p.nbytes + padding(p.numel(), p.itemsize) * p.itemsize
            at, grad_at = at + room, grad_at + room
        return True

    def _join(self, found: Mapping[str, Tensor], wanted: Mapping[str, nn.Parameter]) -> None:
        moments = self._by_name()
        for p in self._members:
            if not p.requires_grad:
                # Out of the vector, which would be saved with it.
                p.data, p.grad = p.data.clone(), None
        for p in wanted.values():
            # Fused Adam goes through memory, not through indices: strides must be alike.
            p.data = p.data.contiguous()
            if p.grad is not None and (p.grad.shape != p.shape or not p.grad.is_contiguous()):
                p.grad = None
        self._names, self._members = list(wanted), list(wanted.values())
        self._shapes = [p.shape for p in self._members]
        stepped = self._members
        if self._one_vector:
            stepped = [flatten_parameters(self._members)]
        self.adam.param_groups[0]["params"] = stepped
        self._put({n: m for n, m in moments.items() if n in found and _fits(m, found[n])})

    # --- Adam's state -----------------------------------------------------------------------

    def _by_name(self) -> dict[str, Moments]:
        """Return the moments of all parameters that have any; views."""
        each = split_adam_state(self.adam.state_dict(), [torch.empty(s) for s in self._shapes])
        return {**self._resting, **{n: m for n, m in zip(self._names, each, strict=False) if m}}

    def _put(self, moments: Mapping[str, Moments]) -> None:
        """Give Adam the moments of its parameters, and keep those of the others."""
        self._resting = {n: m for n, m in moments.items() if n not in self._names}
        self.adam.state.clear()
        known = [moments[n] for n in self._names if n in moments]
        if not known:
            return
        stepped = self.adam.param_groups[0]["params"]
        step = torch.stack([m["step"].float().cpu() for m in known]).max()
        each: dict[str, list[Tensor]] = {}
        for kind in known[0]:
            if kind == "step":
                continue
            fill = 0.0
            if kind != "exp_avg":
                fill = float(torch.cat([m[kind].flatten() for m in known]).mean())
            each[kind] = [
                moments[n][kind].to(p, copy=True) if n in moments else torch.full_like(p.data, fill)
                for n, p in zip(self._names, self._members, strict=True)
            ]
        if self._one_vector:
            each = {kind: [padded_vector(parts)] for kind, parts in each.items()}
        for i, p in enumerate(stepped):
            state = {kind: parts[i] for kind, parts in each.items()}
            self.adam.state[p] = {"step": step.to(p.device, copy=True), **state}

    def moments(self, policy: Trainable) -> list[Moments]:
        """Return those of each trained parameter, in order; without a step so far, {} each."""
        by_name = self._by_name()
        return [by_name.get(name, {}) for name in self.check(policy)]

    def state_dict(self, policy: Trainable) -> dict[str, Any]:
        """Return Adam's state over all parameters, frozen ones included, for ``load_state_dict``.

        Over one vector, without what fills it up, or over each parameter; those without moments
        are left out.
        """
        names = list(self.check(policy))
        state = self.adam.state_dict()
        if names == self._names:
            if self._one_vector:
                whole = {i: without_padding(m, self._shapes) for i, m in state["state"].items()}
                state["state"] = whole
            return state
        by_name = self._by_name()
        return {
            "state": {i: by_name[name] for i, name in enumerate(names) if name in by_name},
            "param_groups": [{**state["param_groups"][0], "params": list(range(len(names)))}],
        }

    def load_state_dict(self, policy: Trainable, saved: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, of a policy of the same shapes."""
        found = self.check(policy)
        (group,) = saved["param_groups"]
        for name, value in group.items():
            if name != "params":
                self.adam.param_groups[0][name] = value
        self.lr = group["lr"]
        each = split_adam_state(saved, list(found.values()))
        self._put({n: m for n, m in zip(found, each, strict=False) if m})

    def replace(self, policy: Trainable, moments: Sequence[Moments]) -> None:
        """Go on with another policy, and moments for each of its parameters; [] to begin anew."""
        self.adam.state.clear()
        self._names, self._members, self._shapes = [], [], []
        self._resting = dict(zip(self.check(policy), moments, strict=False))
        self.join(policy)

    # --- the step size ----------------------------------------------------------------------

    def set_lr(self, lr: float) -> None:
        """Set the step size."""
        self.lr = self.adam.param_groups[0]["lr"] = lr

    def check_groups(self) -> None:
        """Raise RuntimeError if somebody has set a step size, or what Adam cannot go on with."""
        groups = self.adam.param_groups
        if groups[0]["amsgrad"] and any(
            "max_exp_avg_sq" not in state for state in self.adam.state.values()
        ):
            raise RuntimeError(
                "optimizer: expected amsgrad to be set before the first step, if at all, got it "
                "after some; build another agent, or set it to False"
            )
        if len(groups) != 1:
            raise RuntimeError(
                f"optimizer: expected the policy's parameters as its one group, got {len(groups)} "
                f"groups; train other parameters with an optimiser of your own"
            )
        if groups[0]["lr"] != self.lr:
            raise RuntimeError(
                f"optimizer: expected lr {self.lr:g} in its param_groups, as the agent set it, got "
                f"{groups[0]['lr']}, which learn would overwrite; change the step size by "
                f"agent.reconfigure(lr=...) before each learn, or by lr_schedule, and leave out "
                f"torch's schedulers"
            )


def _is(a: object, b: object) -> bool:
    return a is b


def _fits(moments: Moments, parameter: Tensor) -> bool:
    return moments["exp_avg"].shape == parameter.shape
