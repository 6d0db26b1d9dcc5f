"""The site's tables are the code's: every option has a row with its default, range and meaning."""

import importlib.util
import inspect
import operator
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import recurrent_rl
from recurrent_rl.algorithms import configs, off_policy_configs, schedules
from recurrent_rl.aliases import AGILERL, CLEANRL, STABLE_BASELINES3
from recurrent_rl.networks import configs as network_configs
from recurrent_rl.validation import Config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def hook(name: str) -> ModuleType:
    """One of the site's hooks, which are no part of the package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SCHEDULES = '`"constant"`, `"linear"`, `"cosine"`, number in [0, 1], or a function'
tables = hook("tables")
CLASSES = {
    name: cls
    for module in (configs, off_policy_configs, schedules, network_configs)
    for name, cls in vars(module).items()
    if isinstance(cls, type) and issubclass(cls, Config) and cls is not Config
}


def rows(text: str) -> dict[str, list[str]]:
    """Cells by the first, of all tables."""
    lines = [
        re.split(r"(?<!\\) \| ", line[2:-2]) for line in text.splitlines() if line[:3] == "| `"
    ]
    return {cells[0].strip("`"): cells[1:] for cells in lines}


def test_the_page_of_options_has_every_field_of_every_configuration() -> None:
    page = (DOCS / "options.md").read_text()
    named = ", ".join(found for kind, found in tables.MARK.findall(page) if kind == "options")
    shown = named.split(", ")
    assert len(shown) == len(set(shown))
    # A field is declared by a class on the page, whichever of the classes has it.
    for name, cls in CLASSES.items():
        for field in cls.names():
            owners = [
                owner.__name__
                for owner in cls.__mro__
                if field in vars(owner).get("__annotations__", {})
            ]
            assert owners[0] in shown, (name, field)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_field_has_a_row_with_a_meaning(name: str) -> None:
    cls = CLASSES[name]
    found = rows(tables.options(name))
    declared = [field for field in cls.names() if field in cls.__annotations__]
    assert list(found) == declared
    for default, allowed, meaning in found.values():
        assert default
        assert allowed
        assert len(meaning) > 5


@pytest.mark.parametrize(
    ("cls", "option", "expected"),
    [
        ("PPOConfig", "lr", ["`0.001`", "number above 0", "Adam's step size."]),
        ("PPOConfig", "gamma", ["`0.99`", "number in [0, 1]", "discount factor"]),
        ("PPOConfig", "target_kl", ["`None`", "number above 0 or None", "stop a rollout's"]),
        ("ScheduleConfig", "lr_schedule", ['`"constant"`', SCHEDULES, "what step sizes are"]),
        ("OffPolicyConfig", "tau", ["`0.005`", "number in (0, 1]", "share by which"]),
        ("OffPolicyConfig", "memory_size", ["`100_000`", "whole number from 1", "environment st"]),
        ("SACConfig", "target_entropy", ["`None`", "number or None", "that the temperature aims"]),
        ("EncoderConfig", "forget_bias", ["`0.0`", "number in [-10, 10]", "initial bias of an"]),
        ("HeadConfig", "hidden_size", ["`[64]`", "list: whole number in [1, 1,000,000], each", ""]),
        ("NetConfig", "head_config", ["`HeadConfig()`", "dictionary, see `HeadConfig` below", ""]),
        ("TD3Config", "critics", ["`2`", "whole number in [1, 100]", "heads of the critic"]),
        ("PolicyConfig", "squash_output", ["`None`", "True, False, or None", "tanh-squash"]),
    ],
)
def test_rows_by_hand(cls: str, option: str, expected: list[str]) -> None:
    default, allowed, meaning = rows(tables.options(cls))[option]
    assert [default, allowed] == expected[:2]
    assert meaning.startswith(expected[2])


def test_an_option_without_a_meaning_stops_the_build() -> None:
    class Silent(Config):
        """Nothing is said of its fields."""

    with pytest.raises(ValueError, match=r"Silent\.size: expected a docstring to say"):
        tables.meaning(Silent, "size")
    with pytest.raises(ValueError, match="expected the name of a configuration class, got 'Mine'"):
        tables.options("Mine")


def test_bars_and_stars_are_no_markup_outside_of_code() -> None:
    assert tables.cell("2**3 | `a | *b`") == r"2\*\*3 \| `a | *b`"


def test_marks_become_tables() -> None:
    page = "Before\n\n<!-- options: MlpConfig -->\n\nbetween\n\n<!-- aliases: CLEANRL -->\n\nafter"
    text = tables.on_page_markdown(page, page=None, config=None, files=None)
    assert "<!--" not in text
    assert text.index("Before") < text.index("| `layer_norm` |") < text.index("between")
    assert text.index("between") < text.index("| `num_steps` | `learn_step` |")


@pytest.mark.parametrize(
    ("page", "name", "library"),
    [
        ("stable_baselines3", "STABLE_BASELINES3", STABLE_BASELINES3),
        ("cleanrl", "CLEANRL", CLEANRL),
        ("agilerl", "AGILERL", AGILERL),
    ],
)
def test_migration_pages_have_their_librarys_names(page: str, name: str, library: Any) -> None:
    text = (DOCS / "migration" / f"{page}.md").read_text()
    assert f"<!-- aliases: {name} -->" in text
    assert rows(tables.alias_table(name)).keys() == library.keys()
    # Names that are said to be the same there and here are ours.
    options = {field for cls in CLASSES.values() for field in cls.names()}
    for sentence in re.findall(r"The same there and here: (.*?)\.", text, re.S):
        same = re.findall(r"`(\w+)`", sentence)
        assert same
        assert set(same) <= options | {"seed", "device", "num_envs"}


def test_every_tuned_setting_is_shown() -> None:
    assert len(tables.tuned().splitlines()) == 2 + len(tables.TUNED)
    assert "head hidden_size=[64]" in tables.tuned()


def test_every_public_name_is_in_the_reference() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    configured = {cls for cls in recurrent_rl.__all__ if cls in CLASSES}
    renamed = {"collect_rollouts", "train_multi_agent_on_policy", "train_multi_agent_off_policy"}
    for name in recurrent_rl.__all__:
        if name in configured | renamed:
            assert f"`{name}`" in pages, name
        else:
            assert f"::: recurrent_rl.{name}\n" in pages, name


def test_the_reference_shows_members_that_exist() -> None:
    for page in (DOCS / "api").glob("*.md"):
        for block in re.split(r"^::: ", page.read_text(), flags=re.M)[1:]:
            name = block.split("\n", 1)[0].removeprefix("recurrent_rl.")
            value = operator.attrgetter(name)(recurrent_rl)
            for member in re.findall(r"^        - (\w+)$", block, re.M):
                known = {field for owner in inspect.getmro(value) for field in vars(owner)}
                assert member in known | set(getattr(value, "__annotations__", {})), (name, member)


def test_docstrings_become_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe", reason="extra: docs")
    markdown = hook("docstrings").markdown
    text = markdown(
        "Of [*shape].\n\n>>> f(2 ** 3)\n8\n\nReturns:\n    one thing, which\n    is long.\n"
    )
    assert text == (
        "Of [\\*shape].\n\n```python\n>>> f(2 ** 3)\n8\n```\n\n"
        "Returns:\n    one thing, which\n        is long.\n"
    )
    named = "Returns:\n    one: a thing.\n    other: another.\n"
    assert markdown(named) == named
