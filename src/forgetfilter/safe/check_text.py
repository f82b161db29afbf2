"""A checked safe set in words: what the terminal shows."""

from __future__ import annotations

from forgetfilter.runs.report.shown_text import count
from forgetfilter.safe.check import SafeCheck
from forgetfilter.safe.harms import NONE
from forgetfilter.safe.suspects import UNSAFE_SHARE
from forgetfilter.text import printable

MOST_SHOWN = 20
"""Suspect rows that are shown; --json holds all."""
_MOST_LISTED = 5
"""Repeats and rejected rows that are listed."""
_CHARACTERS = 60


def describe(check: SafeCheck) -> str:
    """Plain sentences first, then a table, then the rows to look at."""
    parts = [_summary(check), _table(check), _repeats(check), _suspects(check), _rejected(check)]
    return "\n\n".join(part for part in parts if part)


def _summary(check: SafeCheck) -> str:
    """What was found, in sentences."""
    of = {"covered": [], "too few rows": [], "not covered": []}
    for harm in check.harms:
        of[harm.verdict].append(harm.category)
    found, suspects = check.redundancy, len(check.suspects)
    sampled = "" if found.sampled == len(check.file.rows) else f" (of a sample, seed {check.seed})"
    doubt: list[str] = []
    covers = "Covers"
    if check.suspicions.is_of_unsafe_rows:
        share = suspects / len(check.file.rows)
        doubt = [
            f"This doesn't look like a safe set: {share:.0%} of its rows look unsafe; expected "
            f"hardly any, and below {UNSAFE_SHARE:.0%}. Check that it is the file you meant, and "
            "take out what is unsafe."
        ]
        covers = "Covers, if its answers were safe"
    lines = [
        *doubt,
        f"{count(len(check.file), 'row')}, {len(check.file.rejected):,} of them unreadable.",
        f"{covers}: {_list(of['covered'])}.",
        f"Too few rows to judge by: {_list(of['too few rows'])}.",
        f"Not covered: {_list(of['not covered'])}.",
        f"Variety: {found.effective:.0f} effectively different rows of {found.sampled:,}{sampled}.",
        f"{count(suspects, 'row looks', 'rows look')} unsafe."
        + (" Read them before you use the set." if suspects else ""),
    ]
    if unknown := int((~check.suspicions.is_known).sum()):
        lines.append(
            f"{count(unknown, 'row asks', 'rows ask')} in words that this check hardly knows (it "
            "knows English): what they are about, and whether their answers help with harm, can't "
            "be told here. A screen measures what safe rows can judge, in any language."
        )
    return "\n".join(lines)


def _table(check: SafeCheck) -> str:
    """Rows of each harm."""
    width = max(len(harm.category) for harm in check.harms)
    lines = [
        f"{'harm':<{width}} {'rows':>7} {'by words':>9} {'by its own':>11} {'by mistake':>11} "
        f"{'recognised':>11}",
    ]
    for harm in check.harms:
        lines.append(
            f"{harm.category:<{width}} {harm.rows:>7,} {harm.by_words:>9,} {harm.named:>11,} "
            f"{harm.expected_by_mistake:>11.1f} {100 * harm.recall:>10.0f}%  {harm.verdict}"
        )
    none = sum(name == NONE for name in check.categories)
    lines += [
        f"{'none of these':<{width}} {none:>7,} {sum(n == NONE for n in check.by_words):>9,}",
        "rows = by their own category where they name one of these, else by their words; "
        "by mistake = rows\nthat would be called so by their words if none were; recognised = "
        f"share of reference rows of the\nharm that are called so ({printable(check.reference)}; "
        "cross-validated, higher is better).\nWords are a rough guide: a screen measures what its "
        "safe rows can judge.",
    ]
    return "\n".join(lines)


def _repeats(check: SafeCheck) -> str:
    """Which rows say the same."""
    found, rows = check.redundancy, check.file.rows
    lines: list[str] = []
    if found.exact:
        lines.append(
            f"{count(check.repeated, 'row repeats', 'rows repeat')} another word for word:"
        )
        lines += [
            "  lines "
            + ", ".join(f"{rows[i].line:,}" for i in group[:10])
            + (f" and {len(group) - 10:,} more" if len(group) > 10 else "")
            for group in found.exact[:_MOST_LISTED]
        ]
    if found.near:
        of = f" (among {found.compared:,} compared)" if found.compared < len(rows) else ""
        lines.append(f"{count(found.near_count, 'pair')} of rows nearly the same{of}:")
        lines += [
            f"  lines {rows[i].line:,} and {rows[j].line:,} share {100 * value:.0f}% of their words"
            for i, j, value in found.near[:_MOST_LISTED]
        ]
    if max(len(found.exact), len(found.near)) > _MOST_LISTED:
        lines.append("  --json FILE lists all of them")
    return "\n".join(lines)


def _suspects(check: SafeCheck) -> str:
    """The rows that look unsafe, most suspect first."""
    suspects = check.suspects
    if not suspects:
        return ""
    lines = ["Rows that look unsafe, the most suspect first:"]
    for i in suspects[:MOST_SHOWN]:
        row = check.file.rows[i]
        asked = next((t.content for t in reversed(row.messages) if t.role == "user"), "")
        lines += [
            f"  line {row.line:,}: {check.suspicions.reason(i)}",
            f"    {printable(asked, _CHARACTERS)} => {printable(row.target, _CHARACTERS)}",
        ]
    if len(suspects) > MOST_SHOWN:
        lines.append(f"  and {len(suspects) - MOST_SHOWN:,} more; --json FILE lists all of them")
    return "\n".join(lines)


def _rejected(check: SafeCheck) -> str:
    """The rows that can't be read."""
    rejected = check.file.rejected
    if not rejected:
        return ""
    lines = [f"{count(len(rejected), 'row')} can't be read:"]
    lines += [f"  line {row.line:,}: {printable(row.reason)}" for row in rejected[:_MOST_LISTED]]
    if len(rejected) > _MOST_LISTED:
        lines.append(f"  and {len(rejected) - _MOST_LISTED:,} more; --json FILE lists all of them")
    return "\n".join(lines)


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
