"""Mutations: random changes of individuals, in architecture, weights or hyper-parameters."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.trainer import Trainer
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
from recurrent_rl.validation import (
    LAYERS,
    NON_NEGATIVE,
    SEED,
    UNIT,
    WIDTH,
    checked,
    checked_device,
    shown,
)

AnyAgent = TypeVar("AnyAgent", bound=Agent)
Change = dict[str, Any]  # fields of the individual's ``Birth`` that say what a mutation did


class Mutations(RandomStream):
    """Change individuals at random: nothing, architecture, weights, activation, hyper-parameters.

    Growing a network changes no output (see ``morphing``). Of several groups a mutation changes
    one, drawn at random; only ``learn_step`` is common to all.

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
            TypeError: a value of the wrong type.
            ValueError: a number out of range, or an unknown activation.

        """
        given: dict[str, tuple[str, Any]] = {
            "no_mutation": ("none", no_mutation),
            **{
                name: (name, value)
                for name, value in (
                    ("architecture", architecture),
                    ("parameters", parameters),
                    ("activation", activation),
                    ("rl_hp", rl_hp),
                )
            },
        }
        at_least_0 = Annotated[float, NON_NEGATIVE]
        self.probabilities: dict[str, float] = {
            kind: checked(name, value, at_least_0) for name, (kind, value) in given.items()
        }
        self.new_layer_prob: float = checked(
            "new_layer_prob", new_layer_prob, Annotated[float, UNIT]
        )
        self.mutation_sd: float = checked("mutation_sd", mutation_sd, at_least_0)
        self.activation_selection = _checked_activations(activation_selection)
        self.mutate_elite: bool = checked("mutate_elite", mutate_elite, bool)
        self.min_width: int = checked("min_width", min_width, Annotated[int, WIDTH])
        self.max_width: int = checked("max_width", max_width, Annotated[int, WIDTH])
        self.max_residual_layers: int = checked(
            "max_residual_layers", max_residual_layers, Annotated[int, LAYERS]
        )
        self._check_together()
        checked_device(device)
        rand_seed = checked("rand_seed", rand_seed, Annotated[int | None, SEED])
        super().__init__(rand_seed)
        self._kinds: dict[str, Callable[[Agent], Change]] = {
            "architecture": self._change_architecture,
            "parameters": self._add_noise,
            "activation": self._change_activation,
            "rl_hp": self._change_hyperparameter,
        }

    def _check_together(self) -> None:
        if not 0 < sum(self.probabilities.values()) < math.inf:
            raise ValueError(
                f"Mutations: expected a positive probability, got {self.probabilities}"
            )
        if self.min_width > self.max_width:
            raise ValueError(
                f"Mutations: expected min_width <= max_width, got {self.min_width} and "
                f"{self.max_width}"
            )

    def mutation(self, population: Sequence[AnyAgent]) -> list[AnyAgent]:
        """Return the population with some of its individuals replaced by mutated copies.

        Each individual's ``mut`` and its lineage say what was changed.

        Args:
            population: left as it is; individuals without a change are in the result themselves.

        Raises:
            ValueError: an ``hp_config`` with hyper-parameters that the algorithm does not have.

        """
        for agent in population:
            check_hyperparameters(agent)
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
        changed = (p for module in trainer.noisy_modules() for p in module.parameters())
        with torch.no_grad():
            for parameter in changed:
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
        present = _field(group.net_config, path)
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
        if changed in trainer.config.COMMON:
            name, trainers = "", list(agent.trainers.values())
        before = getattr(trainer.config, changed)
        if before is None:
            return {"mutation": f"none ({changed} is None)"}
        after = config.parameters[changed].mutated(before, self.generator)
        for each in trainers:
            each.reconfigure(**{changed: after})
        return {"mutation": f"{name}{changed} {before:g} -> {after:g}"}

    # --- drawing ----------------------------------------------------------------------------

    def _draw_trainer(self, agent: Agent) -> tuple[str, Trainer]:
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


def _checked_activations(names: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(names, Sequence) or isinstance(names, str | bytes):
        raise TypeError(f"activation_selection: expected a list of names, got {shown(names)}")
    chosen: tuple[str, ...] = tuple(
        checked(f"activation_selection[{i}]", name, Activation) for i, name in enumerate(names)
    )
    return chosen


def _field(config: Any, path: Sequence[str]) -> Any:
    for name in path:
        config = getattr(config, name)
    return config


def check_hyperparameters(agent: Agent) -> None:
    """Check that an agent has the hyper-parameters that its ``hp_config`` says may change.

    Raises:
        ValueError: it has not; the message names the algorithm and what it has.

    """
    if agent.hp_config is not None:
        agent.hp_config.check(type(agent).__name__, agent.config_type)


def idle_kinds(mutation: Mutations, population: Sequence[Agent]) -> dict[str, str]:
    """Return the kinds that are drawn and can change nothing in any individual, and why."""
    wanted = {kind for kind, share in mutation.probabilities.items() if share}
    groups = [group for agent in population for group in agent.groups]
    idle: dict[str, str] = {}
    if "rl_hp" in wanted and not any(_changeable(agent) for agent in population):
        idle["rl_hp"] = (
            "no individual has hyper-parameters that may change; pass hp_config to "
            "create_population, or rl_hp=0"
        )
    if "activation" in wanted and not any(
        chosen != _field(group.net_config, path)
        for group in groups
        for path in activation_paths(group)
        for chosen in mutation.activation_selection
    ):
        idle["activation"] = (
            "there is no activation to change, or no other to change to; give "
            "activation_selection, or activation=0"
        )
    if "parameters" in wanted and mutation.mutation_sd == 0:
        idle["parameters"] = "their deviation mutation_sd is 0; make it larger, or parameters=0"
    deeper, wider = mutation.new_layer_prob > 0, mutation.new_layer_prob < 1
    if "architecture" in wanted and not any(
        (deeper and (mutation.max_residual_layers or any(s.value for s in depth_sites(group))))
        or (wider and width_sites(group))
        for group in groups
    ):
        idle["architecture"] = "there is no layer to change; pass architecture=0"
    return idle


def _changeable(agent: Agent) -> bool:
    """Whether any hyper-parameter of an agent may change."""
    names = () if agent.hp_config is None else agent.hp_config.parameters
    configs = [trainer.config for trainer in agent.trainers.values()]
    return any(getattr(config, name) is not None for config in configs for name in names)
