"""Films of episodes: one file an episode, played by ``evaluate``."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast

import gymnasium as gym
import numpy as np
from pettingzoo import AECEnv, ParallelEnv

from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.single_agent import SingleAgent
from recurrent_rl.extras import extra_package
from recurrent_rl.files import check_directory
from recurrent_rl.plots.runs import FilePath
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, POSITIVE, SEED, checked, checked_path, shown
from recurrent_rl.wrappers.tuple_to_parallel import make_tuple_env

MODES = ("rgb_array", "rgb_array_list")
FILM = ".mp4"
FPS = 30.0  # where an environment does not say, as in RecordVideo


def film(
    agent: Any,
    env: Any,
    path: FilePath,
    episodes: int = 1,
    *,
    max_steps: int | None = None,
    deterministic: bool = True,
    seed: int | None = 0,
    fps: float | None = None,
) -> list[Path]:
    """Film episodes as ``agent.evaluate`` plays them with the same seed.

    Gymnasium's environments are filmed by its own ``RecordVideo``, PettingZoo's, which that cannot
    wrap, from their frames; both write with moviepy.

    Args:
        agent: of any algorithm.
        env: one environment, built with ``render_mode="rgb_array"`` and wrapped as in training;
            left open. Or a Gymnasium id, for an agent that was trained in it without wrappers.
        path: of the film, ending in .mp4; or of a folder, which is created if it is not there, for
            episode-0.mp4 and so on.
        episodes: to play, at least 1; several need a folder.
        max_steps: stop each episode here; None plays to its end.
        deterministic: take the most likely actions.
        seed: of the first reset; None leaves the environment's randomness as it is.
        fps: frames a second; None: as the environment says, or else 30.

    Returns:
        paths of the films, in the order of the episodes. If playing fails none is written.

    Raises:
        ImportError: moviepy is not installed.
        TypeError: no agent of this package, or no single environment of its kind.
        ValueError: an environment that draws no frames, or other spaces than the agent's; several
            episodes for one file.

    """
    if not isinstance(agent, SingleAgent | MultiAgent):
        raise TypeError(f"agent: expected an agent of this package, got {shown(agent)}")
    place = checked_path("path", path)
    episodes = checked("episodes", episodes, Annotated[int, COUNT])
    seed = checked("seed", seed, Annotated[int | None, SEED])
    fps = checked("fps", fps, Annotated[float | None, POSITIVE])
    single = bool(place.suffix) and not place.is_dir()
    if single and (place.suffix.lower() != FILM or episodes > 1):
        what = f"{episodes} episodes" if episodes > 1 else f"the format {place.suffix}"
        raise ValueError(
            f"path: expected a name that ends in {FILM}, for one episode, or a folder, got {path} "
            f"for {what}; give a folder"
        )
    extra_package("moviepy", "video", "films")
    options = {"max_steps": max_steps, "deterministic": deterministic, "seed": seed}
    with _opened(agent, env) as stage:
        _check_mode(stage)
        folder = place.parent if single else place
        if single:
            check_directory(folder, "path")
        folder.mkdir(parents=True, exist_ok=True)
        # Beside where they go, and put in place only when all are whole.
        with tempfile.TemporaryDirectory(prefix=".film-", dir=folder) as draft:
            if isinstance(agent, SingleAgent):
                _record(agent, stage, episodes, Path(draft), fps, options)
            else:
                _record_frames(agent, stage, episodes, Path(draft), fps, options)
            drafts = [Path(draft) / f"film-episode-{i}{FILM}" for i in range(episodes)]
            missing = [each.name for each in drafts if not each.is_file()]
            if missing:
                raise ValueError(
                    f"env: expected frames of every episode, got none for {', '.join(missing)}; "
                    f"see what {stage}.render() returns"
                )
            names = [place] if single else [folder / f"episode-{i}{FILM}" for i in range(episodes)]
            for written, name in zip(drafts, names, strict=True):
                os.replace(written, name)
    return names


@contextlib.contextmanager
def _opened(agent: Agent, env: Any) -> Iterator[Any]:
    """Give the environment itself, or one that is built from its id and closed afterwards."""
    if not isinstance(env, str):
        kinds = (gym.Env,) if isinstance(agent, SingleAgent) else (gym.Env, ParallelEnv, AECEnv)
        if not isinstance(env, kinds):
            wanted = "a Gymnasium" if isinstance(agent, SingleAgent) else "a PettingZoo"
            raise TypeError(
                f"env: expected {wanted} environment, or the id of Gymnasium's, got {shown(env)}; "
                f"of a vector, build one of its environments by itself"
            )
        yield env
        return
    many = isinstance(agent, MultiAgent)
    made: Any = (make_tuple_env if many else gym.make)(env, render_mode=MODES[0])
    try:
        if isinstance(agent, SingleAgent) and made.observation_space != agent.observation_space:
            raise ValueError(
                f"env: expected the agent's observation space {agent.observation_space}, got "
                f"{made.observation_space} from {env}; build it with gym.make({env!r}, "
                f"render_mode={MODES[0]!r}), wrap it as in training, and give that"
            )
        yield made
    finally:
        made.close()


def _check_mode(env: Any) -> None:
    mode = getattr(env, "render_mode", None)
    if mode not in MODES:
        raise ValueError(
            f"env: expected an environment that draws frames, built with render_mode={MODES[0]!r}, "
            f"got {env} with render_mode={mode!r}; build it as in training, with that option: "
            f"gym.make(id, render_mode={MODES[0]!r}), or parallel_env(render_mode={MODES[0]!r})"
        )


def _record(
    agent: SingleAgent,
    env: gym.Env[Any, Any],
    episodes: int,
    folder: Path,
    fps: float | None,
    options: dict[str, Any],
) -> None:
    """Film a Gymnasium environment."""
    folder.rmdir()  # RecordVideo warns of folders that exist
    recorder: Any = gym.wrappers.RecordVideo(
        env,
        str(folder),
        episode_trigger=lambda episode: True,
        name_prefix="film",
        fps=cast(int, fps),  # which moviepy takes as any number
    )
    try:
        agent.evaluate(recorder, episodes, **options)
        if recorder.recording:  # the last: no reset follows upon it
            recorder.stop_recording()
    except BaseException:
        # It would warn, when it is collected, of what it has not written.
        recorder.recorded_frames, recorder.recording = [], False
        raise


def _record_frames(
    agent: MultiAgent,
    env: Any,
    episodes: int,
    folder: Path,
    fps: float | None,
    options: dict[str, Any],
) -> None:
    """Film an environment of several agents."""
    if fps is None:
        fps = float((getattr(env, "metadata", None) or {}).get("render_fps", FPS))
    camera = _Camera(env, folder, fps)
    agent.evaluate(env, episodes, watch=camera, **options)
    camera.write()


class _Camera(Spectator):
    """Takes a frame of each step, and writes an episode when the next one begins."""

    def __init__(self, env: Any, folder: Path, fps: float) -> None:
        self.env, self.folder, self.fps = env, folder, fps
        self.frames: list[Array] = []
        self.episode = 0

    def begin(self) -> None:
        self.write()
        self.stepped()

    def stepped(self) -> None:
        drawn = self.env.render()
        frames = drawn if isinstance(drawn, list) else [drawn]
        for frame in frames:
            if not isinstance(frame, np.ndarray) or frame.ndim != 3:
                raise ValueError(
                    f"env: expected render() to return a frame, an array [height, width, 3], got "
                    f"{shown(frame)} from {self.env}"
                )
            self.frames.append(np.array(frame))

    def write(self) -> None:
        """Write the frames that there are."""
        if self.frames:
            clips = extra_package("moviepy.video.io.ImageSequenceClip", "video", "films")
            clip = clips.ImageSequenceClip(self.frames, fps=self.fps)
            path = self.folder / f"film-episode-{self.episode}{FILM}"
            clip.write_videofile(str(path), logger=None)
            self.episode += 1
            self.frames = []
