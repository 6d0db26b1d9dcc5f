"""Mutations: small changes to individuals of a population, which selection then judges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

import torch

from recurrent_rl.agent import Agent
from recurrent_rl.architecture import morph
from recurrent_rl.config import Activation, NetConfig
from recurrent_rl.group import AgentGroup
from recurrent_rl.randomness import Random

AnyAgent = TypeVar("AnyAgent", bound=Agent)
Done = dict[str, Any]  # what a mutation writes into the birth of an individual


@dataclass(frozen=True)
class Site:
    """One number in a network's configuration that an architecture mutation may change.

    Attributes:
        part: "encoder_config" or "head_config".
        field: its name there.
        place: which of the field's numbers, where it is a list; None where it is one.
        value: present.

    """

    part: str
    field: str
    place: int | None
    value: int

    def __str__(self) -> str:
        """The name, as in ``encoder.hidden_state_size`` or ``head.hidden_size[0]``."""
        place = "" if self.place is None else f"[{self.place}]"
        return f"{self.part.removesuffix('_config')}.{self.field}{place}"

    def set(self, net_config: NetConfig, recurrent: bool, value: int) -> NetConfig:
        """Return the configuration with another value here."""
        new: Any = value
        if self.place is not None:
            new = list(_widths(net_config, self.part, recurrent))
            new[self.place] = value
        part = getattr(net_config, self.part).replace(**{self.field: new})
        return net_config.replace(**{self.part: part})


def _widths(net_config: NetConfig, part: str, recurrent: bool) -> tuple[int, ...]:
    if part == "encoder_config":
        return net_config.encoder_config.widths(recurrent)
    return net_config.head_config.hidden_size


def width_sites(net_config: NetConfig, recurrent: bool) -> list[Site]:
    """Widths of all hidden layers."""
    sites = [
        Site(part, "hidden_size", i, width)
        for part in ("encoder_config", "head_config")
        for i, width in enumerate(_widths(net_config, part, recurrent))
    ]
    if recurrent:
        width = net_config.encoder_config.hidden_state_size
        sites.append(Site("encoder_config", "hidden_state_size", None, width))
    return sites


def depth_sites(net_config: NetConfig) -> list[Site]:
    """Numbers of residual layers."""
    return [
        Site(part, "residual_layers", None, getattr(net_config, part).residual_layers)
        for part in ("encoder_config", "head_config")
    ]


class Mutations(Random):
    """Change individuals at random: nothing, architecture, weights, activation, hyper-parameters.

    Growing networks changes no output (see ``architecture``). Of an IPPO agent's groups a mutation
    changes one, drawn at random; only ``learn_step`` is common to all.

    Attributes:
        generator: of its random draws.

    """

    def __init__(
        self,
        no_mutation: float,
        architecture: float,
        new_layer_prob: float,
        parameters: float,
        activation: float,
        rl_hp: float,
        mutation_sd: float = 0.1,
        activation_selection: Sequence[str] = ("Tanh", "ReLU", "ELU", "GELU"),
        *,
        mutate_elite: bool = False,
        min_width: int = 16,
        max_width: int = 512,
        max_residual_layers: int = 2,
        rand_seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Set how likely each kind is; the five probabilities are relative to their sum.

        Args:
            no_mutation: of none.
            architecture: of a change of width or depth, of encoder or heads.
            new_layer_prob: that an architecture mutation changes the depth, in [0, 1].
            parameters: of noise on the actor's weights.
            activation: of another activation function in the MLPs.
            rl_hp: of a change of one of the agent's ``hp_config``.
            mutation_sd: deviation of the noise [root mean square of each weight matrix].
            activation_selection: to choose from.
            mutate_elite: also those that were kept for their fitness.
            min_width: layers shrink no further [units],
            max_width: and grow no further.
            max_residual_layers: most layers to add to an encoder or to the heads.
            rand_seed: None takes fresh entropy.
            device: accepted for the convenience of scripts; agents stay where they are.

        Raises:
            ValueError: a number out of range, or an unknown activation.

        """
        self.probabilities = {
            "none": no_mutation,
            "architecture": architecture,
            "parameters": parameters,
            "activation": activation,
            "rl_hp": rl_hp,
        }
        for name, value in {**self.probabilities, "mutation_sd": mutation_sd}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")
        if not sum(self.probabilities.values()):
            raise ValueError(
                f"Mutations: expected a positive probability, got {self.probabilities}"
            )
        if not 0 <= new_layer_prob <= 1:
            raise ValueError(f"new_layer_prob: expected a number in [0, 1], got {new_layer_prob}")
        if not 1 <= min_width <= max_width or max_residual_layers < 0:
            raise ValueError(
                f"Mutations: expected 1 <= min_width <= max_width and max_residual_layers >= 0, "
                f"got {min_width}, {max_width} and {max_residual_layers}"
            )
        known = get_args(Activation)
        for name in activation_selection:
            if name not in known:
                raise ValueError(
                    f"activation_selection: expected names out of {list(known)}, got {name!r}"
                )
        self.new_layer_prob, self.mutation_sd = new_layer_prob, mutation_sd
        self.activation_selection = tuple(activation_selection)
        self.mutate_elite, self.max_residual_layers = mutate_elite, max_residual_layers
        self.min_width, self.max_width = min_width, max_width
        super().__init__(rand_seed)
        self._kinds: dict[str, Callable[[Agent], Done]] = {
            "architecture": self._architecture,
            "parameters": self._parameters,
            "activation": self._activation,
            "rl_hp": self._rl_hp,
        }

    def mutation(self, population: Sequence[AnyAgent]) -> list[AnyAgent]:
        """Return the population with some of its individuals replaced by mutated copies.

        What was done to each stands in its ``mut`` and in its lineage.

        Args:
            population: left as it is; those that nothing is done to are in the next one themselves.

        """
        mutated: list[AnyAgent] = []
        number = max((birth.index for a in population for birth in a.lineage), default=0)
        for agent in population:
            kind = self._kind()
            if kind == "none" or (agent.elite and not self.mutate_elite):
                mutated.append(agent)
                continue
            birth = agent.lineage[-1]
            if birth.mutation is None and birth.steps == agent.steps[-1] and not agent.elite:
                child = agent.clone()
            else:  # it has lived already: the mutant is somebody else
                number += 1
                child = agent.offspring(number)
            child.lineage[-1] = replace(child.lineage[-1], **self._kinds[kind](child))
            mutated.append(child)
        return mutated

    # --- the kinds --------------------------------------------------------------------------

    def _architecture(self, agent: Agent) -> Done:
        name, group = self._group(agent)
        net, recurrent = group.net_config, group.config.recurrent
        deeper = self._draw() < self.new_layer_prob
        changes = self._depths(net) if deeper else self._widths(net, recurrent)
        if not changes:
            return {"mutation": "none (no layer to change)"}
        site, value = changes[self._index(len(changes))]
        morph(group, site.set(net, recurrent, value), self.generator)
        return {"mutation": f"{name}{site} {site.value} -> {value}", "shrunk": value < site.value}

    def _widths(self, net: NetConfig, recurrent: bool) -> list[tuple[Site, int]]:
        """Possible changes, as many that grow as that shrink where both can."""
        amount = (16, 32, 64)[self._index(3)]
        changes: list[tuple[Site, int]] = []
        for site in width_sites(net, recurrent):
            # At most half: what a layer of half its width has forgotten takes long to learn.
            fewer = max(site.value - amount, site.value // 2, self.min_width)
            changes += [(site, value) for value in (site.value + amount, fewer)]
        return [
            (site, value)
            for site, value in changes
            if value < site.value or site.value < value <= self.max_width
        ]

    def _depths(self, net: NetConfig) -> list[tuple[Site, int]]:
        return [
            (site, value)
            for site in depth_sites(net)
            for value in (site.value + 1, site.value - 1)
            if 0 <= value <= max(self.max_residual_layers, site.value)
        ]

    def _parameters(self, agent: Agent) -> Done:
        name, group = self._group(agent)
        changed = [group.policy.encoders[0], group.policy.actor]
        with torch.no_grad():
            for parameter in (p for module in changed for p in module.parameters()):
                noise = torch.randn(parameter.shape, generator=self.generator)
                scale = self.mutation_sd * parameter.square().mean().sqrt()
                parameter.add_(noise.to(parameter.device) * scale)
        return {"mutation": f"{name}weights + {self.mutation_sd:g} rms"}

    def _activation(self, agent: Agent) -> Done:
        name, group = self._group(agent)
        net, recurrent = group.net_config, group.config.recurrent
        # A part without a hidden layer has no activation; nor has a residual recurrent one.
        parts = {site.part for site in width_sites(net, recurrent) if site.place is not None}
        parts |= {
            site.part
            for site in depth_sites(net)
            if site.value > 0 and not (recurrent and site.part == "encoder_config")
        }
        if not parts:
            return {"mutation": "none (no activation to change)"}
        part = sorted(parts)[self._index(len(parts))]
        present = getattr(net, part).activation
        choices = [a for a in self.activation_selection if a != present]
        if not choices:
            return {"mutation": f"none (no other activation than {present})"}
        chosen = choices[self._index(len(choices))]
        changed = getattr(net, part).replace(activation=chosen)
        morph(group, net.replace(**{part: changed}), self.generator)
        where = part.removesuffix("_config")
        return {"mutation": f"{name}{where}.activation {present} -> {chosen}"}

    def _rl_hp(self, agent: Agent) -> Done:
        config = agent.hp_config
        if config is None or not config.parameters:
            return {"mutation": "none (no hp_config)"}
        names = list(config.parameters)
        changed = names[self._index(len(names))]
        name, group = self._group(agent)
        groups = [group]
        if changed == "learn_step":  # all groups of an environment take their steps together
            name, groups = "", list(agent.groups)
        before = getattr(group.config, changed)
        if before is None:
            return {"mutation": f"none ({changed} is None)"}
        after = config.parameters[changed].mutated(before, self.generator)
        for each in groups:
            each.reconfigure(**{changed: after})
        return {"mutation": f"{name}{changed} {before:g} -> {after:g}"}

    # --- drawing ----------------------------------------------------------------------------

    def _group(self, agent: Agent) -> tuple[str, AgentGroup]:
        groups = list(agent.groups)
        i = self._index(len(groups))
        return ("" if len(groups) == 1 else f"{agent.group_names[i]}: "), groups[i]

    def _draw(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def _index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def _kind(self) -> str:
        probabilities = torch.tensor(list(self.probabilities.values()), dtype=torch.float64)
        drawn = int(torch.multinomial(probabilities, 1, generator=self.generator))
        return list(self.probabilities)[drawn]
