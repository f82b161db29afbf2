"""Run folders on disk: settings to resume or refuse by, one process at a time.

Nothing here cleans up when a process dies, because nothing has to: every name is either written
by a rename or recognised as unfinished, and the kernel lets go of a dead process's lock.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import yaml

from forgetfilter.config import RECORDED_HEADER, without_retired
from forgetfilter.errors import DataError, RunExistsError
from forgetfilter.files import is_temporary, remove, write_bytes_atomic, write_json_atomic
from forgetfilter.runs.changes import difference_lines, flatten, input_difference_lines
from forgetfilter.runs.file_names import (
    CONFIG_FILE,
    DECISIONS_FILE,
    LOCK_FILE,
    LOCKS_FOLDER,
    PENDING_FOLDER,
    PROVENANCE_FILE,
    REPORT_ROWS_FOLDER,
    RUN_OUTPUTS,
    STAGES_FOLDER,
)
from forgetfilter.runs.locking import (
    InUseError,
    locked,
    misplaced,
    refuse_open_to_all,
    refuse_other_than_file,
    refuse_other_than_folder,
    unusable,
)
from forgetfilter.runs.provenance import describe_environment
from forgetfilter.text import printable

_CONFIG_HEADER = RECORDED_HEADER
_EMPTIED_CONFIG = _CONFIG_HEADER + "# Being emptied by --overwrite.\n"
_SHOWN_DIFFERENCES = 8
_STEMS = {name.partition(".")[0] for name in (*RUN_OUTPUTS, CONFIG_FILE, PROVENANCE_FILE)}

_log = logging.getLogger(__name__)


class RunFolder:
    """The folder of one run: its configuration, inputs, outputs and stages."""

    def __init__(self, path: Path, outputs: frozenset[str] = RUN_OUTPUTS) -> None:
        """``outputs`` names what the run writes into the folder and ``overwrite`` may delete."""
        self.path = path
        self.stages = path / STAGES_FOLDER
        self._outputs = outputs
        self._is_locked = False

    @contextmanager
    def lock(self) -> Generator[None]:
        """Keep other processes out; makes the folder. Released by the kernel if we are killed.

        Raises:
            RunExistsError: another process holds the folder, it can't be a run's, everybody may
                write into it, or a link stands in it where files are written.
        """
        shown = _shown(self.path)
        with ExitStack() as held:
            try:
                self.path.mkdir(mode=0o775, parents=True, exist_ok=True)
                self._refuse_foreign()
                self._refuse_links()
                held.enter_context(locked(self.path / LOCK_FILE, waits=False))
                refuse_open_to_all(self.path, self.path / LOCK_FILE)
            except InUseError:
                raise RunExistsError(
                    f"Another process is using the run folder {shown}. Expected to have it alone. "
                    "Wait until that process ends, or choose another --output-dir."
                ) from None
            except OSError as error:
                raise unusable(self.path, error) from None
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    def open(
        self,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        overwrite: bool = False,
        ignore: frozenset[str] = frozenset(),
    ) -> bool:
        """Begin or resume the run of ``config`` on ``inputs``; the lock must be held.

        Args:
            config: everything that ``--config`` needs to replay the run, as plain values.
            inputs: sha256 by name of each input.
            overwrite: delete what another configuration left, only files that a run writes. Stages
                stay: they are named by what they are made from, so that they can't be mistaken.
            ignore: dotted keys of ``config``, or of its sections, that may differ.

        Returns:
            Whether an earlier run of the same configuration and inputs is resumed.

        Raises:
            RunExistsError: the folder holds a run that differs, or is not a run's at all.
        """
        self.sweep()
        text = config_text(config)
        is_resumed = False
        recorded = _read_text(self.path / CONFIG_FILE)
        if recorded != _EMPTIED_CONFIG and (self.path / CONFIG_FILE).exists():
            differences = self._differences(recorded, text, inputs, ignore)
            if not differences:
                is_resumed = True
            elif overwrite:
                self._delete_run()
            else:
                listed = "".join(f"\n  {line}" for line in differences[:_SHOWN_DIFFERENCES])
                more = len(differences) - _SHOWN_DIFFERENCES
                raise RunExistsError(
                    f"{_shown(self.path)} holds a run that differs:{listed}"
                    + (f"\n  and {more} more" if more > 0 else "")
                    + "\nExpected the same settings and inputs, to resume it. Use --overwrite to "
                    "replace it, or another --output-dir."
                )
        if not is_resumed:
            # The configuration comes first: a folder that has it is a run's and can be resumed.
            write_bytes_atomic(self.path / CONFIG_FILE, text.encode("utf-8"))
        if not (self.path / PROVENANCE_FILE).exists():
            seed = {"seed": config["seed"]} if "seed" in config else {}
            write_json_atomic(
                self.path / PROVENANCE_FILE,
                {**describe_environment(), **seed, "inputs": dict(inputs)},
            )
        return is_resumed

    def sweep(self) -> None:
        """Remove what killed processes left half written or half deleted; the lock must be held.

        Raises:
            RunExistsError: the folder has files but is not a run's.
        """
        self._require_lock()
        self._refuse_foreign()
        for name in os.listdir(self.path):
            if is_temporary(name):
                remove(self.path / name)
        if _read_text(self.path / CONFIG_FILE) == _EMPTIED_CONFIG:
            self._delete_run()

    def record(self, config: Mapping[str, Any]) -> None:
        """Write ``config`` as the run's, over what may be recorded; the lock must be held."""
        self._require_lock()
        text = config_text(config)
        if _read_text(self.path / CONFIG_FILE) != text:
            write_bytes_atomic(self.path / CONFIG_FILE, text.encode("utf-8"))

    def config(self) -> dict[str, Any]:
        """The configuration that the run was opened with; needs no lock.

        Raises:
            DataError: the folder is not there or not a run's.
        """
        path = self.path / CONFIG_FILE
        config = _parse_config(_read_text(path))
        if config is None:
            raise DataError(
                f"{_shown(self.path)} is not a run folder: no {CONFIG_FILE} of forgetfilter in it. "
                "Expected the --output-dir of an earlier run. Check the path."
            )
        return config

    def provenance(self) -> dict[str, Any]:
        """What `open` and `write_provenance` have recorded; empty if nothing yet."""
        try:
            value: Any = json.loads(_read_text(self.path / PROVENANCE_FILE) or "")
        except (ValueError, RecursionError):
            return {}
        return cast(dict[str, Any], value) if isinstance(value, dict) else {}

    def write_provenance(self, extra: Mapping[str, Any]) -> None:
        """Add to what `open` has recorded; the file is left alone if it says all that already.

        Versions stay those that the run began with.
        """
        recorded = self.provenance()
        merged = {**recorded, **cast(dict[str, Any], _plain(extra))}
        if merged != recorded:
            write_json_atomic(self.path / PROVENANCE_FILE, merged)

    def _require_lock(self) -> None:
        if not self._is_locked:
            raise RuntimeError("This use of a RunFolder needs RunFolder.lock() around it.")

    def _differences(
        self,
        recorded: str | None,
        text: str,
        inputs: Mapping[str, str],
        ignore: frozenset[str],
    ) -> list[str]:
        """One line for each setting and input that is not as recorded."""
        config = _parse_config(recorded)
        if config is None:
            return [f"{CONFIG_FILE} can't be read"]
        # Both sides have been through YAML, so that its rounding and types can't look like changes.
        settings = difference_lines(flatten(config), flatten(_parse_config(text)), ignore)
        # Killed between its two first files a run has no provenance yet, and no stages either.
        known = self.provenance().get("inputs", inputs)
        was = cast(dict[str, Any], known if isinstance(known, Mapping) else {})
        return [*settings.values(), *input_difference_lines(was, inputs).values()]

    def _delete_run(self) -> None:
        """Delete what a run wrote except its configuration, by which the folder stays a run's.

        The configuration is emptied first: killed half way, what is left can't pass for a run,
        and the next `open` goes on deleting. Stages stay, because another run may use them.
        """
        write_bytes_atomic(self.path / CONFIG_FILE, _EMPTIED_CONFIG.encode("utf-8"))
        for name in sorted({*self._outputs, PROVENANCE_FILE}):
            remove(self.path / name)

    def _refuse_foreign(self) -> None:
        """Raise if the folder has files but is not a run's; writing there could harm them."""
        names = {name for name in os.listdir(self.path) if not is_temporary(name)} - {LOCK_FILE}
        if not names:
            return
        if CONFIG_FILE not in names:
            found = f"has files in it but no {CONFIG_FILE}"
        elif not (_read_text(self.path / CONFIG_FILE) or "").startswith(_CONFIG_HEADER):
            found = f"has a {CONFIG_FILE} that forgetfilter didn't write"
        else:
            return
        raise RunExistsError(
            f"{_shown(self.path)} {found}. Expected a new or empty folder, or that of an earlier "
            "run. Choose another --output-dir."
        )

    def _refuse_links(self) -> None:
        """Raise if files outside the folder would be written or deleted by way of a link in it.

        A folder in the place of a file is refused too: no rename replaces it, so that a decision
        would stop half way.
        """
        locks = f"{STAGES_FOLDER}/{LOCKS_FOLDER}"
        for name in (STAGES_FOLDER, PENDING_FOLDER, REPORT_ROWS_FOLDER, locks):
            refuse_other_than_folder(self.path / name)
        for path in self.stages.iterdir() if self.stages.is_dir() else ():
            if path.is_symlink():
                refuse_other_than_folder(path)
        refuse_other_than_file(self.path / DECISIONS_FILE)
        for path in self.path.iterdir():
            if path.suffix and path.name.partition(".")[0] in _STEMS and path.is_dir():
                raise misplaced(path, "a file")


def config_text(config: Mapping[str, Any]) -> str:
    """What ``config.yaml`` holds for ``config``."""
    return _CONFIG_HEADER + yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)


def as_recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as it would be read back, so that YAML's rounding can't look like a change."""
    return _parse_config(config_text(config)) or {}


def _plain(value: Any) -> Any:
    """Mappings, sequences and paths as the plain types that YAML and JSON know."""
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value)
        return {str(name): _plain(item) for name, item in items.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast(list[Any], value)]
    return str(value) if isinstance(value, Path) else value


def _parse_config(text: str | None) -> dict[str, Any] | None:
    """The mapping in our own YAML, or None where it isn't that."""
    if text is None or not text.startswith(_CONFIG_HEADER):
        return None
    try:
        value: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return without_retired(cast(dict[str, Any], value)) if isinstance(value, dict) else None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _shown(path: Path) -> str:
    return repr(printable(str(path), 300))
