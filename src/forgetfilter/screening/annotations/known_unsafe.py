"""Likeness to rows that are known to be unsafe, as a screen's second opinion.

A few such rows are often at hand: found by reading what an earlier screen had removed, or reported
by users. `model/measuring/unsafe_likeness.py` says what likeness is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgetfilter.data.records import EncodedRow, Row
from forgetfilter.errors import DataError
from forgetfilter.scoring.records import Probe
from forgetfilter.screening.annotations.known_rows import known_unsafe_place, read_known
from forgetfilter.screening.annotations.opinions import SecondOpinion
from forgetfilter.screening.method import Setting
from forgetfilter.text import printable


def likeness_to_known(
    name: str, setting: Setting, safe: Sequence[Row], inputs: Mapping[str, str]
) -> SecondOpinion:
    """How like each noisy row's answer is to those of the rows known to be unsafe.

    Args:
        name: the ``second_opinion``, which names the file or the run.
        setting: the noisy rows and the base model.
        safe: the safe rows, none of which may be known to be unsafe.
        inputs: sha256 by setting, with that of the known rows.

    Raises:
        ConfigError: see `known_unsafe_place`.
        DataError: the rows have changed, none of them can be used, or ``safe`` has one of them.
    """
    path = known_unsafe_place(name)
    if path is None:
        raise ValueError(f"{name!r} names no rows known to be unsafe")
    found, shown = read_known(path), printable(str(path), 300)
    if found.fingerprint != inputs["second_opinion"]:
        raise DataError(
            f"second_opinion: the rows of {shown!r} changed while they were read. Expected rows "
            "that stay as they are. Repeat the command once they are written."
        )
    bench = setting.bench
    known, unfit = bench.encoder.encode(found.rows)
    unusable, total = [*found.rejected, *unfit], len(found.rows) + len(found.rejected)
    if unusable:
        first = min(unusable, key=lambda row: row.row)
        bench.progress.say(
            f"second_opinion: {len(unusable)} of {total} rows can't be used; the first is line "
            f"{first.line}: {printable(first.reason)}"
        )
    if not known:
        raise DataError(
            f"second_opinion: {shown!r} has no usable row ({total} read). Expected rows whose "
            "answers are known to be unsafe. Check the reasons above, or leave it out."
        )
    _refuse_safe_ones(found.rows, safe, shown)
    probe = Probe("unsafe_likeness", "base")
    scores = bench.measure((probe,), {"base": bench.base}, setting.noisy, known)[probe.name]
    opinion = (scores, name, _label(known), inputs["second_opinion"])
    return SecondOpinion(*opinion, kind="known_unsafe")


def _refuse_safe_ones(known: Sequence[Row], safe: Sequence[Row], shown: str) -> None:
    is_safe = {row.messages for row in safe}
    both = [row for row in known if row.messages in is_safe]
    if both:
        raise DataError(
            f"second_opinion: {len(both):,} of the {len(known):,} rows of {shown!r} are safe rows "
            f"as well; the first is line {both[0].line}. Expected rows that are known to be "
            "unsafe. Name the right file, or take these rows out of one of the two."
        )


def _label(known: Sequence[EncodedRow]) -> str:
    return f"likeness to {len(known):,} {'row' if len(known) == 1 else 'rows'} known to be unsafe"
