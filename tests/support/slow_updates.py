"""What off-policy updates compute, in slow and plain loops, with nothing of the package's updates.

Rows are walked place by place and decisions one by one; only trunks and heads, which have tests of
their own, are called. Use float64, so that comparisons can be strict.

Letters: P places from the first that is trained on, R rows, F width of an action as an input.
"""

import copy
import functools
import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from recurrent_rl.buffers.replay import GroupWindows, Windows
from recurrent_rl.networks.trunk import Trunk


@dataclass
class Decision:
    """One whose outcome is known: where it is, what followed, and whose value goes on from there.

    Places count from the first that is trained on.
    """

    place: int
    row: int
    reward: float
    discount: float
    then: int


def decisions(
    group: GroupWindows, burn_in: int, length: int, gamma: float, steps: int
) -> list[Decision]:
    """All of a group whose outcome is known, by place, then by row."""
    found = []
    for t in range(length):
        for row in range(group.start.shape[1]):
            if group.active[burn_in + t, row] and group.exists[burn_in + t, row]:
                known = _followed(group, burn_in, t, row, gamma, steps)
                found += [] if known is None else [known]
    return found


def _followed(
    group: GroupWindows, burn_in: int, place: int, row: int, gamma: float, steps: int
) -> Decision | None:
    def at(field: Tensor, t: int) -> Any:
        return field[burn_in + t, row].item() if burn_in + t < len(field) else False

    total, factor, reached, known = 0.0, 1.0, 0, None
    t = place
    while burn_in + t < len(group.start):
        total += factor * at(group.reward, t)
        if at(group.terminated, t):
            return Decision(place, row, total, 0.0, t)
        factor *= 1.0 if at(group.final, t) else gamma
        if at(group.truncated, t):
            if at(group.exists, t + 1) and not at(group.start, t + 1):
                return Decision(place, row, total, factor, t + 1)
            while not at(group.exists, t):
                t -= 1
            return Decision(place, row, total, factor, t)
        if at(group.start, t + 1):
            return known
        if at(group.active, t + 1) and at(group.exists, t + 1):
            known = Decision(place, row, total, factor, t + 1)
            reached += 1
            if reached == steps:
                return known
        t += 1
    return known


def features(trunk: Trunk, group: GroupWindows, burn_in: int) -> Tensor:
    """A trunk's, [P, R, H], stepped through the windows; zeros where nothing is seen."""
    state, found = list(group.state), []
    for t in range(len(group.start)):
        if t == burn_in:
            state = [x.detach() for x in state]
        state = [x.masked_fill(group.start[t][:, None], 0) for x in state]
        extra = None if group.extra is None else group.extra[t]
        y, after = trunk.step(trunk.inputs(group.obs[t]), extra, state)
        there = group.exists[t][:, None]
        before = state[trunk.place]
        state[trunk.place] = [
            torch.where(there, new, old) for new, old in zip(after, before, strict=True)
        ]
        if t >= burn_in:
            found.append(torch.where(there, y, 0))
    return torch.stack(found)


def mask_at(group: GroupWindows, burn_in: int, place: int, row: int) -> Tensor | None:
    """Allowed actions, bool [n]; None without masks."""
    return None if group.action_mask is None else group.action_mask[burn_in + place, row]


def gradients(loss: Tensor, *modules: nn.Module) -> dict[str, Tensor]:
    """Of all parameters of some modules, by the number of the module and name; zeros for none."""
    named = {f"{i}.{n}": p for i, m in enumerate(modules) for n, p in m.named_parameters()}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if grad is None else grad
        for (name, p), grad in zip(named.items(), found, strict=True)
    }


def taken_gradients(*modules: nn.Module) -> dict[str, Tensor]:
    """Those that the last update has left behind."""
    return {
        f"{i}.{n}": torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for i, module in enumerate(modules)
        for n, p in module.named_parameters()
    }


def priority(errors: list[tuple[int, float]], windows: int, mix: float) -> list[float]:
    """Of each window, from the absolute errors (window, error) of its decisions."""
    found = []
    for b in range(windows):
        own = [error for window, error in errors if window == b]
        mixed = mix * max(own) + (1 - mix) * sum(own) / len(own) if own else 0.0
        found.append(max(mixed, 1e-6))
    return found


# --- DQN --------------------------------------------------------------------------------------


def squeezed(x: float) -> float:
    """R2D2's h."""
    return math.copysign(math.sqrt(abs(x) + 1) - 1, x) + 1e-3 * x


def stretched(y: float) -> float:
    """Its inverse, found by bisection."""
    low, high = -1e6, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if squeezed(middle) < y else (low, middle)
    return (low + high) / 2


def q_values(head: Any, x: Tensor) -> Tensor:
    """Of one place, [n]."""
    advantage = head.layers(x)
    if head.state_value is None:
        return advantage  # type: ignore[no-any-return]
    value, mean = head.state_value(x)[0], sum(advantage) / len(advantage)
    return torch.stack([value + each - mean for each in advantage])


@dataclass
class Expected:
    """Of one update: the loss, its gradient, and the windows' priorities."""

    loss: Tensor
    gradients: dict[str, Tensor]
    priorities: list[float]


def dqn(agent: Any, windows: Windows) -> Expected:
    """What DQN's next update is to compute."""
    config, policy = agent.config, agent.policy
    (group,) = windows.groups.values()
    target_trunk, target_head = agent.learner.target.module
    online = features(policy.trunk, group, windows.burn_in)
    slow = features(target_trunk, group, windows.burn_in)
    losses, errors = [], []
    for d in decisions(group, windows.burn_in, windows.length, config.gamma, config.n_step):
        q = q_values(policy.q_head, online[d.place, d.row])
        chosen = q[group.action[windows.burn_in + d.place, d.row]]
        values = q_values(target_head, slow[d.then, d.row]).tolist()
        judges = values
        if config.double:
            judges = q_values(policy.q_head, online[d.then, d.row]).tolist()
        allowed = mask_at(group, windows.burn_in, d.then, d.row)
        among = [i for i in range(len(values)) if allowed is None or allowed[i]]
        best = max(among or range(len(values)), key=lambda i: judges[i])
        reward = d.reward * config.reward_scale
        if config.rescale:
            target = squeezed(reward + d.discount * stretched(values[best]))
        else:
            target = reward + d.discount * values[best]
        error = chosen - target
        if config.huber is None:
            each = error**2
        elif abs(error) <= config.huber:
            each = 0.5 * error**2
        else:
            each = config.huber * (abs(error) - 0.5 * config.huber)
        losses.append(windows.weight[d.row] * each)
        errors.append((d.row, abs(error.item())))
    loss = sum(losses) / len(losses)
    found = gradients(loss, policy.trunk, policy.q_head)
    return Expected(loss, found, priority(errors, len(windows), config.priority_mix))


# --- actors and critics -----------------------------------------------------------------------


def encoded(policy: Any, action: Tensor) -> Tensor:
    """One stored action as critics see it, [F]."""
    space = policy.actions.space
    if isinstance(space, gym.spaces.Box):
        return action.tanh() if policy.actions.squash else action
    if isinstance(space, gym.spaces.Discrete):
        return torch.tensor([float(i == action) for i in range(int(space.n))])
    if isinstance(space, gym.spaces.MultiDiscrete):
        counts = [int(n) for n in space.nvec.flat]
        return torch.tensor(
            [float(i == a) for n, a in zip(counts, action, strict=True) for i in range(n)]
        )
    return torch.tensor([float(bit) for bit in action])


class Team:
    """All that an actor-critic's update reads, as it was before it."""

    def __init__(self, agent: Any, windows: Windows) -> None:
        """Copy an agent's networks."""
        learner = agent.learner
        targets = {name: target.module for name, target in learner.targets()}
        self.policies, self.critic, self.slow = copy.deepcopy(
            (learner.policies, learner.critic, targets)
        )
        self.configs, self.config = learner.configs, learner.config
        self.windows, self.burn_in = windows, windows.burn_in
        self.groups, self.names = windows.groups, list(windows.groups)
        self.sizes = {name: group.agents for name, group in self.groups.items()}
        self.alone = sum(self.sizes.values()) == 1
        self.generator = torch.Generator()
        self.generator.set_state(learner.generator.get_state())
        self.known = {
            name: decisions(
                group, self.burn_in, windows.length, self.config.gamma, self.config.n_step
            )
            for name, group in self.groups.items()
        }
        places = [d.then for known in self.known.values() for d in known]
        self.span = min(places, default=0), max(places, default=0) + 1
        self.seen = {
            name: features(self.critic.trunk(name), group, self.burn_in)
            for name, group in self.groups.items()
        }

    def exists(self, name: str, place: int, row: int) -> bool:
        return bool(self.groups[name].exists[self.burn_in + place, row])

    def action(self, name: str, place: int, row: int) -> Tensor:
        """The one that was taken, as critics see it."""
        stored = self.groups[name].action[self.burn_in + place, row]
        return encoded(self.policies[name], stored)

    def block(self, name: str, features: Tensor, action: Tensor, place: int, row: int) -> Tensor:
        if self.alone:
            return torch.cat((features, action))
        whole = torch.cat((features, action, torch.ones(1)))
        return whole if self.exists(name, place, row) else torch.zeros_like(whole)

    def view(
        self, name: str, place: int, row: int, own: Tensor, seen: dict[str, Tensor], others: Any
    ) -> Tensor:
        """What a critic reads who judges action ``own`` of one row; ``others`` gives the rest's."""
        window, index = divmod(row, self.sizes[name])
        parts = [self.block(name, seen[name][place, row], own, place, row)]
        for other in (name, *(n for n in self.names if n != name)):
            for i in range(self.sizes[other]):
                if (other, i) != (name, index):
                    at = window * self.sizes[other] + i
                    action = others(other, place, at)
                    parts.append(self.block(other, seen[other][place, at], action, place, at))
        return torch.cat(parts)

    def values(self, critic: Any, name: str, view: Tensor) -> list[Tensor]:
        """Each head's."""
        heads = critic.heads[f"group {self.names.index(name)}"]
        return [head(view).squeeze(-1) for head in heads]

    def critic_loss(self, targets: dict[str, list[float]]) -> tuple[Tensor, list[float]]:
        """All groups' losses together, and the windows' priorities."""
        total, order = torch.zeros(()), [1e-6] * len(self.windows)
        for name, known in self.known.items():
            errors = []
            for d, target in zip(known, targets[name], strict=True):
                window = d.row // self.sizes[name]
                own = self.action(name, d.place, d.row)
                if self.critic.of_choices:
                    given = self.values(self.critic, name, self.seen[name][d.place, d.row])
                    given = [value[own.argmax()] for value in given]
                else:
                    view = self.view(name, d.place, d.row, own, self.seen, self.action)
                    given = self.values(self.critic, name, view)
                for value in given:
                    each = self.windows.weight[window] * (value - target) ** 2
                    total = total + each / len(known)
                errors.append((window, max(abs(value.item() - target) for value in given)))
            mixed = priority(errors, len(self.windows), self.config.priority_mix)
            order = [max(a, b) for a, b in zip(order, mixed, strict=True)]
        return total, order

    def critic_gradients(self, loss: Tensor) -> dict[str, Tensor]:
        return gradients(loss, self.critic)

    def actor_modules(self, name: str) -> list[nn.Module]:
        policy = self.policies[name]
        return [policy.action_head, *([] if policy.shares_trunk else [policy.actor_trunk])]

    def actor_features(self, name: str) -> Tensor:
        policy = self.policies[name]
        if policy.shares_trunk:
            return self.seen[name].detach()
        return features(policy.actor_trunk, self.groups[name], self.burn_in)

    def params(self, head: Any, name: str, seen: Tensor, place: int, row: int) -> Tensor:
        mask = mask_at(self.groups[name], self.burn_in, place, row)
        return head(seen[place, row], mask)  # type: ignore[no-any-return]


class DPG(Team):
    """DDPG's, TD3's, MADDPG's, MATD3's."""

    @torch.no_grad()
    def targets(self) -> dict[str, list[float]]:
        first, end = self.span
        slow, noise, acting = self.slow["critic"], {}, {}
        seen = {n: features(slow.trunk(n), g, self.burn_in) for n, g in self.groups.items()}
        for name, group in self.groups.items():
            trunk, _ = self.slow[f"actor {name}"]
            acting[name] = seen[name]
            if not self.policies[name].shares_trunk:
                acting[name] = features(trunk, group, self.burn_in)
            noise[name] = self._target_noise(name, (end - first, group.start.shape[1]))

        def chosen(name: str, place: int, row: int) -> Tensor:
            _, head = self.slow[f"actor {name}"]
            params = self.params(head, name, acting[name], place, row)
            drawn = None if noise[name] is None else noise[name][place - first, row]
            return self._target_action(name, params, drawn)

        found: dict[str, list[float]] = {}
        for name, known in self.known.items():
            found[name] = []
            for d in known:
                own = chosen(name, d.then, d.row)
                view = self.view(name, d.then, d.row, own, seen, chosen)
                least = min(value.item() for value in self.values(slow, name, view))
                reward = d.reward * self.config.reward_scale
                found[name].append(reward + d.discount * least)
        return found

    def _target_noise(self, name: str, shape: tuple[int, int]) -> Tensor | None:
        policy, config = self.policies[name], self.configs[name]
        if config.policy_noise == 0:
            return None
        if isinstance(policy.actions.space, gym.spaces.Box):
            drawn = torch.randn(*shape, policy.actions.features, generator=self.generator)
            return (config.policy_noise * drawn).clamp(-config.noise_clip, config.noise_clip)
        return policy.distribution.noise(shape, self.generator)  # type: ignore[no-any-return]

    def _target_action(self, name: str, params: Tensor, noise: Tensor | None) -> Tensor:
        policy = self.policies[name]
        if isinstance(policy.actions.space, gym.spaces.Box):
            squash = policy.actions.squash
            action = params.tanh() if squash else params
            action = action if noise is None else action + noise
            return action.clamp(-1, 1) if squash else action
        return hard_and_soft(policy, params, noise)[0]

    def actor_loss(self, name: str, heads: Any) -> Tensor:
        """Of one group, judged by the critic's heads after their step; without regularisation."""
        seen = {n: x.detach() for n, x in self.seen.items()}
        others = self.action if self.configs[name].others == "replayed" else self._present
        values = []
        for d in self.known[name]:
            own, _ = self._proposed(name, d.place, d.row)
            view = self.view(name, d.place, d.row, own, seen, others)
            values.append(self.values(heads, name, view)[0])
        return -torch.stack(values).mean()

    def regularised(self, name: str) -> Tensor:
        """The mean square of what a group's head gives, where it is not a forbidden action's."""
        proposed = [self._proposed(name, d.place, d.row)[1] for d in self.known[name]]
        found = [x for params in proposed for x in params.flatten() if x > -1e8]
        return sum(x**2 for x in found) / len(found)  # type: ignore[return-value]

    @functools.cached_property
    def _acting(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Each group's actor's features, and the noise by which it chooses."""
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, group in self.groups.items():
            shape, policy = (self.windows.length, group.start.shape[1]), self.policies[name]
            is_box = isinstance(policy.actions.space, gym.spaces.Box)
            noise = None if is_box else policy.distribution.noise(shape, self.generator)
            found[name] = self.actor_features(name), noise
        return found

    def _proposed(self, name: str, place: int, row: int) -> tuple[Tensor, Tensor]:
        """What one row's actor would do, and what its head gives for it."""
        policy, (acting, noise) = self.policies[name], self._acting[name]
        params = self.params(policy.action_head, name, acting, place, row)
        if noise is None:
            return params.tanh() if policy.actions.squash else params, params
        hard, soft = hard_and_soft(policy, params, noise[place, row])
        return hard + soft - soft.detach(), params

    def _present(self, name: str, place: int, row: int) -> Tensor:
        return self._proposed(name, place, row)[0].detach()


def hard_and_soft(policy: Any, params: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """A choice, or several, or bits, as critics see them, and what stands for its gradient, [F]."""
    space = policy.actions.space
    shifted = params if noise is None else params + noise
    if isinstance(space, gym.spaces.MultiBinary):
        return (shifted > 0).double(), 1 / (1 + (-shifted).exp())
    parts = [shifted]
    if isinstance(space, gym.spaces.MultiDiscrete):
        counts = [int(n) for n in space.nvec.flat]
        parts = [row[:n] for row, n in zip(shifted, counts, strict=True)]
    hard, soft = [], []
    for part in parts:
        hard += [float(i == part.argmax()) for i in range(len(part))]
        weights = (part - part.max()).exp()
        soft.append(weights / weights.sum())
    return torch.tensor(hard), torch.cat(soft)


class Soft(Team):
    """SAC's."""

    def __init__(self, agent: Any, windows: Windows) -> None:
        """Copy an agent's networks, and its temperature."""
        super().__init__(agent, windows)
        self.alpha, (self.name,) = agent.learner.alpha.item(), self.names
        self.policy, self.group = self.policies[self.name], self.groups[self.name]

    def _drawn(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One Box action as critics see it, and its log-density in (-1, 1)."""
        mean, log_std = self.policy.distribution.moments(params)
        u = mean + log_std.exp() * noise
        normal = torch.distributions.Normal(mean, log_std.exp())
        if not self.policy.actions.squash:
            return u, normal.log_prob(u).sum()
        # log(1 - tanh(u)^2) = -2 log cosh u, which does not underflow.
        log_cosh = u.abs() + (-2 * u.abs()).exp().log1p() - math.log(2)
        return u.tanh(), (normal.log_prob(u) + 2 * log_cosh).sum()

    def _noise(self) -> Tensor:
        shape = len(self.known[self.name]), self.policy.actions.features
        return torch.randn(*shape, generator=self.generator)

    @torch.no_grad()
    def targets(self) -> dict[str, list[float]]:
        slow, name = self.slow["critic"], self.name
        seen = features(slow.trunk(name), self.group, self.burn_in)
        acting = features(self.policy.actor_trunk, self.group, self.burn_in)
        noise = None if self.critic.of_choices else self._noise()
        found = []
        for m, d in enumerate(self.known[name]):
            params = self.params(self.policy.action_head, name, acting, d.then, d.row)
            if noise is None:
                given = torch.stack(self.values(slow, name, seen[d.then, d.row]))
                value = sum(
                    p * (least - self.alpha * math.log(p))
                    for p, least in zip(params.exp().tolist(), given.amin(0).tolist(), strict=True)
                    if p > 0
                )
            else:
                action, log_p = self._drawn(params, noise[m])
                view = torch.cat((seen[d.then, d.row], action))
                least = min(v.item() for v in self.values(slow, name, view))
                value = least - self.alpha * log_p.item()
            found.append(d.reward * self.config.reward_scale + d.discount * value)
        return {name: found}

    def actor_loss(self, heads: Any) -> tuple[Tensor, list[float]]:
        """The loss, and each decision's entropy."""
        name, acting = self.name, self.actor_features(self.name)
        noise = None if self.critic.of_choices else self._noise()
        seen, losses, entropies = self.seen[name].detach(), [], []
        for m, d in enumerate(self.known[name]):
            params = self.params(self.policy.action_head, name, acting, d.place, d.row)
            if noise is None:
                given = torch.stack(self.values(heads, name, seen[d.place, d.row])).amin(0).detach()
                terms = [
                    log_p.exp() * (self.alpha * log_p - least)
                    for log_p, least in zip(params, given, strict=True)
                    if log_p.exp() > 0
                ]
                losses.append(sum(terms))
                p = [x for x in params.exp().tolist() if x > 0]
                entropies.append(-sum(x * math.log(x) for x in p))
            else:
                action, log_p = self._drawn(params, noise[m])
                view = torch.cat((seen[d.place, d.row], action))
                value = torch.stack(self.values(heads, name, view)).amin(0)
                losses.append(self.alpha * log_p - value)
                entropies.append(-log_p.item())
        return sum(losses) / len(losses), entropies
