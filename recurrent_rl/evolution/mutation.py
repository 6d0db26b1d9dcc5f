"""Mutations: random changes of individuals, in architecture, weights or hyper-parameters."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.evolution.architecture_sites import (
    Site,
    activation_paths,
    depth_sites,
    path_name,
    replace_fields,
    width_sites,
)
from recurrent_rl.evolution.morphing import morph
from recurrent_rl.networks.configs import Activation
from recurrent_rl.randomness import RandomStream

AnyAgent = TypeVar("AnyAgent", bound=Agent)
Change = dict[str, Any]  # fields of the individual's ``Birth`` that say what a mutation did


class Mutations(RandomStream):
    """Change individuals at random: nothing, architecture, weights, activation, hyper-parameters.

    Growing a network changes no output (see ``morphing``). Of an IPPO agent's groups a mutation
    changes one, drawn at random; only ``learn_step`` is common to all.

    Attributes:
        generator: of its random draws.
        probabilities: of the kinds of mutation, relative to their sum.

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
            no_mutation: probability of no change.
            architecture: probability of a change of width or depth, of the encoder or the heads.
            new_layer_prob: probability that an architecture mutation changes the depth, in [0, 1].
            parameters: probability of noise on the actor's weights.
            activation: probability of another activation function in the MLPs or convolutions.
            rl_hp: probability of a change of one hyper-parameter of the agent's ``hp_config``.
            mutation_sd: deviation of the noise [root mean square of each weight matrix].
            activation_selection: activation functions to choose from.
            mutate_elite: also mutate individuals that were kept for their fitness.
            min_width: layers do not shrink below this width [units; half as many channels].
            max_width: layers do not grow beyond this width [units; half as many channels].
            max_residual_layers: most residual layers of an encoder, and of the heads.
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
        self.new_layer_prob, self.mutation_sd = new_layer_prob, mutation_sd
        self.activation_selection = tuple(activation_selection)
        self.mutate_elite, self.max_residual_layers = mutate_elite, max_residual_layers
        self.min_width, self.max_width = min_width, max_width
        self._check_numbers()
        _check_activations(self.activation_selection)
        super().__init__(rand_seed)
        self._kinds: dict[str, Callable[[Agent], Change]] = {
            "architecture": self._change_architecture,
            "parameters": self._add_noise,
            "activation": self._change_activation,
            "rl_hp": self._change_hyperparameter,
        }

    def _check_numbers(self) -> None:
        for name, value in {**self.probabilities, "mutation_sd": self.mutation_sd}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")
        if not sum(self.probabilities.values()):
            raise ValueError(
                f"Mutations: expected a positive probability, got {self.probabilities}"
            )
        if not 0 <= self.new_layer_prob <= 1:
            raise ValueError(
                f"new_layer_prob: expected a number in [0, 1], got {self.new_layer_prob}"
            )
        if not 1 <= self.min_width <= self.max_width or self.max_residual_layers < 0:
            raise ValueError(
                f"Mutations: expected 1 <= min_width <= max_width and max_residual_layers >= 0, "
                f"got {self.min_width}, {self.max_width} and {self.max_residual_layers}"
            )

    def mutation(self, population: Sequence[AnyAgent]) -> list[AnyAgent]:
        """Return the population with some of its individuals replaced by mutated copies.

        Each individual's ``mut`` and its lineage say what was changed.

        Args:
            population: left as it is; individuals without a change are in the result themselves.

        """
        mutated: list[AnyAgent] = []
        number = max((birth.index for a in population for birth in a.lineage), default=0)
        for agent in population:
            kind = self._draw_kind()
            if kind == "none" or (agent.elite and not self.mutate_elite):
                mutated.append(agent)
                continue
            birth = agent.lineage[-1]
            if birth.mutation is None and birth.steps == agent.env_steps and not agent.elite:
                child = agent.clone()
            else:  # it has been trained already, so the mutant is a new individual
                number += 1
                child = agent.offspring(number)
            change = self._kinds[kind](child)
            child.lineage[-1] = replace(child.lineage[-1], **change)
            if not change["mutation"].startswith("none"):
                child.individual.inherited = len(child.fitness)  # tests of what it was before
            mutated.append(child)
        return mutated

    # --- the kinds --------------------------------------------------------------------------

    def _change_architecture(self, agent: Agent) -> Change:
        name, trainer = self._draw_trainer(agent)
        group = trainer.group
        deeper = self._draw_share() < self.new_layer_prob
        changes = self._depths(group) if deeper else self._widths(group)
        if not changes:
            return {"mutation": "none (no layer to change)"}
        site, value = changes[self._draw_index(len(changes))]
        morph(trainer, site.set(group.net_config, value), self.generator)
        return {"mutation": f"{name}{site} {site.value} -> {value}", "shrunk": value < site.value}

    def _widths(self, group: AgentGroup) -> list[tuple[Site, int]]:
        """Return possible changes of widths: one that grows and one that shrinks for each site."""
        amount = (16, 32, 64)[self._draw_index(3)]
        changes: list[tuple[Site, int]] = []
        for site in width_sites(group):
            # Convolutions have fewer channels than other layers have units, and each costs more.
            units = 2 if site.is_channel else 1
            by, most, least = amount // units, self.max_width // units, self.min_width // units
            # To half the width at most: what is lost beyond that takes long to learn again.
            fewer = max(site.value - by, site.value // 2, least, 1)
            changes += [
                (site, value)
                for value in (site.value + by, fewer)
                if value < site.value or site.value < value <= most
            ]
        return changes

    def _depths(self, group: AgentGroup) -> list[tuple[Site, int]]:
        """Return possible changes of depths."""
        return [
            (site, value)
            for site in depth_sites(group)
            for value in (site.value + 1, site.value - 1)
            if 0 <= value <= max(self.max_residual_layers, site.value)
        ]

    def _add_noise(self, agent: Agent) -> Change:
        name, trainer = self._draw_trainer(agent)
        changed = [trainer.policy.encoders[0], trainer.policy.action_head.layers]
        with torch.no_grad():
            for parameter in (p for module in changed for p in module.parameters()):
                if not parameter.requires_grad:  # a user's own network may have frozen some
                    continue
                noise = torch.randn(parameter.shape, generator=self.generator)
                scale = self.mutation_sd * parameter.square().mean().sqrt()
                parameter.add_(noise.to(parameter.device) * scale)
        return {"mutation": f"{name}weights + {self.mutation_sd:g} rms"}

    def _change_activation(self, agent: Agent) -> Change:
        name, trainer = self._draw_trainer(agent)
        group = trainer.group
        paths = activation_paths(group)
        if not paths:
            return {"mutation": "none (no activation to change)"}
        path = paths[self._draw_index(len(paths))]
        present: Any = group.net_config
        for field in path:
            present = getattr(present, field)
        choices = [a for a in self.activation_selection if a != present]
        if not choices:
            return {"mutation": f"none (no other activation than {present})"}
        chosen = choices[self._draw_index(len(choices))]
        changed = replace_fields(group.net_config, path[:-1], {path[-1]: chosen})
        morph(trainer, changed, self.generator)
        return {"mutation": f"{name}{path_name(path)} {present} -> {chosen}"}

    def _change_hyperparameter(self, agent: Agent) -> Change:
        config = agent.hp_config
        if config is None or not config.parameters:
            return {"mutation": "none (no hp_config)"}
        names = list(config.parameters)
        changed = names[self._draw_index(len(names))]
        name, trainer = self._draw_trainer(agent)
        trainers = [trainer]
        if changed == "learn_step":  # all groups of an environment take their steps together
            name, trainers = "", list(agent.trainers.values())
        before = getattr(trainer.config, changed)
        if before is None:
            return {"mutation": f"none ({changed} is None)"}
        after = config.parameters[changed].mutated(before, self.generator)
        for each in trainers:
            each.reconfigure(**{changed: after})
        return {"mutation": f"{name}{changed} {before:g} -> {after:g}"}

    # --- drawing ----------------------------------------------------------------------------

    def _draw_trainer(self, agent: Agent) -> tuple[str, OnPolicyTrainer]:
        """Draw one of an agent's groups; how messages name it, and its trainer."""
        trainers = list(agent.trainers.items())
        name, trainer = trainers[self._draw_index(len(trainers))]
        return ("" if len(trainers) == 1 else f"{name}: "), trainer

    def _draw_share(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def _draw_index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def _draw_kind(self) -> str:
        probabilities = torch.tensor(list(self.probabilities.values()), dtype=torch.float64)
        drawn = int(torch.multinomial(probabilities, 1, generator=self.generator))
        return list(self.probabilities)[drawn]


def _check_activations(names: Sequence[str]) -> None:
    known = get_args(Activation)
    for name in names:
        if name not in known:
            raise ValueError(
                f"activation_selection: expected names out of {list(known)}, got {name!r}"
            )
