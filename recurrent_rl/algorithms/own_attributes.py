"""What a subclass of somebody's own adds to an agent, and how copies and checkpoints carry it."""

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

from recurrent_rl.algorithms.settings import is_ours
from recurrent_rl.plain import is_plain, plain
from recurrent_rl.validation import shown


class HasOwnAttributes:
    """Carries attributes that a subclass's constructor sets, which copies are built without.

    After ``agent = Mine(*spaces, bonus=0.5)`` of ::

        class Mine(PPO):
            def __init__(self, *spaces, bonus=0.1, **options):
                super().__init__(*spaces, **options)
                self.bonus = bonus

    ``agent.clone().bonus`` is 0.5.
    """

    def own_data(self) -> dict[str, Any]:
        """Return a subclass's own attributes, for clones, populations and checkpoints.

        All that are set on an agent of your own class and that this package does not know,
        by name. What is no plain data, a network of your own for example, is refused: override this
        method to return plain data and tensors that ``restore_own`` makes it from.

        Raises:
            TypeError: an attribute that is no plain data.

        """
        kind, found = type(self), dict[str, Any]()
        if is_ours(kind):
            return found
        known = {name for each in kind.__mro__ if is_ours(each) for name in _declared(each)}
        for name, value in vars(self).items():
            made_again = inspect.getattr_static(kind, name, None)
            if name in known or isinstance(made_again, functools.cached_property):
                continue
            if not is_plain(value):
                raise TypeError(
                    f"{kind.__name__}.{name}: expected numbers, text, None, or lists, tuples and "
                    f"dictionaries of these, which clones and checkpoints carry as they are, got "
                    f"{shown(value)} ({type(value).__name__}); override own_data and restore_own "
                    f"of {kind.__name__} to say what is kept of it, and how it is made from that"
                )
            found[name] = plain(value, f"{kind.__name__}.{name}")
        return found

    def restore_own(self, data: Mapping[str, Any]) -> None:
        """Set what ``own_data`` returned, in a clone or a loaded agent.

        It is called in place of the subclass's constructor, when the agent's parts are there.

        Args:
            data: from ``own_data``; empty if the checkpoint was written by an earlier version.

        """
        for name, value in copy.deepcopy(dict(data)).items():
            setattr(self, name, value)


def _declared(kind: type) -> set[str]:
    """Return the names that a class defines or declares."""
    return {*vars(kind), *vars(kind).get("__annotations__", {})}
