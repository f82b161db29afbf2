"""Outputs of layers of one kind, read and changed while a model computes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

Change = Callable[[int, "Tensor"], "Tensor"]
"""Given a layer's number and its output, (B, T, width): the output that goes on."""


def layers_of(model: Any, ends: tuple[str, ...], what: str) -> list[Any]:
    """The modules whose class's name ends in one of ``ends``, outermost ones, from first to last.

    Raises:
        ModelError: the model has none.
    """
    found: list[Any] = []
    inner: set[int] = set()
    for module in model.modules():
        if id(module) not in inner and type(module).__name__.endswith(ends):
            found.append(module)
            inner.update(id(other) for other in module.modules())
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no {what} layers that are known here. Expected modules "
            f"whose class ends in {' or '.join(ends)}. Leave this strategy out for this model."
        )
    return found


@contextmanager
def changed(layers: list[Any], change: Change) -> Generator[None]:
    """Let ``change`` see and replace the output of each layer in every forward pass inside."""

    def hook(number: int) -> Callable[[Any, Any, Any], Any]:
        def replace(_: Any, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (change(number, output[0]), *output[1:])
            return change(number, output)

        return replace

    handles = [layer.register_forward_hook(hook(at)) for at, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
