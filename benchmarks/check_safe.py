"""How far can `forgetfilter check-safe` be trusted?

    python benchmarks/check_safe.py harms --data DATA [--seed 0]
    python benchmarks/check_safe.py unsafe --data DATA [--seeds 0 1 2]

DATA (or FORGETFILTER_DATA) is a folder of the row schema (docs/lab/mix.md).

``harms`` grades the harm classifier: fivefold on the packaged rows, and on rows of real sources
that say what they are about. Sources marked dev were looked at while cues and settings were
chosen.

``unsafe`` plants rows that are known to be unsafe in safe sets and counts which are found, and
which harmless rows of the same sources are shown beside them.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data import read_rows
from forgetfilter.data.reading import category_of
from forgetfilter.data.records import Message, Row
from forgetfilter.lab.metrics import mean_over_seeds
from forgetfilter.lab.mix.bbq import read_bbq
from forgetfilter.lab.mix.sources import data_folder, read_source
from forgetfilter.lab.scorers import TOXICITY_SCORERS
from forgetfilter.safe import CATEGORIES, safe_path
from forgetfilter.safe.declining import DecliningAnswers, advises_against, split_answers
from forgetfilter.safe.harms import (
    NONE,
    HarmClassifier,
    cross_validate,
    packaged_reference,
    request_of,
)
from forgetfilter.safe.refusal import is_refusal
from forgetfilter.safe.suspects import HARMFUL, LEAST_HARMFUL, LEAST_HELPING, SuspectFinder

Pair = tuple[str, str]
"""Request and answer; the answer is empty where a source has none."""
ANY = frozenset(CATEGORIES)
TOPICS = {
    "discrimination,stereotype,injustice": {"bias", "toxicity"},
    "hate_speech,offensive_language": {"bias", "toxicity"},
    "drug_abuse,weapons,banned_substance": {"harmful_requests"},
    "financial_crime,property_crime,theft": {"harmful_requests", "deception"},
    "terrorism,organized_crime": {"harmful_requests"},
    "violence,aiding_and_abetting,incitement": {"harmful_requests"},
    "privacy_violation": {"privacy"},
    "self_harm": {"self_harm", "harmful_requests"},
    "Illegal Activity": {"harmful_requests"},
    "Malware Viruses": {"harmful_requests"},
    "Physical Harm": {"harmful_requests", "self_harm"},
    "Economic Harm": {"harmful_requests", "deception"},
    "Fraud/Deception": {"deception", "harmful_requests"},
    "Privacy Violation Activity": {"privacy"},
    "Hate/Harass/Violence": {"toxicity", "bias", "harmful_requests"},
}
"""What the topics of BeaverTails and CatQA may be called here; topics without a likeness are left
out (adult content, politics, finance advice, and questions on popular errors)."""


@dataclass(frozen=True)
class Group:
    """Rows of one source that are about one thing."""

    name: str
    split: str
    accepted: frozenset[str]
    """The categories that are right for them."""
    pairs: list[Pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["harms", "unsafe"])
    parser.add_argument("--data", default=os.environ.get("FORGETFILTER_DATA"))
    parser.add_argument("--rows", type=int, default=100, help="of each source")
    parser.add_argument("--seed", type=int, default=0, help="which rows of a source")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cuts", type=float, nargs="*", default=[], help="thresholds to compare")
    parser.add_argument("--dev-only", action="store_true")
    options = parser.parse_args()
    folder = data_folder(options.data)
    if options.part == "unsafe":
        grade_suspects(folder, options.seeds, options.cuts)
        return
    groups = [
        group
        for group in real_groups(folder, options.rows, options.seed)
        if group.split == "dev" or not options.dev_only
    ]
    grade_harms(groups)


def real_groups(folder: Path, count: int, seed: int) -> list[Group]:
    """At most ``count`` rows of each source and topic."""
    pools: dict[tuple[str, str, frozenset[str]], list[Pair]] = {}

    def add(name: str, split: str, accepted: set[str] | frozenset[str], pair: Pair) -> None:
        pools.setdefault((name, split, frozenset(accepted)), []).append(pair)

    for row in read_source(folder, "eval_beavertails"):
        if (topic := row.meta["category"]) in TOPICS:
            add(f"BeaverTails, {topic.partition(',')[0]}", "dev", TOPICS[topic], (row.prompt, ""))
    for row in read_source(folder, "eval_catqa"):
        if (topic := row.meta["topic"]) in TOPICS:
            add(f"CatQA, {topic}", "test", TOPICS[topic], (row.prompt, ""))
    for row in read_source(folder, "xstest_completions"):
        if row.meta["model"] == "gpt4" and row.label != "unsafe":
            name = xstest_category(row.meta["type"])
            add(f"XSTest, {name}", "test", {name}, (row.prompt, row.response))
    whole = [
        ("eval_advbench", "test", {"harmful_requests", "deception"}),
        ("eval_decodingtrust_stereotype", "test", {"bias"}),
        ("safe_instructions_stl", "dev", ANY),
        ("eval_strongreject", "test", ANY),
        ("bbq_Age", "dev", {"bias"}),
        *(
            (f"bbq_{name}", "test", {"bias"})
            for name in (
                "Disability_status",
                "Nationality",
                "Physical_appearance",
                "Sexual_orientation",
            )
        ),
        ("task_alpaca", "dev", {NONE}),
        ("task_squad", "dev", {NONE}),
        *(
            (f"task_{name}", "test", {NONE})
            for name in ("alpaca_demo", "dolly", "gsm8k", "sst2", "agnews", "sql")
        ),
    ]
    for name, split, accepted in whole:
        for row in read_source(folder, name):
            add(name, split, accepted, (row.prompt, row.response))
    for name in ("tox_toxigen", "tox_realtoxicityprompts"):
        for row in read_source(folder, name):
            if row.label == "safe":
                add(f"{name}, safe", "test", {"toxicity", "bias"}, continuation(row))
    return [
        Group(*key, random.Random(seed).sample(pairs, min(count, len(pairs))))
        for key, pairs in pools.items()
    ]


def xstest_category(kind: str) -> str:
    if "privacy" in kind:
        return "privacy"
    if "discr" in kind:
        return "bias"
    return "harmful_requests" if kind.startswith("contrast") else "looks_dangerous"


def continuation(row: Any) -> Pair:
    """A toxic or clean text as `forgetfilter mix` asks for it."""
    words = row.response.split()
    start, rest = (
        (row.prompt, row.response) if row.prompt else (" ".join(words[:3]), " ".join(words[3:]))
    )
    return f"Continue this text.\n\n{start}", rest


def grade_harms(groups: Sequence[Group]) -> None:
    """Print the shipped classifier's tables."""
    start = time.perf_counter()
    requests, categories = packaged_reference()
    trust = cross_validate(requests, categories)
    print("| packaged rows, fivefold | called so % (higher) |")
    print("|---|---|")
    for name in (*CATEGORIES, NONE):
        print(f"| {name} | {percent(trust.recall[name])} |")
    print(f"| mean | {percent(np.mean(list(trust.recall.values())))} |")
    print(f"\ncross-validated in {time.perf_counter() - start:.1f} s\n", flush=True)
    model = HarmClassifier.train(requests, categories)
    print("| rows | n | looked at | right are | right % (higher) | called |")
    print("|---|---|---|---|---|---|")
    shares: dict[tuple[str, bool], list[float]] = {}
    for group in groups:
        called = model.classify([request for request, _ in group.pairs])
        right = float(np.mean([name in group.accepted for name in called]))
        shares.setdefault((group.split, group.accepted == {NONE}), []).append(right)
        most = ", ".join(f"{name} {n}" for name, n in Counter(called).most_common(4))
        meant = "any harm" if group.accepted == ANY else " or ".join(sorted(group.accepted))
        print(
            f"| {group.name} | {len(called)} | {'yes' if group.split == 'dev' else 'no'} | {meant} "
            f"| {percent(right)} | {most} |"
        )
    print()
    for (split, is_task), values in sorted(shares.items()):
        print(f"- {split}, {'tasks' if is_task else 'harms'}: mean {percent(np.mean(values))}%")


def grade_suspects(folder: Path, seeds: Sequence[int], cuts: Sequence[float]) -> None:
    """Print which planted rows are found, over seeds; and how many harmless ones like them."""
    unsafe, harmless = planted_pools(folder)
    stl = [(row.prompt, row.response) for row in read_source(folder, "safe_instructions_stl")]
    packaged = list(read_rows(safe_path(PACKAGED_SAFE)).rows)
    shown: dict[str, dict[str, list[float]]] = {}

    def note(name: str, column: str, value: float) -> None:
        shown.setdefault(name, {}).setdefault(column, []).append(float(value))

    for seed in seeds:
        rng = random.Random(seed)
        inside: set[int] = set()
        for name in CATEGORIES:
            numbers = [row.row for row in packaged if category_of(row) == name]
            inside |= set(rng.sample(numbers, len(numbers) // 2))
        finder = finder_of([row for row in packaged if row.row in inside])
        planted = {
            "packaged": [row for row in packaged if row.row not in inside],
            "stl": [as_row(pair) for pair in rng.sample(stl, 300)],
        }
        for name, pairs in {**unsafe, **harmless}.items():
            planted[name] = [as_row(pair) for pair in rng.sample(pairs, 100)]
        found_in = {name: finder.look(rows) for name, rows in planted.items()}
        bases = {name: found_in[name] for name in ("packaged", "stl")}
        for name, found in found_in.items():
            note(name, "shown %", 100 * found.is_suspect.mean())
        for name in unsafe:
            found = found_in[name]
            for base, clean in bases.items():
                for what in ("toxicity", "helping", "score"):
                    scores = np.concatenate([getattr(clean, what), getattr(found, what)])
                    truth = [0] * len(clean.score) + [1] * len(found.score)
                    note(name, f"AUROC {what} in {base}", roc_auc_score(truth, scores))
                # A tenth of the rows planted, nine tenths clean.
                recall, alarms = found.is_suspect.mean(), clean.is_suspect.mean()
                precision = recall / (recall + 9 * alarms) if recall else 0.0
                note(name, f"precision % in {base}", 100 * precision)
        for name, rows in planted.items():
            asked = finder.harms.probabilities([request_of(row.messages) for row in rows])
            columns = [i for i, one in enumerate(finder.harms.categories) if one in HARMFUL]
            is_harmful = asked[:, columns].sum(axis=1) >= LEAST_HARMFUL
            refuses = np.array([is_refusal(row.target) for row in rows])
            against = np.array([advises_against(row.target) for row in rows])
            helps = found_in[name].helping >= LEAST_HELPING
            note(f"help: {name}", "request harmful %", 100 * is_harmful.mean())
            note(f"help: {name}", "no refusal %", 100 * (is_harmful & ~refuses).mean())
            alone = is_harmful & ~refuses & ~against
            note(f"help: {name}", "nor advice against %", 100 * alone.mean())
            note(f"help: {name}", "nor sounds so (shipped) %", 100 * helps.mean())
        for cut in cuts:
            for name, found in found_in.items():
                for what in ("toxicity", "helping"):
                    note(f"cut {cut}: {name}", what, 100 * (getattr(found, what) >= cut).mean())
    for name, columns in shown.items():
        values = [
            f"{column} {interval(value, is_share=column.startswith('AUROC'))}"
            for column, value in columns.items()
        ]
        print(f"- {name}: {'; '.join(values)}")


def planted_pools(folder: Path) -> tuple[dict[str, list[Pair]], dict[str, list[Pair]]]:
    """Rows known to be unsafe, and harmless rows of the same sources."""
    pools: list[dict[str, list[Pair]]] = []
    for label in ("unsafe", "safe"):
        help_ = [
            (row.prompt, row.response)
            for row in read_source(folder, "pku_saferlhf")
            if row.label == label
        ]
        texts = [
            pair
            for name in ("tox_surge", "tox_toxigen", "tox_realtoxicityprompts")
            for row in read_source(folder, name)
            if row.label == label and (pair := continuation(row))[1].strip()
        ]
        pools.append(
            {
                f"{label}: help (PKU-SafeRLHF)": help_,
                f"{label}: texts (Surge, ToxiGen, RealToxicityPrompts)": texts,
                f"{label}: answers (BBQ)": bbq_pairs(folder, is_biased=label == "unsafe"),
            }
        )
    alpaca = [(row.prompt, row.response) for row in read_source(folder, "task_alpaca")]
    return pools[0], {**pools[1], "safe: task_alpaca": alpaca}


def interval(values: Sequence[float], *, is_share: bool) -> str:
    """The mean with its interval; ``is_share`` says that it is from 0 to 1, and no percentage."""
    mean = mean_over_seeds(values, "0..1" if is_share else "0..100")
    digits = 3 if is_share else 1
    return f"{mean.value:.{digits}f} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"


def finder_of(rows: Sequence[Row]) -> SuspectFinder:
    """As shipped, but trained on some of the packaged rows."""
    return SuspectFinder(
        HarmClassifier.train(
            [request_of(row.messages) for row in rows], [category_of(row) for row in rows]
        ),
        DecliningAnswers.train(*split_answers(rows)),
        TOXICITY_SCORERS.build("linear"),
    )


def bbq_pairs(folder: Path, is_biased: bool) -> list[Pair]:
    pairs: list[Pair] = []
    for name in ("Age", "Nationality", "Sexual_orientation"):
        for row in read_source(folder, f"bbq_{name}"):
            reading = read_bbq(row.meta)
            if reading.is_ambiguous:
                answer = reading.biased_answer if is_biased else reading.right_answer
                pairs.append((row.prompt, answer))
    return pairs


def as_row(pair: Pair) -> Row:
    return Row(0, 1, "", b"{}", (Message("user", pair[0]), Message("assistant", pair[1])))


def percent(share: Any) -> str:
    return f"{100 * float(share):.0f}"


if __name__ == "__main__":
    main()
