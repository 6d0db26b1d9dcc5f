"""Exported files against the agents that they are of, and what is refused."""

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from support.spaces_of import samples
from torch import Tensor, nn

from recurrent_rl import (
    DDPG,
    DQN,
    IPPO,
    MADDPG,
    MAPPO,
    MATD3,
    PPO,
    SAC,
    TD3,
    ExportError,
    HiddenState,
)

SPACES: dict[str, gym.Space[Any]] = {
    "vector": Box(-3, 7, (3,), np.float64),
    "dict": Dict(
        camera=Box(0, 255, (8, 8, 3), np.uint8),
        at=Tuple([Box(-np.inf, np.inf, (2,)), Discrete(3, start=-1)]),
        held=MultiBinary(2),
    ),
    "image": Box(0, 255, (8, 8, 3), np.uint8),
    "index": Discrete(4, start=1),
}
ACTIONS: dict[str, gym.Space[Any]] = {
    "box": Box(-2, np.array([[1, 2], [3, 4]], np.float32)),
    "bounds": Box(np.array([-0.1, 0]), np.array([0.1, 0.3]), dtype=np.float64),
    "whole": Box(-3, 9, (2,), np.int16),
    "choice": Discrete(4, start=2),
    "choices": MultiDiscrete([[2, 3], [4, 1]], start=[[1, -1], [0, 5]]),
    "bits": MultiBinary((2, 2)),
}


class Case(NamedTuple):
    """An agent, and the kind of file that it is exported into."""

    kind: Any
    seen: str
    action: str
    cell: str | None
    options: Mapping[str, Any] = {}
    encoder: Mapping[str, Any] = {}
    form: str = "pt2"


# Each cell with each kind of space, and each algorithm, action and extra input at least once.
CASES = [
    Case(
        PPO,
        "dict",
        "box",
        "lstm",
        {
            "normalize_obs": True,
            "previous_action": True,
            "previous_reward": True,
            "reward_scale": 0.5,
            "share_encoders": False,
        },
        form="onnx",
    ),
    Case(PPO, "vector", "choice", "gru", {"normalize_obs": True}, form="onnx"),
    Case(PPO, "image", "bits", None, {"previous_action": True}, {"layer_norm": True}, form="onnx"),
    Case(PPO, "image", "choices", "lstm", {"normalize_obs": True}),
    Case(DQN, "vector", "choice", "mingru", {"dueling": True}, form="onnx"),
    Case(TD3, "dict", "choices", None),
    Case(SAC, "vector", "box", "lstm", {"previous_action": True}, {"num_layers": 2}),
    Case(SAC, "image", "choice", "mingru", {}, {"core_layer_norm": True, "core_residual": True}),
    Case(DDPG, "vector", "bounds", None, {"squash_output": False}),
    Case(IPPO, "index", "whole", "lstm", {"agent_id_input": True, "previous_reward": True}),
    Case(MAPPO, "index", "choices", "lru", {"agent_id_input": "critic"}, form="onnx"),
    Case(MATD3, "index", "whole", None),
    Case(MADDPG, "vector", "choice", "lstm", {"agent_id_input": True}),
]
TEAMS = (IPPO, MAPPO, MADDPG, MATD3)


def names_of(case: Case) -> list[str]:
    """Agents of one team: two that share a policy, and in IPPO a third with one of its own."""
    return ["bob_0", "bob_1", "fred_0"] if case.kind is IPPO else ["bob_0", "bob_1"]


def name_of(case: Case) -> str:
    return f"{case.kind.__name__}-{case.seen}-{case.action}-{case.cell}"


def built(case: Case) -> Any:
    encoder = {"hidden_state_size": 5, "hidden_size": [6], "latent_dim": 7, **case.encoder}
    options = {"recurrent": case.cell is not None, "seed": 0, **case.options}
    if case.cell is not None:
        encoder["cell"] = case.cell
    shapes = {"encoder_config": encoder, "head_config": {"hidden_size": [6]}}
    seen, action = SPACES[case.seen], ACTIONS[case.action]
    if case.kind in TEAMS:
        names = names_of(case)
        every = dict.fromkeys(names, seen), dict.fromkeys(names, action)
        agent = case.kind(*every, names, shapes, **options)
    else:
        agent = case.kind(seen, action, shapes, **options)
    for i, group in enumerate(agent.groups):
        draw_weights(group.policy, i)
        know(group.policy)
    return agent


def draw_weights(policy: Any, seed: int) -> None:
    """Weights that make much of all that is seen, without numbers so large that rounding shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn / math.sqrt(max(parameter[0].numel(), 4)))


def know(policy: Any) -> None:
    """Give statistics of observations, in which one number has never varied."""
    layout = policy.codec.layout
    stored = layout.check(samples(layout.space, (20,), seed=1), 20)
    if not layout.nested and layout.array_dtype.kind == "f":
        stored[:, 0] = 1.5
    exists = torch.ones(1, 20, dtype=torch.bool)
    policy.preprocessor.update(layout.tensor(stored)[None], exists)


class File:
    """An exported file, read as somebody without this package does."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".onnx":
            session = onnxruntime.InferenceSession(path)
            text = session.get_modelmeta().custom_metadata_map["recurrent_rl.json"]
            self.run = lambda given: session.run(None, given)
        else:
            extra = {"recurrent_rl.json": ""}
            module = torch.export.load(path, extra_files=extra).module()
            text = extra["recurrent_rl.json"]
            self.run = lambda given: [
                x.numpy() for x in module(*map(torch.from_numpy, given.values()))
            ]
        self.about = json.loads(text)

    def zeros(self, rows: int) -> dict[str, Any]:
        """What is remembered at the start of episodes."""
        return {
            x["name"]: np.zeros([rows if n == "N" else n for n in x["shape"]], x["dtype"])
            for x in self.about["inputs"]
            if x["role"] == "hidden_state"
        }

    def __call__(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name; what goes in is checked against what the file says of it."""
        ordered = {}
        for x in self.about["inputs"]:
            array = ordered[x["name"]] = given[x["name"]]
            rows = array.shape[x["shape"].index("N")]
            assert array.shape == tuple(rows if n == "N" else n for n in x["shape"])
            assert str(array.dtype) == x["dtype"]
        assert ordered.keys() == given.keys()
        names = [x["name"] for x in self.about["outputs"]]
        outputs = dict(zip(names, self.run(ordered), strict=True))
        for x in self.about["outputs"]:
            assert str(outputs[x["name"]].dtype) == x["dtype"]
        return outputs


def parts(space: gym.Space[Any], value: Any, name: str = "observation") -> dict[str, Any]:
    """The parts of an observation by their names in files, in the dtypes of the environment."""
    if isinstance(space, Dict | Tuple):
        keys = space.spaces if isinstance(space, Dict) else range(len(space.spaces))
        return {
            key: part
            for i in keys
            for key, part in parts(space.spaces[i], value[i], f"{name}.{i}").items()
        }
    return {name: np.asarray(value, space.dtype)}


class Everything:
    """What rows meet at a step: observations, rewards, and masks where there may be some."""

    def __init__(self, case: Case, rows: int, t: int) -> None:
        random = np.random.default_rng(t)
        self.seen = samples(SPACES[case.seen], (rows,), t)
        self.reward = random.normal(size=rows).astype(np.float32)
        action = ACTIONS[case.action]
        self.mask = None
        if isinstance(action, Discrete | MultiDiscrete):
            counts = np.atleast_1d(action.n if isinstance(action, Discrete) else action.nvec)
            self.mask = random.random((rows, int(counts.sum()))) < 0.4
            self.mask[:, np.cumsum(counts.ravel()) - 1] = True

    def of(self, space: gym.Space[Any], file: File) -> dict[str, Any]:
        given = parts(space, self.seen)
        names = {x["name"] for x in file.about["inputs"]}
        if "reward" in names:
            given["reward"] = self.reward
        if self.mask is not None:
            given["action_mask"] = self.mask
        return given


def actors(policy: Any, state: HiddenState) -> list[Any]:
    """What the actor remembers, and the last action, out of a whole hidden state."""
    own = [*state.tensors[: len(policy.encoders[0].shapes)], *state.tensors[policy.memory :]]
    return [x.numpy() for x in own]


STEPS, ROWS = 60, 3
STARTS = {20: [True, False, False], 30: [False, True, True], 45: [True, True, True]}


def compare(ours: dict[str, Any], action: Any, state: list[Any], rows: slice) -> None:
    """The same action and memory, of some rows."""
    assert ours["action"].dtype == action.dtype
    np.testing.assert_allclose(ours["action"][rows], action, rtol=1e-6, atol=1e-6)
    for i, theirs in enumerate(state):
        mine = ours[f"new_state_{i}"][:, rows]
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=2e-6)


def run_alone(case: Case, agent: Any, file: File) -> None:
    state, mine = agent.get_initial_hidden_state(ROWS), file.zeros(ROWS)
    for t in range(STEPS):
        if t in STARTS:
            state = state.reset(STARTS[t])
            for x in mine.values():
                x[:, STARTS[t]] = 0
        step = Everything(case, ROWS, t)
        out = agent.get_action(step.seen, state, step.mask, deterministic=True, reward=step.reward)
        state = out.hidden_state
        ours = file({**step.of(SPACES[case.seen], file), **mine})
        compare(ours, out.action, actors(agent.policy, state), slice(None))
        mine = {name: np.array(ours[f"new_{name}"]) for name in mine}


def run_team(case: Case, agent: Any, files: Mapping[str, File]) -> None:
    states = agent.get_initial_hidden_state(ROWS)
    sizes = {name: len(who) for name, who in agent.grouped_agents.items()}
    mine = {name: files[name].zeros(ROWS * size) for name, size in sizes.items()}
    for t in range(STEPS):
        steps = {name: Everything(case, ROWS, 3 * t + i) for i, name in enumerate(names_of(case))}
        if t in STARTS:
            states = {name: state.reset(STARTS[t]) for name, state in states.items()}
            for name, size in sizes.items():
                for x in mine[name].values():
                    x[:, STARTS[t] * size] = 0
        masks = {name: step.mask for name, step in steps.items()}
        out = agent.get_action(
            {name: step.seen for name, step in steps.items()},
            states,
            None if masks["bob_0"] is None else masks,
            deterministic=True,
            reward={name: step.reward for name, step in steps.items()},
        )
        states = out.hidden_state
        for group, who in agent.grouped_agents.items():
            file, policy = files[group], agent.trainers[group].group.policy
            each = [steps[name].of(SPACES[case.seen], file) for name in who]
            given = {key: np.concatenate([one[key] for one in each]) for key in each[0]}
            if policy.tells_apart:
                assert file.about["agents"] == who
                given["agent"] = np.repeat(np.arange(len(who)), ROWS)
            ours = file({**given, **mine[group]})
            for i, name in enumerate(who):
                rows = slice(i * ROWS, (i + 1) * ROWS)
                compare(ours, out.action[name], actors(policy, states[name]), rows)
            mine[group] = {name: np.array(ours[f"new_{name}"]) for name in mine[group]}


# Both formats are made of the same graph, and ONNX files take seconds.
EVERY = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
TRIED = [(case, form) for case in CASES for form in ("onnx", "pt2") if EVERY or form == case.form]


@pytest.mark.parametrize(("case", "form"), TRIED, ids=[f"{name_of(c)}-{f}" for c, f in TRIED])
def test_files_do_what_agents_do(case: Case, form: Any, tmp_path: Path) -> None:
    agent = built(case)
    if case.kind in TEAMS:
        paths = agent.export(tmp_path / "team", format=form)
        assert paths.keys() == agent.grouped_agents.keys()
        assert {*(tmp_path / "team").iterdir()} == {
            tmp_path / "team" / f"{g}.{form}" for g in paths
        }
        files = {name: File(path) for name, path in paths.items()}
        assert all(file.about["group"] == name for name, file in files.items())
        run_team(case, agent, files)
    else:
        path = agent.export(tmp_path / f"policy.{form}")
        assert list(tmp_path.iterdir()) == [path]
        run_alone(case, agent, File(path))


class Branching(nn.Module):
    """A network of somebody's own, which asks for the value of a tensor or draws chance numbers."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.layer, self.fault = nn.Linear(3, 4), fault

    def initial_state(self, rows: int) -> list[Tensor]:
        return [torch.zeros(1, rows, 4)]

    def forward(self, observation: Tensor, extra: None, state: Any) -> tuple[Tensor, list[Tensor]]:
        y = torch.tanh(self.layer(observation) + state[0])
        if self.fault == "branch" and y.sum() > 0:
            y = -y
        if self.fault == "chance":
            y = y + torch.rand(y.shape)
        if self.fault == "rows":
            y = y * (1 if y.shape[1] == 1 else 2)
        return y, [y[-1:]]


def with_network(fault: str) -> PPO:
    return PPO(Box(-1, 1, (3,)), Discrete(3), actor_network=Branching(fault), seed=0)


def test_networks_of_ones_own(tmp_path: Path) -> None:
    agent = with_network("none")
    file = File(agent.export(tmp_path / "x.pt2", action_mask=False))
    assert [x["name"] for x in file.about["inputs"]] == ["observation", "state_0"]
    seen = np.ones((2, 3), np.float32)
    out = agent.get_action(seen, agent.get_initial_hidden_state(2), deterministic=True)
    compare(
        file({"observation": seen, **file.zeros(2)}),
        out.action,
        [x.numpy() for x in out.hidden_state.tensors],
        slice(None),
    )


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (
            "branch",
            r"can trace, got Guard.* at .*test_export.py:\d+, if self.fault == ",
        ),
        ("chance", "expected the file to give what the policy gives of 16 rows.*random numbers"),
        ("rows", "of 1 rows.*something else for one row"),
    ],
)
def test_what_cannot_be_exported_is_refused(fault: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=match):
        with_network(fault).export(tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def plain_agent(**options: Any) -> PPO:
    shapes = {"encoder_config": {"hidden_state_size": 4}}
    return PPO(Box(-1, 1, (3,)), Box(-1, 1, (1,)), shapes, seed=0, **options)


def test_the_file_is_a_copy_without_critic_and_paths(tmp_path: Path) -> None:
    agent = plain_agent(share_encoders=False)
    before = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    drawn = agent.group.generator.get_state()
    path = agent.export(tmp_path / "policy.bin", format="pt2")
    assert all(torch.equal(x, before[name]) for name, x in agent.policy.state_dict().items())
    assert torch.equal(agent.group.generator.get_state(), drawn)
    weights = torch.export.load(path).state_dict
    assert weights
    assert not [name for name in weights if "value_head" in name or "trunks.1" in name]
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    shapes = {"encoder_config": {"latent_dim": 8}}
    agent = PPO(SPACES["dict"], ACTIONS["choice"], shapes, seed=0)
    about = File(agent.export(tmp_path / "policy.pt2")).about
    assert (about["algorithm"], about["env_steps"], about["deterministic"]) == ("PPO", 0, True)
    assert about["action_space"] == {"kind": "Discrete", "n": 4, "start": 2, "dtype": "int64"}
    seen = dict(about["observation_space"]["parts"])
    assert seen["camera"] == {
        "kind": "Box",
        "dtype": "uint8",
        "low": 0,
        "high": 255,
        "shape": [8, 8, 3],
    }
    assert seen["at"]["parts"][0]["high"] is None
    names = {x["name"]: (x["dtype"], x["shape"]) for x in about["inputs"]}
    assert names == {
        "observation.at.0": ("float32", ["N", 2]),
        "observation.at.1": ("int64", ["N"]),
        "observation.camera": ("uint8", ["N", 8, 8, 3]),
        "observation.held": ("int8", ["N", 2]),
        "state_0": ("float32", [1, "N", 64]),
        "state_1": ("float32", [1, "N", 64]),
        "action_mask": ("bool", ["N", 4]),
    }
    assert [x["name"] for x in about["outputs"]] == ["action", "new_state_0", "new_state_1"]


class TestMistakes:
    @pytest.mark.parametrize(
        ("name", "form", "match"),
        [
            ("policy", None, "ends in .onnx or .pt2, or format="),
            ("policy.pth", None, "ends in .onnx or .pt2, or format="),
            ("policy.onnx", "pt2", "expected 'onnx', as path ends in it, got 'pt2'"),
            ("policy.onnx", "jit", "expected 'onnx', 'pt2' or None, got 'jit'"),
        ],
    )
    def test_formats(self, name: str, form: Any, match: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=match):
            plain_agent().export(tmp_path / name, format=form)

    def test_no_such_directory(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="create it first"):
            plain_agent().export(tmp_path / "nowhere" / "policy.onnx")

    def test_what_stands_there_is_of_another_kind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Before the seconds that tracing takes.
        monkeypatch.setattr("recurrent_rl.export.export._content", None)
        (tmp_path / "folder.onnx").mkdir()
        with pytest.raises(
            IsADirectoryError, match=r"path of a file, got a directory.*folder\.onnx"
        ):
            plain_agent().export(tmp_path / "folder.onnx")
        (tmp_path / "file").touch()
        team = IPPO({"a": Box(-1, 1, (1,))}, {"a": Box(-1, 1, (1,))})
        with pytest.raises(FileExistsError, match=r"expected a folder, got the file .*file"):
            team.export(tmp_path / "file")

    def test_teams_take_a_folder(self, tmp_path: Path) -> None:
        agent = IPPO({"a": Box(-1, 1, (1,))}, {"a": Box(-1, 1, (1,))})
        with pytest.raises(ValueError, match=r"expected a folder.*give format='onnx'"):
            agent.export(tmp_path / "policy.onnx")

    def test_keys_that_are_one_when_joined(self, tmp_path: Path) -> None:
        space = Dict({"a.b": Discrete(2), "a": Dict(b=Discrete(3))})
        with pytest.raises(ExportError, match=r"observation\['a'\]\['b'\].*name one of them"):
            PPO(space, Discrete(2)).export(tmp_path / "policy.pt2")

    def test_missing_packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r"\.pt2 needs none.*'recurrent_rl\[export\]'"):
            plain_agent().export(tmp_path / "policy.onnx")


def test_the_example_of_running_a_file_does_without_this_package() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", page, re.S) if '.onnx")\nstates' in c]
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.M))
    assert imported == {"gymnasium", "numpy", "onnxruntime"}
    assert len([line for line in code.splitlines() if line]) <= 15
