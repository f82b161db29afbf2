"""How many tokens share a pass: what memory holds; and half as many once it has run out.

A device that runs out of memory says so, and the same rows can be read in smaller batches. A CPU
mostly doesn't: the system ends the process, unless a limit (``ulimit -v``, a container's) refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from forgetfilter.errors import ModelError
from forgetfilter.model.passes.answer_head import body_of, unwrapped
from forgetfilter.model.passes.limits import CPU_BATCH_TOKENS, most_logits
from forgetfilter.progress import tell

if TYPE_CHECKING:
    from forgetfilter.model.training.step_method import Passes

_SAID = ("out of memory", "can't allocate memory", "not enough memory")
_smaller: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""For models that memory has run out with: the most tokens of a pass since then."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the system, has no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def batch_budget(model: Any, max_batch_tokens: int) -> int:
    """Most padded tokens of a pass that reads rows: as asked for, and as fits."""
    inner = unwrapped(model)
    weight = inner.get_output_embeddings().weight
    budget = min(max_batch_tokens, _smaller.get(inner, max_batch_tokens))
    if weight.device.type == "cpu":
        budget = min(budget, CPU_BATCH_TOKENS)
    if weight.device.type == "cuda":
        from forgetfilter.model.passes.gpu_memory import tokens_that_fit

        budget = min(budget, tokens_that_fit(inner, is_training=False))
    at_once = most_logits(weight.device) // weight.shape[0]
    if budget > at_once and body_of(inner) is None:  # its logits exist all at once
        budget = at_once
    return max(1, budget)


def check_halving(error: BaseException, rows: int, longest: int) -> None:
    """See that an error can be answered by a smaller pass; raises it again otherwise.

    Raises:
        ModelError: memory ran out over a single row.
    """
    if not is_out_of_memory(error):
        raise error
    if rows == 1:
        raise ModelError(
            f"Memory ran out over a single row of {longest:,} tokens. Room for one row is "
            "expected. Reject long rows (--max-length-tokens), end other programs, or use a "
            "smaller model; the same command goes on where it stopped."
        ) from None


def say_halved(rows: int, longest: int) -> int:
    """Free what a failed pass has left; how many tokens one may have from now, which is told."""
    tokens = max(1, rows // 2) * longest
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    tell(
        f"Memory ran out over {rows:,} rows of up to {longest:,} tokens; from here on a pass holds "
        f"at most {tokens:,} tokens (--set max_batch_tokens={tokens} from the start).",
        is_error=True,
    )
    return tokens


def remember(model: Any, tokens: int) -> None:
    """Let no later pass over ``model`` hold more than so many tokens, while it is loaded."""
    _smaller[unwrapped(model)] = tokens


def training_budget(model: Any, max_batch_tokens: int) -> int:
    """Most padded tokens of a pass that trains: as asked for, and as fits with its gradients."""
    inner = unwrapped(model)
    if inner.get_output_embeddings().weight.device.type != "cuda":
        return max_batch_tokens
    from forgetfilter.model.passes.gpu_memory import tokens_that_fit

    return min(max_batch_tokens, tokens_that_fit(inner, is_training=True))


class TrainingHalves:
    """Cuts the passes of one training into parts where memory runs out; from then on all of them.

    The gradient is that of the whole pass: losses are sums over tokens, over those of the batch.
    """

    def __init__(self) -> None:
        self.parts = 1
        """In how many parts a pass is made."""
        self._weights: list[torch.nn.Parameter] = []

    def __call__(
        self,
        step: Callable[..., torch.Tensor],
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        tokens: Any,
        passes: Passes,
    ) -> torch.Tensor:
        """The loss of a pass; leaves its gradient in the model, as ``step`` does.

        Raises:
            ModelError: memory ran out over a single row.
        """
        rows, longest = inputs["input_ids"].shape
        if not self._weights:  # once: on a small model it takes 3% of a pass
            self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        weights = self._weights
        before = [None if w.grad is None or rows == 1 else w.grad.clone() for w in weights]
        counted = passes.counted
        while True:
            size = max(1, rows // self.parts)
            try:
                found = [
                    step(model, {n: t[at : at + size] for n, t in inputs.items()}, tokens)
                    for at in range(0, rows, size)
                ]
                return found[0] if len(found) == 1 else torch.stack(found).sum()
            except (RuntimeError, MemoryError) as error:
                # Ranks that cut up their passes differently would wait for each other for ever.
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    raise
                check_halving(error, size, longest)
            self.parts *= 2
            passes.counted = counted
            for weight, gradient in zip(weights, before, strict=True):
                weight.grad = None if gradient is None else gradient.clone()
            say_halved(size, longest)
