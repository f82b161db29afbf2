"""Which keys of a turn and which columns of a row matter: every list of names, in one place.

A key of a turn that stands in none of these lists costs the row, by name: what nobody reads is
never kept with the score of what somebody has read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from forgetfilter.data.records import Role

ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value", "text")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
CALL_KEYS = ("tool_calls", "function_call")
LOSS_KEYS = ("weight", "train", "training", "loss")
"""OpenAI's ``weight``, axolotl's ``train`` and ``training``, ms-swift's ``loss``."""

IGNORED_TURN_KEYS = frozenset(
    {
        # names of the turn and of whoever speaks
        *("id", "_id", "uid", "uuid", "message_id", "msg_id", "turn_id", "parent_id"),
        *("name", "index", "idx", "turn", "turn_index", "turn_identifier", "rank"),
        # when, where and in which language
        *("timestamp", "created", "created_at", "create_time", "updated_at", "date", "time"),
        *("lang", "language", "country", "hashed_ip", "header"),
        # who made it, and what it was counted or judged as
        *("model", "model_name", "model_slug", "source", "finish_reason", "stop_reason"),
        *("tokens", "token_count", "num_tokens", "usage", "toxic", "redacted", "cache_control"),
    }
)
"""Keys of a turn that no trainer and no chat template acts on."""

ROLES: dict[str, Role | Literal["call"]] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "chatbot", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(
        ("tool", "function", "observation", "tool_response", "function_response", "ipython"),
        "tool",
    ),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""What files call a role, in lower case; ``call`` is the assistant's turn that only calls tools."""

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
TOOLS_COLUMNS = ("tools", "functions")
TURN_COLUMNS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")
"""Columns whose value may be a list of turns."""

ID_COLUMNS = (
    *("id", "_id", "uid", "uuid", "example_id", "conversation_id", "sample_id", "row_id"),
    *("prompt_id", "question_id", "message_id", "key", "idx", "index"),
)
"""What files call a row's own name; the first that is there counts."""

_ANSWERS = r"(?:\w+_)?(?:completion|output|response|answer|reply|solution|generation)"
_OTHERS = (
    "chosen|rejected|generated|targets|assistant|gpt|bot|text|refusal|"
    "reasoning|reasoning_content|thinking|thought|cot|chain_of_thought|rationale|"
    "tool_call|function_call|message|conversation|dialog|dialogue|turn"
)
_ANSWER_COLUMN = re.compile(
    rf"(?:{_ANSWERS}|{_OTHERS})s?(?:_(?:text|content|messages?|turns?))?(?:[_-]?(?:\d+|[a-e]|alt))?"
)
_NEVER_READ = frozenset(
    {
        # what the answer depends on, or what a trainer takes in place of the text
        *("image", "images", "video", "videos", "audio", "audios"),
        *("input_ids", "completion_mask", "assistant_masks", "chat_template_kwargs"),
    }
)


@lru_cache(4096)
def may_be_learned(column: str) -> bool:
    """Whether a trainer may learn from a column of this name: text, turns, tokens or images."""
    name = column.strip().lower()
    return name in _NEVER_READ or _ANSWER_COLUMN.fullmatch(name) is not None
