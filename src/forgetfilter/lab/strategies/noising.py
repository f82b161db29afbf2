"""Distance of samples, and the loss of tokens read at every layer; see `rep_noise`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forgetfilter.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from forgetfilter.model.passes.forward import RowBatch

_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
_KERNELS, _MULTIPLIER = 5, 2.0


def mmd(first: Tensor, second: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples, (n, d) each, over five Gaussian kernels.

    Their bandwidths are the mean squared distance of any two points times 1/4, 1/2, 1, 2 and 4.
    """
    import torch

    both = torch.cat([first, second])
    squares = torch.cdist(both, both).pow(2)
    count = len(both)
    width = squares.detach().sum() / max(1, count * (count - 1))
    scales = [_MULTIPLIER ** (at - _KERNELS // 2) for at in range(_KERNELS)]
    kernel = torch.stack([(-squares / (width * scale).clamp(min=1e-12)).exp() for scale in scales])
    kernel = kernel.sum(dim=0)
    n = len(first)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def at_targets(output: Tensor, batch: RowBatch) -> Tensor:
    """A layer's output where a token of an answer is predicted, (K, width), in float32."""
    return output[:, batch.positions][batch.predicts_target].float()


def loss_at_every_layer(model: Any, batch: RowBatch) -> Tensor:
    """Loss of the tokens at the output and, through norm and output layer, at each layer; mean."""
    import torch

    from forgetfilter.model.loading.base_model import autocast_for
    from forgetfilter.model.passes.forward import target_nats

    with autocast_for(model):
        said = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            output_hidden_states=True,
        )
        losses = [target_nats(at_targets(said.logits, batch), batch).mean()]
        norm, head = _norm_of(model), model.get_output_embeddings()
        for hidden in said.hidden_states[1:-1]:  # the last one is the output's
            logits = head(norm(hidden[:, batch.positions]))[batch.predicts_target].float()
            losses.append(target_nats(logits, batch).mean())
    return torch.stack(losses).mean()


def _norm_of(model: Any) -> Any:
    """The norm before the output layer."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    for module in (inner.base_model, getattr(inner.base_model, "decoder", None)):
        for name in _NORMS:
            if hasattr(module, name):
                return getattr(module, name)
    raise ModelError(
        f"{type(inner).__name__} has no final norm that is known here. Expected one called "
        f"{', '.join(_NORMS)}. Leave rep_noise out for this model."
    )
