"""A mix as files, and as the table that the command prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from forgetfilter.data.writing import write_records
from forgetfilter.errors import ConfigError
from forgetfilter.files import write_json_atomic
from forgetfilter.lab.mix.mixing import Mix, Record, recipes_of
from forgetfilter.text import printable


def write_mix(mix: Mix, folder: Path) -> None:
    """Write the four files and ``mix.json``, which says what they were made from.

    Raises:
        ConfigError: the folder can't be written.
    """
    try:
        write_records(folder / "noisy.jsonl", mix.noisy)
        write_records(folder / "safe.jsonl", mix.safe)
        write_records(folder / "test.jsonl", mix.test)
        write_records(folder / "truth.jsonl", mix.truth)
        write_json_atomic(folder / "mix.json", summary_of(mix))
    except OSError as error:
        raise ConfigError(
            f"Can't write to {printable(str(folder), 300)!r}: {error.strerror}. Expected a folder "
            "with room in it. Check --output-dir."
        ) from None


def summary_of(mix: Mix) -> Record:
    """Settings, counts, licences and rows left out, as ``mix.json`` holds them."""
    return {
        "settings": asdict(mix.settings),
        "unsafe_rows": sum(record["is_unsafe"] for record in mix.truth),
        "recipes": {
            recipe.name: {"label_rule": recipe.label_rule, "separated_by": recipe.separated_by}
            for recipe in recipes_of(mix.settings)
        },
        "sources": [
            {
                "name": count.source.name,
                "licence": count.source.licence,
                "is_non_commercial": count.source.is_non_commercial,
                "rows_read": count.rows,
                "unsafe": count.drawn["unsafe"],
                "harmless": count.drawn["harmless"],
                "safe": count.drawn["safe"],
                "test": count.drawn["test"],
                "left_out": dict(sorted(count.left_out.items())),
            }
            for count in mix.counts
        ],
    }


def describe(mix: Mix) -> str:
    """The table that the command prints: rows per source and place, and licences."""
    unsafe = sum(record["is_unsafe"] for record in mix.truth)
    used = [count for count in mix.counts if count.drawn.total()]
    width = max(len(count.source.name) for count in used)
    lines = [
        f"noisy.jsonl: {len(mix.noisy):,} rows, {unsafe:,} of them unsafe (truth.jsonl says "
        f"which); safe.jsonl: {len(mix.safe):,} rows; test.jsonl: {len(mix.test):,} prompts",
        "",
        f"{'source':<{width}} {'unsafe':>7} {'harmless':>9} {'safe':>6} {'test':>6}  licence",
    ]
    for count in used:
        drawn, source = count.drawn, count.source
        mark = " (NON-COMMERCIAL)" if source.is_non_commercial else ""
        lines.append(
            f"{source.name:<{width}} {drawn['unsafe']:>7,} {drawn['harmless']:>9,} "
            f"{drawn['safe']:>6,} {drawn['test']:>6,}  {source.licence}{mark}"
        )
    left_out = [
        f"  {count.source.name}: {number:,} {reason}"
        for count in mix.counts
        for reason, number in sorted(count.left_out.items())
    ]
    if left_out:
        lines += ["", "Rows that could not be used:", *left_out]
    return "\n".join(lines)
