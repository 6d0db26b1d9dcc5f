"""Mutations: small changes to individuals of a population, which selection then judges."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.evolution.morphing import morph
from recurrent_rl.networks.configs import CONVOLUTIONS, Activation, NetConfig
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.randomness import RandomStream

AnyAgent = TypeVar("AnyAgent", bound=Agent)
Done = dict[str, Any]  # what a mutation writes into the birth of an individual


@dataclass(frozen=True)
class Site:
    """One number in a network's configuration that an architecture mutation may change.

    Attributes:
        path: to the field, as in ("encoder_config", "cnn_config", "channel_size").
        place: which of the field's numbers, where it is a list; None where it is one.
        value: present.
        lists: the field's numbers, and those of fields that are written with it, None resolved.

    """

    path: tuple[str, ...]
    place: int | None
    value: int
    lists: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """The name, as in ``encoder.hidden_state_size`` or ``head.hidden_size[0]``."""
        return path_name(self.path) + ("" if self.place is None else f"[{self.place}]")

    @property
    def is_channel(self) -> bool:
        """Whether it counts channels of a convolution."""
        return self.path[-1] == "channel_size"

    def set(self, net_config: NetConfig, value: int) -> NetConfig:
        """Return the configuration with another value here."""
        *parts, name = self.path
        changes: dict[str, Any] = {name: value}
        if self.place is not None:
            numbers = list(self.lists[name])
            numbers[self.place] = value
            changes = {**self.lists, name: tuple(numbers)}
        changed: NetConfig = _replaced(net_config, parts, changes)
        return changed


def path_name(path: Sequence[str]) -> str:
    """Return a field's name, as in ``encoder.cnn_config.channel_size``."""
    return ".".join((path[0].removesuffix("_config"), *path[1:]))


def _replaced(config: Any, parts: Sequence[str], changes: Mapping[str, Any]) -> Any:
    """Replace fields of a configuration within configurations."""
    if parts:
        changes = {parts[0]: _replaced(getattr(config, parts[0]), parts[1:], changes)}
    return config.replace(**changes)


def _is_built_in(group: AgentGroup) -> bool:
    """Whether any encoder is, so that ``encoder_config`` describes something."""
    return any(isinstance(encoder, Encoder) for encoder in group.policy.encoders)


def _has_vector_mlp(group: AgentGroup) -> bool:
    config, codec = group.net_config.encoder_config, group.policy.codec
    return _is_built_in(group) and config.vector_space_mlp and codec.features > 0


def _convolutions(group: AgentGroup) -> set[tuple[tuple[int, int, int], ...]]:
    """Return the layers (channels, kernel, stride) of images; more than one, where they differ."""
    if not _is_built_in(group):
        return set()
    config = group.net_config.encoder_config.cnn_config
    return {config.layers(*shape[1:]) for shape in group.policy.codec.image_shapes} - {()}


def _list_sites(path: tuple[str, ...], lists: Mapping[str, tuple[int, ...]]) -> list[Site]:
    return [Site(path, i, value, lists) for i, value in enumerate(lists[path[-1]])]


def width_sites(group: AgentGroup) -> list[Site]:
    """Widths of all hidden layers, and channels of convolutions.

    But for those that cannot change without changing what the policy does, or not well (see
    ``architecture``): where a LayerNorm follows, and what state-dependent exploration reads.
    Channels of images that the defaults give different convolutions stay as well: the configuration
    has only one list for all of them.
    """
    encoder, head = group.net_config.encoder_config, group.net_config.head_config
    recurrent, of_encoder = group.config.recurrent, ("encoder_config",)
    sites: list[Site] = []
    if _is_built_in(group):
        hidden = encoder.widths(recurrent, bool(group.policy.codec.image_shapes))
        if not encoder.layer_norm:
            sites += _list_sites((*of_encoder, "hidden_size"), {"hidden_size": hidden})
        sites += _part_sites(group)
        if recurrent and not encoder.core_layer_norm:
            path = (*of_encoder, "hidden_state_size")
            sites.append(Site(path, None, encoder.hidden_state_size))
    if not head.layer_norm:
        sites += _list_sites(("head_config", "hidden_size"), {"hidden_size": head.hidden_size})
    explored = _explored(group)
    return [site for site in sites if str(site) != explored]


def _part_sites(group: AgentGroup) -> list[Site]:
    """Widths within what is made of each image, and of vectors with an MLP of their own."""
    config = group.net_config.encoder_config
    sites: list[Site] = []
    convolutions, vector_mlp = _convolutions(group), _has_vector_mlp(group)
    if len(convolutions) == 1:
        (layers,) = convolutions
        lists = dict(zip(CONVOLUTIONS, zip(*layers, strict=True), strict=True))
        sites += _list_sites(("encoder_config", "cnn_config", "channel_size"), lists)
    normalised = vector_mlp and config.mlp_config.layer_norm
    if vector_mlp and not normalised:
        lists = {"hidden_size": config.mlp_config.hidden_size}
        sites += _list_sites(("encoder_config", "mlp_config", "hidden_size"), lists)
    if (convolutions or vector_mlp) and not normalised:
        sites.append(Site(("encoder_config", "latent_dim"), None, config.latent_dim))
    return sites


def _explored(group: AgentGroup) -> str | None:
    """Name the width of what state-dependent exploration reads; None without any."""
    encoder, head = group.net_config.encoder_config, group.net_config.head_config
    if not group.policy.action_head.distribution.latents:
        return None
    if head.hidden_size:
        return f"head.hidden_size[{len(head.hidden_size) - 1}]"
    if not isinstance(group.policy.encoders[0], Encoder):
        return None
    if group.config.recurrent:
        return "encoder.hidden_state_size"
    hidden = encoder.widths(False, bool(group.policy.codec.image_shapes))
    return f"encoder.hidden_size[{len(hidden) - 1}]" if hidden else "encoder.latent_dim"


def depth_sites(group: AgentGroup) -> list[Site]:
    """Numbers of residual layers."""
    parts = ["encoder_config"] if _is_built_in(group) else []
    return [
        Site((part, "residual_layers"), None, getattr(group.net_config, part).residual_layers)
        for part in (*parts, "head_config")
    ]


def activation_paths(group: AgentGroup) -> list[tuple[str, ...]]:
    """Paths of the activations that a network has."""
    encoder, head = group.net_config.encoder_config, group.net_config.head_config
    recurrent = group.config.recurrent
    paths: list[tuple[str, ...]] = []
    if _is_built_in(group):
        hidden = encoder.widths(recurrent, bool(group.policy.codec.image_shapes))
        # A residual recurrent layer has none.
        if hidden or (encoder.residual_layers and not recurrent):
            paths.append(("encoder_config", "activation"))
    if head.hidden_size or head.residual_layers:
        paths.append(("head_config", "activation"))
    if _convolutions(group):
        paths.append(("encoder_config", "cnn_config", "activation"))
    if _has_vector_mlp(group):
        paths.append(("encoder_config", "mlp_config", "activation"))
    return paths


class Mutations(RandomStream):
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
            activation: of another activation function in the MLPs or convolutions.
            rl_hp: of a change of one of the agent's ``hp_config``.
            mutation_sd: deviation of the noise [root mean square of each weight matrix].
            activation_selection: to choose from.
            mutate_elite: also those that were kept for their fitness.
            min_width: layers shrink no further [units],
            max_width: and grow no further. A channel of a convolution counts as two units.
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
            if birth.mutation is None and birth.steps == agent.env_steps and not agent.elite:
                child = agent.clone()
            else:  # it has trained already: the mutant is somebody else
                number += 1
                child = agent.offspring(number)
            child.lineage[-1] = replace(child.lineage[-1], **self._kinds[kind](child))
            mutated.append(child)
        return mutated

    # --- the kinds --------------------------------------------------------------------------

    def _architecture(self, agent: Agent) -> Done:
        name, trainer = self._trainer(agent)
        group = trainer.group
        deeper = self._draw() < self.new_layer_prob
        changes = self._depths(group) if deeper else self._widths(group)
        if not changes:
            return {"mutation": "none (no layer to change)"}
        site, value = changes[self._index(len(changes))]
        morph(trainer, site.set(group.net_config, value), self.generator)
        return {"mutation": f"{name}{site} {site.value} -> {value}", "shrunk": value < site.value}

    def _widths(self, group: AgentGroup) -> list[tuple[Site, int]]:
        """Possible changes, as many that grow as that shrink where both can."""
        amount = (16, 32, 64)[self._index(3)]
        changes: list[tuple[Site, int]] = []
        for site in width_sites(group):
            # Convolutions have fewer channels than other layers units, and each does more.
            units = 2 if site.is_channel else 1
            by, most, least = amount // units, self.max_width // units, self.min_width // units
            # At most half: what a layer of half its width has forgotten takes long to learn.
            fewer = max(site.value - by, site.value // 2, least, 1)
            changes += [
                (site, value)
                for value in (site.value + by, fewer)
                if value < site.value or site.value < value <= most
            ]
        return changes

    def _depths(self, group: AgentGroup) -> list[tuple[Site, int]]:
        return [
            (site, value)
            for site in depth_sites(group)
            for value in (site.value + 1, site.value - 1)
            if 0 <= value <= max(self.max_residual_layers, site.value)
        ]

    def _parameters(self, agent: Agent) -> Done:
        name, trainer = self._trainer(agent)
        changed = [trainer.policy.encoders[0], trainer.policy.action_head.layers]
        with torch.no_grad():
            for parameter in (p for module in changed for p in module.parameters()):
                if not parameter.requires_grad:  # a user's own network may have frozen some
                    continue
                noise = torch.randn(parameter.shape, generator=self.generator)
                scale = self.mutation_sd * parameter.square().mean().sqrt()
                parameter.add_(noise.to(parameter.device) * scale)
        return {"mutation": f"{name}weights + {self.mutation_sd:g} rms"}

    def _activation(self, agent: Agent) -> Done:
        name, trainer = self._trainer(agent)
        group = trainer.group
        paths = activation_paths(group)
        if not paths:
            return {"mutation": "none (no activation to change)"}
        path = paths[self._index(len(paths))]
        present: Any = group.net_config
        for field in path:
            present = getattr(present, field)
        choices = [a for a in self.activation_selection if a != present]
        if not choices:
            return {"mutation": f"none (no other activation than {present})"}
        chosen = choices[self._index(len(choices))]
        changed = _replaced(group.net_config, path[:-1], {path[-1]: chosen})
        morph(trainer, changed, self.generator)
        return {"mutation": f"{name}{path_name(path)} {present} -> {chosen}"}

    def _rl_hp(self, agent: Agent) -> Done:
        config = agent.hp_config
        if config is None or not config.parameters:
            return {"mutation": "none (no hp_config)"}
        names = list(config.parameters)
        changed = names[self._index(len(names))]
        name, trainer = self._trainer(agent)
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

    def _trainer(self, agent: Agent) -> tuple[str, OnPolicyTrainer]:
        trainers = list(agent.trainers.items())
        name, trainer = trainers[self._index(len(trainers))]
        return ("" if len(trainers) == 1 else f"{name}: "), trainer

    def _draw(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def _index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def _kind(self) -> str:
        probabilities = torch.tensor(list(self.probabilities.values()), dtype=torch.float64)
        drawn = int(torch.multinomial(probabilities, 1, generator=self.generator))
        return list(self.probabilities)[drawn]
