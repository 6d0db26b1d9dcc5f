"""The command ``plot``, and the picture that ``train`` draws."""

from collections.abc import Sequence
from pathlib import Path


def draw_curve(folder: Path, seeds: Sequence[Path]) -> None:
    """Draw a run's learning curve into its folder, or say why not."""
