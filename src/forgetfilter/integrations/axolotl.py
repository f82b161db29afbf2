"""axolotl: a plug-in that trains on what a run kept, and an export of its kept rows.

The plug-in takes ``path: forgetfilter:RUN`` in the ``datasets:`` of an axolotl file. No other
program knows such a path, so where the plug-in isn't loaded training stops and never goes on with
rows that were not filtered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from forgetfilter.data.records import Message, Row
from forgetfilter.data.writing import write_records
from forgetfilter.errors import ConfigError
from forgetfilter.files import write_bytes_atomic
from forgetfilter.integrations.exporting import (
    Exported,
    chosen_name,
    refuse_others_files,
    refuse_pairs,
)
from forgetfilter.integrations.foreign import foreign
from forgetfilter.integrations.settled import kept_rows, settled_summary
from forgetfilter.places import require_writable_folder
from forgetfilter.runs.file_names import rows_file
from forgetfilter.runs.inputs import input_fingerprint, read_input
from forgetfilter.runs.reading import read_scores
from forgetfilter.runs.schema import Summary
from forgetfilter.text import printable

if TYPE_CHECKING:
    ForgetFilterPlugin: Any

PREFIX = "forgetfilter:"
"""Begins the ``path`` of a data set that is the kept rows of a run folder."""
PLUGIN = f"{__name__}.ForgetFilterPlugin"
"""What stands below ``plugins:``."""

_PREPARED = "last_run_prepared"
_OWN_KEYS = ("data_files", "name", "revision", "ds_type")
"""What an entry may not say of a run's rows, because it says where other rows are."""


def __getattr__(name: str) -> Any:
    if name == "ForgetFilterPlugin":
        return _plugin()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _plugin() -> Any:
    base: Any = foreign("axolotl.integrations.base", "axolotl", "axolotl").BasePlugin

    class ForgetFilterPlugin(base):
        """Puts the kept rows of runs in place of data sets whose path is ``forgetfilter:RUN``."""

        def register(self, cfg: Any) -> None:
            """Called by axolotl with its whole configuration, before that is checked."""
            use_kept_rows(cfg)

    ForgetFilterPlugin.__qualname__ = "ForgetFilterPlugin"
    return ForgetFilterPlugin


def use_kept_rows(config: MutableMapping[str, Any]) -> list[Path]:
    """Put files of kept rows in place of paths like ``forgetfilter:RUN`` in axolotl's settings.

    The rows are copied, as the lines that were screened, below ``dataset_prepared_path`` into a
    file that is named by the decision: axolotl names what it has prepared by the path of a file
    and not by its content, so a run that was decided again needs another path.

    Args:
        config: the settings; entries of ``datasets`` and of ``test_datasets`` are changed.

    Returns:
        The files, in the order of the entries.

    Raises:
        ConfigError: no entry names a run, or one says beside it where other rows are; or rows
            have answers that are not learned, and the entry doesn't say so.
        DataError: a run isn't finished or decided, or its files are not those of the latest
            decision.
    """
    prepared = Path(str(config.get("dataset_prepared_path") or _PREPARED))
    named = [
        cast(MutableMapping[str, Any], entry)
        for key in ("datasets", "test_datasets")
        for entry in (config.get(key) or [])
        if isinstance(entry, MutableMapping)
        and str(cast(Mapping[str, Any], entry).get("path") or "").startswith(PREFIX)
    ]
    if not named:
        raise ConfigError(
            f"The axolotl file lists the plug-in {PLUGIN}, and no entry of its datasets names a "
            f"run. Expected an entry with `path: {PREFIX}RUN`. Write the run folder into it, or "
            "take the plug-in out."
        )
    return [_use(entry, prepared) for entry in named]


def _use(entry: MutableMapping[str, Any], prepared: Path) -> Path:
    run = Path(str(entry["path"]).removeprefix(PREFIX))
    other = [key for key in _OWN_KEYS if entry.get(key)]
    if other:
        raise ConfigError(
            f"The entry with `path: {printable(str(entry['path']), 200)}` has {other[0]!r} too. "
            "Expected the run folder alone, which says where its rows are. Take it out."
        )
    summary = settled_summary(run)
    _refuse_unmasked(entry, run, summary)
    decision = str(summary["decision"])
    rows = rows_file(run, "kept").read_bytes()
    target = prepared / "forgetfilter" / f"{run.resolve().name}-{decision[:16]}.jsonl"
    if not target.is_file() or target.read_bytes() != rows:
        write_bytes_atomic(target, rows)
    entry["path"], entry["ds_type"] = str(target), "json"
    return target


def _refuse_unmasked(entry: Mapping[str, Any], run: Path, summary: Mapping[str, Any]) -> None:
    """Raise where axolotl would learn answers that carried no loss when they were judged."""
    if entry.get("message_field_training") or entry.get("roles_to_train") == []:
        return
    decision = read_scores(run, Summary.model_validate(summary)).decision
    for row in read_input(run).rows:
        if decision[row.row] == "kept" and any(map(_is_masked, row.messages)):
            raise ConfigError(
                f"Row {row.row} of the run {printable(str(run), 300)!r} has an answer that is not "
                "learned and so was not judged, and by its entry axolotl would learn it. Expected "
                "an entry that says which turns are learned. Add the key that the rows have for "
                "it, for example `message_field_training: weight`, or use what `forgetfilter "
                "export RUN --to axolotl --output-dir DIR` writes."
            )


def export(
    run: str | Path, output_dir: str | Path, name: str = "", *, overwrite: bool = False
) -> Exported:
    """Write the kept rows as ``NAME.jsonl`` and an axolotl entry for them as ``NAME.yaml``.

    Rows are written anew from the conversations that were judged, as ``messages`` for axolotl's
    ``chat_template`` type, whatever the screened file looked like. Which turns are learned stands
    in the rows where not all answers are. What people have decided since is applied first.

    Args:
        run: the run folder.
        output_dir: where to write; made where it is missing.
        name: of both files; empty: made of the screened file's name.
        overwrite: replace files of that name that are none of this export's.

    Raises:
        ConfigError: a name that can't be used, or a file that is there already.
        DataError: the run isn't finished or decided, kept no row, was edited by hand, or holds
            preference pairs.
        RunExistsError: the run is in use, or the folder can't be written to.
    """
    run, folder = Path(run), Path(output_dir)
    kept, summary = kept_rows(run)
    refuse_pairs(kept, run)
    name = chosen_name(name, run, str(summary.get("noisy_data", "")))
    data, entry_file = folder / f"{name}.jsonl", folder / f"{name}.yaml"
    mark = f"# forgetfilter: from input {input_fingerprint(run)}\n"
    is_ours = entry_file.is_file() and entry_file.read_bytes().startswith(mark.encode())
    refuse_others_files([data, entry_file], is_ours=is_ours, overwrite=overwrite)
    require_writable_folder(folder)
    write_records(data, _records(kept))
    written = yaml.safe_dump({"datasets": [_entry(data, kept)]}, sort_keys=False)
    write_bytes_atomic(entry_file, (mark + written).encode())
    return Exported(data, entry_file, name, len(kept), 0, None)


def _entry(data: Path, rows: Sequence[Row]) -> dict[str, Any]:
    is_marked = any(_is_masked(turn) for row in rows for turn in row.messages)
    return {
        "path": data.as_posix(),
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        **({"field_tools": "tools"} if any(row.tools for row in rows) else {}),
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
        **({"message_field_training": "train"} if is_marked else {}),
    }


def _records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows that all have the same keys and types: tables of mixed types can't be loaded.

    Turns that have more than role and content, each its own, are JSON text, which axolotl reads.
    """
    all_turns = [[_turn(turn) for turn in row.messages] for row in rows]
    is_plain = all(turn.keys() == {"role", "content"} for turns in all_turns for turn in turns)
    has_tools = any(row.tools for row in rows)
    return [
        {
            "id": row.example_id,
            "messages": turns if is_plain else json.dumps(turns, ensure_ascii=False),
            **({"tools": row.tools or "[]"} if has_tools else {}),
        }
        for row, turns in zip(rows, all_turns, strict=True)
    ]


def _turn(turn: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        told["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        told["tool_calls"] = json.loads(turn.tool_calls)
    for key in ("tool_call_id", "name"):
        if getattr(turn, key):
            told[key] = getattr(turn, key)
    if _is_masked(turn):
        told["train"] = False
    return told


def _is_masked(turn: Message) -> bool:
    return turn.role == "assistant" and not turn.carries_loss
