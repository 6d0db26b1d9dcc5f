"""Noticing that something was done to networks since somebody last prepared to train them."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn


class Fingerprint:
    """Which modules, weights and statistics there are, and where in memory these and gradients lie.

    To look whether anything was replaced, frozen or moved takes a third to a half of the time that
    it takes to prepare for it: 0.1 to 0.3 ms for small networks rather than 0.3 to 1.
    """

    def __init__(self, modules: Iterable[nn.Module], parameters: Sequence[Tensor]) -> None:
        """Look at modules with all in them, and at parameters that are in none."""
        rest, self._held = list(modules), list[object](parameters)
        self._places = [_place(p) for p in parameters]
        while rest:
            module = rest.pop()
            self._held.append(module)
            # torch's own lists: what it walks them by makes a name for each.
            own = (*module._parameters.values(), *module._buffers.values())
            for x in own:
                if x is not None:
                    self._held.append(x)
                    self._places.append(_place(x))
            rest += [child for child in module._modules.values() if child is not None]

    def same(self, other: "Fingerprint") -> bool:
        """Whether another look has found the same."""
        mine, theirs = self._held, other._held
        if len(mine) != len(theirs) or self._places != other._places:
            return False
        return all(a is b for a, b in zip(mine, theirs, strict=True))


def _place(x: Tensor) -> tuple[object, ...]:
    grad = x.grad
    at = None if grad is None else grad.data_ptr()
    return x.data_ptr(), x.shape, x.stride(), x.requires_grad, at
