"""What a population knows of one of its individuals; it travels with the agent.

``recurrent_rl.evolution`` writes it; an agent that belongs to no population has an empty one.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from recurrent_rl.algorithms.search_space import HyperparameterConfig


@dataclass(frozen=True)
class Birth:
    """How an individual of a population came to be.

    Attributes:
        index: its number, never used again in the same population.
        parent: its parent's; None in the first generation.
        steps: environment steps that its ancestors and it had trained for then.
        fitness: its parent's latest.
        mutation: what was changed in it; None: nothing.
        shrunk: a network was made smaller, which may cost fitness.
        lost: how much, as the training functions measure it before they go on; None where that was
            not measured.

    """

    index: int
    parent: int | None = None
    steps: int = 0
    fitness: float | None = None
    mutation: str | None = None
    shrunk: bool = False
    lost: float | None = None


@dataclass
class Individual:
    """An agent's part in a population.

    Attributes:
        lineage: its ancestors' births, from the first generation on, and its own at the end.
        elite: kept from the last generation for its fitness; mutations leave it alone.
        hp_config: which hyper-parameters mutations may change; None for none.
        inherited: so many results at the beginning of ``fitness`` are ancestors', or its own from
            before a mutation.

    """

    lineage: list[Birth] = field(default_factory=lambda: [Birth(0)])
    elite: bool = False
    hp_config: HyperparameterConfig | None = None
    inherited: int = 0

    def to_data(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "lineage": [asdict(birth) for birth in self.lineage],
            "elite": self.elite,
            "hp_config": None if self.hp_config is None else self.hp_config.to_dict(),
            "inherited": self.inherited,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Individual":
        """Rebuild what ``to_data`` described."""
        hp = data["hp_config"]
        return cls(
            [Birth(**birth) for birth in data["lineage"]],
            data["elite"],
            None if hp is None else HyperparameterConfig.from_dict(hp),
            data.get("inherited", 0),
        )


class InPopulation:
    """Whoever has a part in a population, and is asked about it directly.

    Attributes:
        individual: that part.
        fitness: results of all tests, ancestors' included, in order.

    """

    individual: Individual
    fitness: list[float]

    @property
    def index(self) -> int:
        """Number of this individual in its population."""
        return self.lineage[-1].index

    @property
    def mut(self) -> str:
        """What the last mutation changed."""
        return self.lineage[-1].mutation or "none"

    @property
    def own_fitness(self) -> list[float]:
        """Results of its own tests: since its birth, or since it was mutated."""
        return self.fitness[self.individual.inherited :]

    @property
    def lineage(self) -> list[Birth]:
        """Births of its ancestors, from the first generation on, and its own at the end."""
        return self.individual.lineage

    @lineage.setter
    def lineage(self, births: list[Birth]) -> None:
        self.individual.lineage = births

    @property
    def elite(self) -> bool:
        """Whether it was kept from the last generation for its fitness."""
        return self.individual.elite

    @elite.setter
    def elite(self, kept: bool) -> None:
        self.individual.elite = kept

    @property
    def hp_config(self) -> HyperparameterConfig | None:
        """Which hyper-parameters mutations may change; None for none."""
        return self.individual.hp_config

    @hp_config.setter
    def hp_config(self, config: HyperparameterConfig | None) -> None:
        self.individual.hp_config = config
