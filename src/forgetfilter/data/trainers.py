"""What LLaMA-Factory's ``dataset_info.json`` and axolotl's ``datasets:`` say of a file's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from forgetfilter.data.formats import Reading
from forgetfilter.data.sources import HUB
from forgetfilter.errors import ConfigError
from forgetfilter.text import printable
from forgetfilter.yaml_text import parse_yaml, read_text

Told = tuple[Reading, list[str]]
"""How rows are read, and where they are."""

_TAGS = {
    "user": ("user_tag", "human"),
    "assistant": ("assistant_tag", "gpt"),
    "observation": ("observation_tag", "observation"),
    "function_call": ("function_tag", "function_call"),
    "system": ("system_tag", "system"),
}
_MEDIA = ("images", "videos", "audios")
_AXOLOTL: dict[str, tuple[str, dict[str, str]]] = {
    "alpaca": ("alpaca", {"instruction": "instruction", "input": "input", "output": "output"}),
    "alpaca_chat.load_qa": ("question_answer", {"question": "question", "answer": "answer"}),
    "alpaca_w_system.load_open_orca": (
        "question_response",
        {"system": "system_prompt", "question": "question", "response": "response"},
    ),
    "gpteacher": (
        "dolly",
        {"instruction": "instruction", "context": "input", "response": "response"},
    ),
}


def llama_factory(place: str) -> Told:
    """The entry of a ``dataset_info.json`` that ``place`` names as FILE:NAME.

    Columns that the entry doesn't name are not read, as LLaMA-Factory doesn't read them.

    Raises:
        ConfigError: there is no such entry, or it asks for what can't be read.
    """
    file, _, name = place.rpartition(":")
    path = Path(file or name)
    entries = _mapping(_load(path, "--dataset-info"), path)
    if not file:
        raise _wrong("--dataset-info", place, f"FILE:NAME, with a NAME of {_listed(entries)}")
    if name not in entries:
        raise _wrong("--dataset-info", place, f"a NAME of {_listed(entries)}")
    entry = _mapping(entries[name], path)
    formatting = str(entry.get("formatting", "alpaca"))
    given = entry.get("columns")
    columns = _names(given, path)
    media = {kind: columns[kind] for kind in _MEDIA if kind in columns}
    common = {n: columns[n] for n in ("system", "tools") if n in columns} | media
    preferred = {
        n: columns[n] for n in ("chosen", "rejected") if entry.get("ranking") and n in columns
    }
    if formatting == "alpaca":
        usual = {} if given else {"prompt": "instruction", "query": "input", "response": "output"}
        columns = {**usual, **columns}
        ours = {"prompt": "instruction", "query": "input", "history": "history"}
        found = {own: columns[theirs] for theirs, own in ours.items() if theirs in columns}
        if preferred:
            reading = Reading("preference", {**found, **common, **preferred}, is_whole=True)
        elif "response" in columns:
            found["output"] = columns["response"]
            reading = Reading("alpaca", {**found, **common}, is_whole=True)
        else:
            reading = Reading("text", {"text": columns.get("prompt", "text")}, is_whole=True)
    elif formatting in ("sharegpt", "openai"):
        tags = _names(entry.get("tags"), path)
        found = {"conversations": columns.get("messages", "conversations"), **common, **preferred}
        reading = Reading(
            "preference" if preferred else "sharegpt",
            found,
            {"role": tags.get("role_tag", "from"), "content": tags.get("content_tag", "value")},
            {tags.get(tag, usual): role for role, (tag, usual) in _TAGS.items()},
            is_whole=True,
        )
    else:
        raise _wrong("--dataset-info", place, "a formatting of alpaca, sharegpt or openai")
    return reading, _place_of_entry(entry, path)


def axolotl(place: str) -> Told:
    """The entry of an axolotl file's ``datasets:`` that ``place`` names as FILE or FILE:NUMBER.

    Entries are numbered from 0.

    Raises:
        ConfigError: there is no such entry, or it asks for what can't be read.
    """
    file, _, number = place.rpartition(":")
    if not (file and number.isdigit()):
        file, number = place, "0"
    path = Path(file)
    entries = _mapping(_load(path, "--axolotl"), path).get("datasets")
    if not isinstance(entries, list) or int(number) >= len(cast(list[Any], entries)):
        raise _wrong("--axolotl", place, "a file with that many entries below datasets:")
    entry = _mapping(cast(list[Any], entries)[int(number)], path)
    return _axolotl_reading(entry, place, path), _axolotl_place(entry)


def _axolotl_reading(entry: Mapping[str, Any], place: str, path: Path) -> Reading:
    kind = entry.get("type")
    if isinstance(kind, dict):
        own = cast(dict[str, Any], kind)
        columns = {
            name: str(own.get(f"field_{name}", name))
            for name in ("instruction", "input", "output", "system")
        }
        return Reading("alpaca", columns, is_whole=True, system=str(own.get("system_prompt") or ""))
    name = str(kind or "chat_template").partition(":")[0]
    if name in _AXOLOTL:
        format_, columns = _AXOLOTL[name]
        return Reading(format_, columns, is_whole=True)
    if name == "completion":
        return Reading("text", {"text": str(entry.get("field", "text"))}, is_whole=True)
    if name not in ("chat_template", "sharegpt"):
        known = ", ".join(["chat_template", "sharegpt", "completion", *_AXOLOTL])
        raise _wrong("--axolotl", place, f"a type of {known}; for another use --column-map")
    trained = entry.get("roles_to_train", ["assistant"])
    trained = [trained] if isinstance(trained, str) else list(trained or [])
    if any(role not in ("assistant", "gpt") for role in trained):
        raise _wrong("--axolotl", place, "roles_to_train of the assistant alone")
    usual = "conversations" if name == "sharegpt" else "messages"
    turn = {
        "role": "from" if name == "sharegpt" else "role",
        "content": "value" if name == "sharegpt" else "content",
        **_names(entry.get("message_property_mappings"), path),
    }
    for key, ours in (("role", "role"), ("content", "content"), ("training", "train")):
        if entry.get(f"message_field_{key}"):
            turn[ours] = str(entry[f"message_field_{key}"])
    roles: dict[str, str] = {}
    for role, theirs in _mapping(entry.get("roles") or {}, path).items():
        names = cast(list[Any], theirs) if isinstance(theirs, list) else [theirs]
        roles |= {str(each): role for each in names}
    columns = {
        "messages": str(entry.get("field_messages") or usual),
        "system": str(entry.get("field_system") or "system"),
        "tools": str(entry.get("field_tools") or "tools"),
    }
    return Reading("chat", columns, turn, roles, is_whole=True, only_marked=not trained)


def _axolotl_place(entry: Mapping[str, Any]) -> list[str]:
    files = entry.get("data_files")
    where = str(entry.get("path") or "")
    if files:
        names = cast(list[Any], files) if isinstance(files, list) else [files]
        folder = Path(where) if Path(where).is_dir() else Path()
        return [str(folder / str(name)) for name in names]
    if not where or Path(where).exists():
        return [where] if where else []
    return [_hub(where, entry.get("name"), entry.get("revision"), entry.get("split"))]


def _place_of_entry(entry: Mapping[str, Any], path: Path) -> list[str]:
    if entry.get("hf_hub_url"):
        told = (entry.get("subset"), entry.get("revision"), entry.get("split"))
        return [_hub(str(entry["hf_hub_url"]), *told)]
    return [str(path.parent / str(entry["file_name"]))] if entry.get("file_name") else []


def _hub(name: str, subset: Any, revision: Any, split: Any) -> str:
    return (
        f"{HUB}{name}"
        + (f"/{subset}" if subset else "")
        + (f"@{revision}" if revision else "")
        + (f":{split}" if split else "")
    )


def _load(path: Path, flag: str) -> Any:
    try:
        text = read_text(path)
        if path.suffix.lower() == ".json":
            return json.loads(text)
        return parse_yaml(text)
    except OSError as error:
        said = error.strerror or "it can't be read"
    except Exception as error:  # of JSON, YAML or the encoding
        said = next(iter(str(error).splitlines()), "no JSON or YAML")
    raise ConfigError(
        f"{flag}: {printable(str(path), 200)!r}: {printable(said)}. Expected a file of JSON or "
        "YAML. Check the path."
    )


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if isinstance(value, dict):
        return cast(dict[str, Any], value)
    raise ConfigError(
        f"{printable(str(path), 200)!r} holds {type(value).__name__} where names with values are "
        "expected. Mend the file."
    )


def _names(value: Any, path: Path) -> dict[str, str]:
    """Names by names, without those that are null."""
    found = _mapping(value or {}, path)
    return {str(name): str(other) for name, other in found.items() if other is not None}


def _listed(entries: Mapping[str, Any]) -> str:
    names = [printable(name, 40) for name in entries]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _wrong(flag: str, place: str, expected: str) -> ConfigError:
    return ConfigError(f"{flag} is {printable(place, 200)!r}; expected {expected}.")
