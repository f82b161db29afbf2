"""The encoder of a model, from its folder alone: no weights are loaded."""

from __future__ import annotations

from datetime import date
from typing import Any

from forgetfilter.data.tokens.encoding import Embedding, Encoder
from forgetfilter.data.tokens.templates import ANY_DATE
from forgetfilter.errors import ModelError
from forgetfilter.model.loading import folder_checks, gguf_file, model_files


def open_encoder(
    source: str,
    tokenizer: Any,
    *,
    template: str = "auto",
    max_length_tokens: int | None = None,
    trust_remote_code: bool = False,
    today: date = ANY_DATE,
) -> Encoder:
    """What turns rows into tokens for a model.

    Args:
        source: folder, GGUF file or hub id of the model.
        tokenizer: the model's, from `base_model.load_tokenizer`.
        template: ``auto`` or ``paper``, see `Encoder`.
        max_length_tokens: longer rows are rejected; by default those beyond the model's context.
        trust_remote_code: run code that a model repository brings along.
        today: what a chat template is told to be today.

    Raises:
        ModelError: the model can't be used.
    """
    context = model_files.context_tokens(source, trust_remote_code)
    limit = min(context, max_length_tokens or context)
    is_silent = template == "auto" and not tokenizer.chat_template
    if is_silent and gguf_file.is_gguf(source):
        raise gguf_file.without_template(source)
    size = model_files.vocabulary_size(source, trust_remote_code)

    def refuse(token: int) -> ModelError:
        text = str(tokenizer.convert_ids_to_tokens(token))
        return folder_checks.beyond_embedding(source, token, text, size)

    kind: Any = template
    return Encoder(tokenizer, kind, limit, today, Embedding(size, refuse))
