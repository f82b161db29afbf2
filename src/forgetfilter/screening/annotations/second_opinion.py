"""The second opinion: a score of every row from elsewhere, beside the forgetting score.

A text classifier gives it (`classifier_opinion`), or the likeness to rows that are known to be
unsafe (`known_unsafe`). It decides nothing unless the joint rule is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from forgetfilter.config import WORDS, ScreenConfig
from forgetfilter.data.records import Row
from forgetfilter.errors import ConfigError
from forgetfilter.scoring.joint import check_joint
from forgetfilter.scoring.signals import SIGNALS
from forgetfilter.screening.annotations.classifier_opinion import (
    classifier_fingerprint,
    judge_rows,
    name_and_label,
)
from forgetfilter.screening.annotations.known_rows import known_fingerprint, known_unsafe_place
from forgetfilter.screening.annotations.known_unsafe import likeness_to_known
from forgetfilter.screening.annotations.opinions import SecondOpinion
from forgetfilter.screening.method import Setting
from forgetfilter.text import printable


def check_name(name: str | None) -> None:
    """Refuse what can't name a second opinion, before anything is read.

    Raises:
        ConfigError: it names a file: most likely the rows, which the flag took for its own; or
            rows known to be unsafe, and there are none.
    """
    if name is None or name == WORDS or known_unsafe_place(name):
        return
    path, _ = name_and_label(name)
    if Path(path).is_file():
        shown = printable(name, 300)
        raise ConfigError(
            f"second_opinion is {shown!r}, a file. Expected words, the folder or hub id of a text "
            "classifier, or known_unsafe:FILE. If these are the rows to screen, name them before "
            f"the flag: forgetfilter screen {shown} --second-opinion. If they are known to be "
            f"unsafe: --second-opinion known_unsafe:{shown}"
        )


def check_second_opinion(config: ScreenConfig) -> None:
    """Refuse what can't be, before anything is read.

    Raises:
        ConfigError: see `check_name` and `check_joint`.
    """
    check_name(config.second_opinion)
    check_joint(
        config.joint,
        has_opinion=config.second_opinion is not None,
        signal=config.signal,
        unit=SIGNALS.build(config.signal).unit,
    )


def opinion_fingerprint(name: str) -> str:
    """What identifies a second opinion: a classifier, or the rows known to be unsafe.

    Raises:
        ConfigError: there is no such file or run.
        DataError: the run's rows or decisions can't be read.
        ModelError: there is no such classifier, or it has no safetensors weights.
    """
    path = known_unsafe_place(name)
    return known_fingerprint(path) if path else classifier_fingerprint(name)


def ask(
    setting: Setting, rows: Sequence[Row], safe: Sequence[Row], inputs: Mapping[str, str]
) -> SecondOpinion | None:
    """The second opinion that the settings ask for, on every row that can be scored.

    Args:
        setting: the rows as tokens, and the base model.
        rows: the same rows as they were read.
        safe: the safe rows as they were read.
        inputs: sha256 by setting.

    Returns:
        None where none is asked for.

    Raises:
        DataError: see `likeness_to_known`.
        ModelError: see `judge_rows`.
    """
    name = setting.config.second_opinion
    if name is None:
        return None
    if known_unsafe_place(name):
        return likeness_to_known(name, setting, safe, inputs)
    bench = setting.bench
    return judge_rows(name, rows, bench.store, bench.progress, setting.config.device)
