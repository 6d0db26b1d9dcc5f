"""Every snippet of the README and of the site runs as printed, page by page.

The blocks of a page run one after another in one namespace, as a reader would paste them, in an
empty directory. Only lengths are cut: each number of 10,000 or more is a number of steps, and
becomes 500, so that all of training happens, but not for long; rollouts of 1,024 steps have 64;
tests of 10 or 100 episodes play 2, of 20 one; films show one; of three seeds there are two; and
demonstrations are gone through twice. Nothing else of the text is changed.
"""

import gc
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from recurrent_rl import MultiAgentVectorEnv, probe_memory
from recurrent_rl.cli.main import main
from recurrent_rl.training import train as training

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LONG = re.compile(r"(?<![\w.])(?:\d{1,3}(?:_\d{3})+|\d{5,})(?![\w.])")


def blocks(page: str, *languages: str) -> list[tuple[int, str]]:
    """The line before, and the text, of a page's blocks of some languages."""
    text = (ROOT / page).read_text()
    return [
        (text.count("\n", 0, found.start()) + 1, found[2])
        for found in FENCE.finditer(text)
        if found[1] in languages
    ]


def shorter(code: str) -> str:
    """Cut the steps of training and the episodes of tests."""
    code = LONG.sub(lambda n: "500" if int(n[0]) >= 10_000 else n[0], code)
    code = re.sub(r"(learn_step=|\"LEARN_STEP\": )1024\b", r"\g<1>64", code)
    code = re.sub(r"(evaluate\(\w+(?:\(\))?, (?:episodes=)?)100?\b", r"\g<1>2", code)
    code = code.replace("for seed in range(3)", "for seed in range(2)")
    code = re.sub(r"(clone_behaviour\(\w+, \w+, epochs=)\d+", r"\g<1>2", code)
    code = re.sub(r"(film\(.*, episodes=)2\b", r"\g<1>1", code)
    return re.sub(r"\bloop=10\b", "loop=1", code)


WITH_CODE = [name for name in NAMES if blocks(name, "python")]


@pytest.fixture
def _shorter_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests within ``train`` play 1 episode, not 20, and probes 2; unless the page says more."""
    defaults = training.train.__kwdefaults__
    assert defaults["eval_episodes"] == 20
    monkeypatch.setitem(defaults, "eval_episodes", 1)
    monkeypatch.setitem(probe_memory.__kwdefaults__, "episodes", 2)
    yield
    gc.collect()  # workers of vectors that a page has left open end here


@pytest.mark.usefixtures("_shorter_tests")
@pytest.mark.parametrize("page", WITH_CODE)
def test_snippets_run_as_printed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("mpe2", "pettingzoo"):
        if any(
            re.search(rf"(from|import) {package}\b", code) for _, code in blocks(page, "python")
        ):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        # The same line numbers as on the page, for tracebacks.
        exec(compile("\n" * line + shorter(code), str(ROOT / page), "exec"), namespace)
    torch.set_num_threads(threads)
    for value in namespace.values():
        if isinstance(value, gym.vector.VectorEnv | MultiAgentVectorEnv):
            value.close()


# What makes a command shorter, unless it says itself how long it is.
SHORT = {
    "train": {"--total-steps": "250", "--num-envs": "2", "--eval-episodes": "1"},
    "evaluate": {"--episodes": "1"},
}


def commands(page: str) -> list[list[str]]:
    """The words of a page's commands of this package, behind the program's name."""
    lines = [line for _, code in blocks(page, "sh") for line in code.splitlines()]
    words = [shlex.split(shorter(line).removeprefix("python -m ")) for line in lines]
    return [line[1:] for line in words if line[:1] == ["recurrent_rl"]]


@pytest.mark.usefixtures("_shorter_tests")
@pytest.mark.parametrize("page", [name for name in NAMES if commands(name)])
def test_commands_run_as_printed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        for option, value in SHORT.get(words[0], {}).items():
            if option not in words:
                words += [option, value]
        assert main(words) == 0, (words, capsys.readouterr().err)


@pytest.mark.parametrize("page", NAMES)
def test_python_is_formatted_as_the_code_is(page: str) -> None:
    """At most 100 columns, and what an editor would read."""
    for line, code in blocks(page, "python"):
        compile("\n" * line + code, page, "exec")
        assert max(map(len, code.splitlines())) <= 100, f"{page}:{line}"


def test_only_steps_of_training_are_cut() -> None:
    code = "PPO(lr=2.5e-4, learn_step=1024, total_steps=100_000)\ntrain(agent, env, 100000)"
    assert shorter(code) == "PPO(lr=2.5e-4, learn_step=64, total_steps=500)\n" + (
        "train(agent, env, 500)"
    )
    assert shorter("agent.evaluate(env, 100), 100, x.test(e, loop=10)") == (
        "agent.evaluate(env, 2), 100, x.test(e, loop=1)"
    )
    assert shorter("a.evaluate(make_env(), 10, seed=0)") == "a.evaluate(make_env(), 2, seed=0)"


@pytest.mark.parametrize("page", NAMES)
def test_commands_and_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"(?:benchmarks|tutorials|tests)/[\w/]+\.py", text):
        assert (ROOT / name).is_file(), name
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert module.split(".")[0] in ("pip", "pytest", "recurrent_rl"), module
    targets = set(re.findall(r"^([a-z0-9]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"(?:^|`)make ([a-z0-9]+)", text, re.M):
        assert target in targets, target
    folders = "|".join(p.name for p in (ROOT / "recurrent_rl").iterdir() if p.is_dir())
    for name in re.findall(rf"`((?:{folders})/\w+\.py)`", text):
        assert (ROOT / "recurrent_rl" / name).is_file(), name
    # Bare names, as in the paragraph on what else learns from a replay, are of the algorithms.
    for name in re.findall(r"`(\w+_update\.py)`", text):
        assert (ROOT / "recurrent_rl" / "algorithms" / name).is_file(), name


def test_the_readme_fits_a_screen_or_three() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page: str) -> None:
    """MkDocs checks those of the site, headings included; these are the files."""
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", (ROOT / page).read_text()):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), link
