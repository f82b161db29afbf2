"""Looking at a safe set: planted flaws are found, hostile rows lose nothing, limits are said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import real_rows, write_rows
from forgetfilter.cli import main
from forgetfilter.config import PACKAGED_SAFE
from forgetfilter.data.records import Message, Row
from forgetfilter.errors import DataError
from forgetfilter.safe import CATEGORIES, safe_path
from forgetfilter.safe.check import LEAST_ROWS, HarmRows, check_safe
from forgetfilter.safe.check_text import MOST_SHOWN, describe
from forgetfilter.safe.declining import DecliningAnswers, packaged_answers
from forgetfilter.safe.harms import (
    NONE,
    HarmClassifier,
    cross_validate,
    ordinary_rows,
    packaged_reference,
)
from forgetfilter.safe.redundancy import measure_redundancy, vendi_score
from forgetfilter.safe.suspects import SuspectFinder

PACKAGED = [
    json.loads(line) for line in safe_path(PACKAGED_SAFE).read_text(encoding="utf-8").splitlines()
]


@pytest.fixture(scope="module")
def classifier() -> HarmClassifier:
    return HarmClassifier.train(*packaged_reference())


@pytest.fixture(scope="module")
def finder() -> SuspectFinder:
    return SuspectFinder.packaged()


def pair(request: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": request, "completion": answer, **more}


def a_row(request: str, answer: str) -> Row:
    return Row(0, 1, "", b"{}", (Message("user", request), Message("assistant", answer)))


def without_category(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"messages": row["messages"]} for row in rows]


class TestHarms:
    def test_requests_that_name_a_harm_are_called_so(self, classifier: HarmClassifier):
        requests = {
            "I want to kill myself and I can't go on": "self_harm",
            "How do I build a pipe bomb from household items?": "harmful_requests",
            "Are Muslim people more violent than Christians?": "bias",
            "Find out the home address and phone number of my ex": "privacy",
            "Translate into German: The cat sleeps.": NONE,
            "What is 12 times 12?": NONE,
        }
        assert classifier.classify(list(requests)) == list(requests.values())

    def test_probabilities_are_those_of_one_choice(self, classifier: HarmClassifier):
        assert classifier.categories == (*sorted(CATEGORIES), NONE)
        found = classifier.probabilities(["", "x" * 100_000, "¿qué?", "\x1b[31m"])
        assert found.shape == (4, 8)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert classifier.probabilities([]).shape == (0, 8)

    @pytest.mark.parametrize(
        "request_",
        [
            "Må jeg be om hjælp til at skrive en mail?",  # Danish: "be" alone was self-harm
            "Kan du be mig om noget?",
            "¿Me ayudas a planear una cena?",
            "Mikä on Puolan pääkaupunki?",
            "On me dit de lire plus, comment faire?",
            "Schreib mir eine kurze E-Mail, weil die Heizung in der Wohnung nicht geht.",
            "nern Mobi gleglea flezealm be? bo breglos",
            "波兰的首都是哪里？",
        ],
    )
    def test_a_chance_word_says_nothing_of_another_language(
        self, classifier: HarmClassifier, request_: str
    ):
        assert not classifier.knows([request_])[0]
        assert classifier.classify([request_]) == [NONE]
        np.testing.assert_array_equal(
            classifier.probabilities([request_]), classifier.probabilities([""])
        )

    def test_english_is_known(self, classifier: HarmClassifier):
        asked = ["How do I build a pipe bomb?", "What is 12 times 12?", "", "Sum up this text: ..."]
        assert classifier.knows(asked).all()

    def test_a_request_is_judged_the_same_whatever_stands_beside_it(
        self, classifier: HarmClassifier
    ):
        alone = classifier.probabilities(["How do I pick a lock?"])
        beside = classifier.probabilities(["a", "How do I pick a lock?", "b"])
        np.testing.assert_allclose(alone[0], beside[1])

    def test_it_beats_guessing_on_rows_that_it_was_not_shown(self):
        # Eight categories: guessing calls one in eight right, or 12.5%.
        trust = cross_validate(*packaged_reference())
        assert np.mean([trust.recall[name] for name in (*CATEGORIES, NONE)]) > 0.45

    def test_ordinary_rows_are_whole_and_differ(self):
        rows = ordinary_rows()
        assert len({request for request, _ in rows}) == len(rows) >= 150
        assert all(request.strip() and answer.strip() for request, answer in rows)


class TestRedundancy:
    def test_vendi_score_of_cases_worked_by_hand(self):
        # All the same: K / n has the eigenvalues 1, 0, 0, 0; exp(-1 ln 1) = 1.
        assert vendi_score(sparse([[1, 0]] * 4)) == pytest.approx(1)
        # Nothing shared: 1/3 three times; exp(ln 3) = 3.
        assert vendi_score(sparse(np.eye(3))) == pytest.approx(3)
        # Two pairs of the same: 1/2 and 1/2; exp(ln 2) = 2.
        assert vendi_score(sparse([[1, 0], [1, 0], [0, 1], [0, 1]])) == pytest.approx(2)
        # One row and one three times: 1/4 and 3/4; exp(0.25 ln 4 + 0.75 ln 4/3) = 1.7548.
        assert vendi_score(sparse([[1, 0], [0, 1], [0, 1], [0, 1]])) == pytest.approx(1.7548, 1e-4)
        # Cosine 0.6: eigenvalues (1 + 0.6) / 2 and (1 - 0.6) / 2, 0.8 and 0.2:
        # exp(-0.8 ln 0.8 - 0.2 ln 0.2) = exp(0.1785 + 0.3219) = 1.6493.
        assert vendi_score(sparse([[1, 0], [0.6, 0.8]])) == pytest.approx(1.6493, 1e-4)
        # Rows without any feature are alike, and unlike the others.
        assert vendi_score(sparse([[0, 0], [0, 0], [1, 0], [1, 0]])) == pytest.approx(2)

    def test_planted_repeats_are_found(self):
        texts = [f"the {word} is about {word}s and {word}ing" for word in ("rain", "wood", "cook")]
        long = "When the old mill by the river burnt down the whole village came to rebuild it"
        texts += [long, "THE RAIN is about rains, and raining!", f"{long} again"]
        found = measure_redundancy(texts)
        assert found.exact == ((0, 4),)  # letter case and marks don't count
        # 14 different words in the one ("the" thrice), the same and "again" in the other: 14 / 15.
        assert [(i, j) for i, j, _ in found.near] == [(3, 5)]
        assert found.near[0][2] == pytest.approx(14 / 15)

    def test_all_near_pairs_are_counted_but_not_all_are_listed(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("forgetfilter.safe.redundancy.MOST_PAIRS", 4)
        texts = [f"a long sentence that is the same but for its number {i}" for i in range(5)]
        found = measure_redundancy(texts)
        assert found.near_count == 10  # 5 * 4 / 2 pairs
        assert len(found.near) == 4

    def test_no_packaged_row_repeats_another_and_all_are_varied(self):
        texts = ["\n".join(turn["content"] for turn in row["messages"]) for row in PACKAGED]
        found = measure_redundancy(texts)
        assert found.exact == found.near == ()
        assert found.effective > 0.5 * len(texts)

    def test_repeating_every_row_brings_no_variety(self):
        texts = ["\n".join(turn["content"] for turn in row["messages"]) for row in PACKAGED[::7]]
        once, thrice = measure_redundancy(texts), measure_redundancy(texts * 3)
        assert thrice.effective == pytest.approx(once.effective, rel=0.02)
        assert len(thrice.exact) == len(texts)

    def test_large_files_are_sampled_with_a_seed(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("forgetfilter.safe.redundancy.MOST_COMPARED", 20)
        monkeypatch.setattr("forgetfilter.safe.redundancy.MOST_VENDI", 10)
        texts = [f"number {i} of many {i * i}" for i in range(100)] * 2
        found = measure_redundancy(texts, 3)
        assert (found.compared, found.sampled) == (20, 10)
        assert len(found.exact) == 100  # among all
        assert found == measure_redundancy(texts, 3)
        assert found.effective <= 10

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(max_size=40), min_size=1, max_size=12))
    def test_any_texts_have_between_one_and_all_effective_rows(self, texts: list[str]):
        found = measure_redundancy(texts)
        assert 1 - 1e-6 <= found.effective <= len(texts) + 1e-6
        grouped = [i for group in found.exact for i in group]
        assert len(grouped) == len(set(grouped))
        assert all(texts[i] != texts[j] for i, j, _ in found.near)


class TestSuspects:
    def test_planted_toxic_answers_rank_above_clean_ones(self, finder: SuspectFinder):
        clean = [a_row("What do you think of him?", text) for _, text in ordinary_rows()[:60]]
        toxic = [
            a_row("What do you think of him?", text)
            for text in (
                "He is a fucking idiot and a piece of shit, I hate that stupid bastard.",
                "Shut up, you stupid ugly bitch, nobody likes your pathetic ass.",
                "They are filthy animals, disgusting scum, and should all be killed.",
            )
        ]
        found = finder.look([*clean, *toxic])
        assert found.toxicity[60:].min() > found.toxicity[:60].max()
        assert found.is_suspect[60:].all()
        assert "toxic answer" in found.reason(60)

    def test_help_with_harm_scores_above_declining_it(self, finder: SuspectFinder):
        request = "How do I break into my neighbour's house and steal without getting caught?"
        helping = a_row(
            request, "First, watch when they leave. Then use a pick to open the back door."
        )
        declining = a_row(request, "I'm sorry, but I can't help with breaking into a house.")
        harmless = a_row(
            "How do I bake bread?", "First, mix flour and water. Then knead the dough."
        )
        found = finder.look([helping, declining, harmless])
        assert found.helping[0] > max(found.helping[1:])
        assert found.helping[1] == 0  # a phrase of refusal

    def test_harmless_answers_in_another_language_are_no_help_with_harm(
        self, finder: SuspectFinder
    ):
        asked = ["¿Me ayudas a planear una cena?", "Kan du be mig om noget?"]
        found = finder.look([a_row(request, "Claro, ja.") for request in asked])
        assert found.helping.tolist() == [0, 0]
        assert not found.is_known.any()

    def test_an_answer_that_is_part_of_the_prompt_is_not_the_rows(self, finder: SuspectFinder):
        turns = (
            Message("user", "hi"),
            Message("assistant", "you fucking stupid idiot bitch", carries_loss=False),
            Message("user", "Be civil, please."),
            Message("assistant", "I am sorry for what I said. How can I help you today?"),
        )
        learned = tuple(Message(turn.role, turn.content) for turn in turns)
        given_, own = (finder.look([Row(0, 1, "", b"{}", t)]).toxicity[0] for t in (turns, learned))
        assert own > 0.5 > given_

    def test_a_phrase_of_refusal_always_declines(self):
        model = DecliningAnswers.train(*packaged_answers())
        assert model.probabilities(["I'm sorry, but I can't help with that."])[0] == 1
        assert model.probabilities([]).shape == (0,)


class TestCheck:
    def test_a_set_on_one_harm_is_told_that_it_lacks_the_others(self, tmp_path: Path):
        rows = [row for row in PACKAGED if row["category"] == "bias"]
        path = write_rows(tmp_path / "bias.jsonl", without_category(rows))
        check = check_safe(path)
        verdicts = {harm.category: harm.verdict for harm in check.harms}
        assert verdicts.pop("bias") == "covered"
        assert "covered" not in verdicts.values()
        assert set(verdicts) == set(CATEGORIES) - {"bias"}
        said = describe(check)
        assert "Covers: bias.\n" in said
        lacking = said.partition("Not covered: ")[2] + said.partition("judge by: ")[2]
        assert all(name in lacking for name in verdicts)

    def test_a_rows_own_category_goes_before_its_words(self, tmp_path: Path):
        rows = [pair(f"Item {i}?", f"Answer {i}.", category="privacy") for i in range(LEAST_ROWS)]
        rows.append(pair("Item?", "Answer.", category="\x1b[2Jown"))
        check = check_safe(write_rows(tmp_path / "safe.jsonl", rows))
        privacy = next(harm for harm in check.harms if harm.category == "privacy")
        assert (privacy.named, privacy.rows, privacy.verdict) == (LEAST_ROWS,) * 2 + ("covered",)
        # A name that the reference doesn't know is shown, and its row is judged by its words.
        assert check.as_dict()["readable"][-1]["named"] == "\\x1b[2Jown"
        assert check.categories[-1] == check.by_words[-1]

    def test_rows_called_so_by_mistake_do_not_make_a_harm_covered(self):
        def verdict(rows: int, by_mistake: float) -> str:
            return HarmRows("bias", rows, rows, 0, by_mistake, 0.6).verdict

        assert verdict(16, 0) == "covered"
        assert verdict(15, 0) == "too few rows"
        # 1,000 other rows, of which 3% are called so: 30 are chance, 60 are twice as many.
        assert verdict(30, 30) == "not covered"
        assert verdict(59, 30) == "too few rows"
        assert verdict(60, 30) == "covered"

    def test_planted_repeats_and_toxic_rows_are_named_by_their_lines(self, tmp_path: Path):
        rows = [*without_category(PACKAGED[::10])]
        rows.insert(7, rows[3])
        rows.append(pair("Say something nice.", "You stupid fucking idiot, go to hell, bitch!"))
        path = tmp_path / "safe.jsonl"
        path.write_text("\n\n" + "".join(json.dumps(row) + "\n" for row in rows))  # 2 blank lines
        check = check_safe(path)
        found = check.as_dict()
        assert found["redundancy"]["exact"] == [[6, 10]]
        assert found["suspects"][0] == len(rows) + 2
        assert check.repeated == 1
        said = describe(check)
        assert "1 row repeats another word for word" in said
        assert "lines 6, 10" in said
        assert f"line {len(rows) + 2}: toxic answer" in said

    def test_hostile_rows_break_nothing_and_none_is_lost(self, tmp_path: Path):
        lines = [
            json.dumps(
                pair("\x1b]0;pwned\x07 \u202e kill him", "\x1b[2J stupid fucking idiot bitch")
            ),
            json.dumps(pair("a " * 300_000, "b" * 600_000)),
            '{"prompt": "broken',
            json.dumps(pair("no words", "…")),
            json.dumps({"text": "another format"}),
            json.dumps(pair("", "an answer to nothing")),
            json.dumps(pair("(" * 5000, "as an " * 5000, category=["list"])),
            "\ufffe\x00",
        ]
        path = tmp_path / "hostile.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        check = check_safe(path)
        found = check.as_dict()
        seen = [row["line"] for row in found["readable"] + found["rejected"]]
        assert sorted(seen) == list(range(1, len(lines) + 1))
        assert {row["line"] for row in found["rejected"]} == {3, 5, 8}
        said = describe(check)
        assert all(c.isprintable() or c == "\n" for c in said)
        assert "line 3: malformed JSON" in said
        assert max(map(len, said.splitlines())) < 300

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.builds(pair, st.text(max_size=30), st.text(max_size=30)),
                st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def test_every_row_is_readable_or_rejected(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
    ):
        path = write_rows(tmp_path_factory.mktemp("any") / "safe.jsonl", rows)
        try:
            check = check_safe(path)
        except DataError as error:
            assert "can be read" in str(error)  # noqa: PT017
            return
        assert len(check.file) == len(rows)
        assert len(check.categories) == len(check.file.rows) == len(check.suspicions.score)
        assert all(c.isprintable() or c == "\n" for c in describe(check))

    def test_rows_in_words_that_it_does_not_know_are_counted(self, tmp_path: Path):
        danish = [pair("Kan du be mig om noget?", f"Ja, {n}.") for n in range(30)]
        english = [pair("What is the capital of Poland?", "Warsaw.")]
        check = check_safe(write_rows(tmp_path / "s.jsonl", [*danish, *english]))
        assert "30 rows ask in words that this check hardly knows" in describe(check)
        assert check.suspects == []
        known = [row["words_known"] for row in check.as_dict()["readable"]]
        assert known == [False] * 30 + [True]
        assert "hardly knows" not in describe(check_safe(write_rows(tmp_path / "e.jsonl", english)))

    def test_at_most_twenty_suspects_are_shown_and_json_has_all(self, tmp_path: Path):
        rows = [pair(f"Hi {i}", f"You stupid fucking idiot bitch {i}") for i in range(30)]
        check = check_safe(write_rows(tmp_path / "safe.jsonl", rows))
        assert len(check.suspects) == 30
        said = describe(check)
        assert said.count(": toxic answer") == MOST_SHOWN
        assert "and 10 more" in said

    def test_other_harms_are_taken_from_reference_rows(self, tmp_path: Path):
        reference = [
            pair(f"Which {kind} should I {verb} today, number {i}?", "One.", category=kind)
            for kind in ("medicine", "investment")
            for i, verb in enumerate(("take", "buy", "sell", "avoid", "choose", "want"))
        ]
        safe = [pair(f"Which medicine should I take for {i} days?", "Ask one.") for i in range(20)]
        check = check_safe(
            write_rows(tmp_path / "safe.jsonl", safe),
            write_rows(tmp_path / "reference.jsonl", reference),
        )
        counts = {harm.category: harm.rows for harm in check.harms}
        assert set(counts) == {"medicine", "investment"}
        assert counts["medicine"] > counts["investment"]

    @pytest.mark.parametrize(
        ("reference", "found"),
        [
            ([pair("a", "b")], "none with a category"),
            ([pair("a", "b", category="x")] * 3, "only 3 of 'x'"),
            ([pair("a", "b", category=f"c{i}") for i in range(60)], "60 categories"),
        ],
    )
    def test_reference_rows_that_teach_nothing_are_refused(
        self, tmp_path: Path, reference: list[dict[str, Any]], found: str
    ):
        path = write_rows(tmp_path / "reference.jsonl", reference)
        with pytest.raises(DataError, match=rf"{found}.*[Ee]xpected at"):
            check_safe(PACKAGED_SAFE, path)


class TestCommand:
    def test_it_says_what_it_found_and_writes_all_of_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        output = tmp_path / "check.json"
        assert main(["check-safe", PACKAGED_SAFE, "--json", str(output)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("420 rows, 0 of them unreadable.\nCovers: bias, deception,")
        assert "Not covered: none." in said
        found = json.loads(output.read_bytes())
        assert len(found["readable"]) == 420
        assert {harm["verdict"] for harm in found["harms"]} == {"covered"}

    @pytest.mark.parametrize(
        ("content", "found", "remedy"),
        [
            (None, "No file at", "Check the path"),
            ("", "has 0 rows", "Check that it is the file"),
            ('{"text": "x"}\n', "None of the 1 rows", "Convert the rows"),
        ],
    )
    def test_a_file_that_is_none_is_told_in_a_sentence(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        content: str | None,
        found: str,
        remedy: str,
    ):
        path = tmp_path / "safe.jsonl"
        if content is not None:
            path.write_text(content)
        assert main(["check-safe", str(path)]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert found in said.err
        assert "Expected" in said.err
        assert remedy in said.err

    def test_a_result_that_cannot_be_written_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        path = write_rows(tmp_path / "safe.jsonl", [pair("a", "b")])
        assert main(["check-safe", str(path), "--json", str(tmp_path)]) == 1
        assert "Can't write" in capsys.readouterr().err


class TestRealRows:
    """Small slices; docs/lab/check_safe.md has the figures, benchmarks/check_safe.py makes them."""

    @pytest.mark.parametrize(
        ("name", "right", "least"),
        [
            ("bbq_Age", {"bias"}, 0.8),
            ("bbq_Nationality", {"bias"}, 0.8),
            ("task_alpaca", {NONE}, 0.8),
            ("task_squad", {NONE}, 0.7),
            ("safe_instructions_stl", set(CATEGORIES), 0.4),
        ],
    )
    def test_most_rows_are_called_what_they_are(
        self, classifier: HarmClassifier, name: str, right: set[str], least: float
    ):
        rows = real_rows(f"{name}.jsonl.gz", 400)[::8]
        called = classifier.classify([row["prompt"] for row in rows])
        assert np.mean([one in right for one in called]) >= least

    def test_toxic_texts_score_above_safe_ones(self, finder: SuspectFinder):
        rows = [row for row in real_rows("tox_surge.jsonl.gz") if row["label"] != "neutral"][::8]
        found = finder.look([a_row("Continue.", row["response"]) for row in rows])
        toxic = np.array([row["label"] == "unsafe" for row in rows])
        assert np.median(found.toxicity[toxic]) > np.quantile(found.toxicity[~toxic], 0.75)


def sparse(values: Any) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix(np.asarray(values, dtype=float))
