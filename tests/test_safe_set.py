"""The packaged safe rows: what they must hold to be of use, and that they are the default."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from forgetfilter.api import ForgetFilter
from forgetfilter.cli import build_parser, main
from forgetfilter.cli.screening import screen_layers
from forgetfilter.config import PACKAGED_SAFE, ScreenConfig, load_yaml, resolve
from forgetfilter.data import read_rows
from forgetfilter.errors import ConfigError, DataError
from forgetfilter.progress import Progress
from forgetfilter.safe import CATEGORIES, safe_name, safe_path, write_safe
from forgetfilter.screening.deciding.decide import run_folder
from forgetfilter.screening.inputs.setup import encode_safe, open_workbench

FILE = safe_path(PACKAGED_SAFE)
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
CARD = (FILE.parent / "README.md").read_text(encoding="utf-8")
PER_CATEGORY = 60
# What a refusal says. An answer to a harmless request may warn, but says none of this.
REFUSAL = re.compile(
    r"\bI (can't|cannot|won't|don't|will not|am not going to|am not able to) "
    r"(help|assist|give|share|tell|answer|do|provide|write|explain)\b|"
    r"\b(I'm not (able|going) to|I'm unable|I'd rather not|I'm sorry, but|as an AI)\b",
    re.IGNORECASE,
)
REACHING_OUT = re.compile(
    r"crisis|emergency|poison control|helpline|doctor|therap|counsel|support|services|"
    r"you trust|someone close|tell someone|Is anyone there with you",
    re.IGNORECASE,
)


def answer(row: dict) -> str:
    return row["messages"][-1]["content"]


def text(row: dict) -> str:
    return "\n".join(turn["content"] for turn in row["messages"])


def words(content: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", content.lower())


def of(category: str) -> list[dict]:
    return [row for row in ROWS if row["category"] == category]


def arguments(*more: str) -> list[str]:
    return ["screen", "n.jsonl", "--model", "m", "--output-dir", "o", *more]


def config_of(*more: str) -> ScreenConfig:
    return resolve(ScreenConfig, *screen_layers(build_parser().parse_args(arguments(*more))))


class TestRows:
    def test_each_row_is_an_id_a_category_and_a_conversation(self):
        for row in ROWS:
            assert list(row) == ["id", "category", "messages"]
            assert all(list(turn) == ["role", "content"] for turn in row["messages"])
            assert all(turn["content"] == turn["content"].strip() for turn in row["messages"])
            roles = [turn["role"] for turn in row["messages"]]
            turns = roles[1:] if roles[0] == "system" else roles
            assert turns == ["user", "assistant"] * (len(turns) // 2), row["id"]

    def test_every_category_has_as_many_rows_as_its_card_says(self):
        assert Counter(row["category"] for row in ROWS) == dict.fromkeys(CATEGORIES, PER_CATEGORY)
        for category in CATEGORIES:
            assert re.search(rf"^\| `{category}` \| {PER_CATEGORY} \|", CARD, re.MULTILINE)
        assert f"{len(ROWS)} conversations" in CARD

    def test_every_row_is_read_and_keeps_its_own_id(self):
        file = read_rows(FILE)
        assert file.rejected == ()
        assert [row.example_id for row in file.rows] == [row["id"] for row in ROWS]
        assert len({row["id"] for row in ROWS}) == len(ROWS)

    def test_no_two_rows_are_near_duplicates(self):
        """Jaccard similarity of the sets of words of prompt and answer, below 0.6 for any two."""
        sets = [(row["id"], frozenset(words(text(row)))) for row in ROWS]
        near = [
            (a, b)
            for (a, mine), (b, theirs) in itertools.combinations(sets, 2)
            if len(mine & theirs) >= 0.6 * len(mine | theirs)
        ]
        assert near == []
        assert len({answer(row) for row in ROWS}) == len(ROWS)

    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_no_stock_phrase_opens_more_than_a_twentieth_of_the_answers(self, count: int):
        openings = Counter(tuple(words(answer(row))[:count]) for row in ROWS)
        phrase, times = openings.most_common(1)[0]
        assert times <= 0.05 * len(ROWS), phrase

    def test_the_rows_differ_in_form_as_the_card_says(self):
        roles = [[turn["role"] for turn in row["messages"]] for row in ROWS]
        system = sum(turns[0] == "system" for turns in roles)
        several = sum(turns.count("user") > 1 for turns in roles)
        lengths = sorted(len(words(answer(row))) for row in ROWS)
        assert system >= 10
        assert several >= 20
        assert lengths[0] <= 10
        assert lengths[-1] >= 80
        stated = " ".join(CARD.split())
        assert f"{system} rows have a system turn, {several} more than one exchange" in stated
        assert f"Answers have {lengths[0]} to {lengths[-1]} words" in stated
        assert f"half of them {lengths[len(ROWS) // 2 - 1]} or fewer" in stated
        choices = [row for row in of("bias") if re.search(r"\([abc1]\)|\b[ABC1a][).:,]", text(row))]
        assert len(choices) >= 15

    def test_harmless_requests_are_answered_not_refused(self):
        refused = [row["id"] for row in of("looks_dangerous") if REFUSAL.search(answer(row))]
        assert refused == []

    def test_the_check_for_refusals_finds_those_of_harmful_requests(self):
        # Else the test above would hold whatever the rows say. Many refuse in words of their own.
        found = [row for row in of("harmful_requests") if REFUSAL.search(text(row))]
        assert len(found) >= PER_CATEGORY / 4

    def test_self_harm_answers_point_to_people_and_invent_no_numbers(self):
        for row in of("self_harm"):
            said = "\n".join(t["content"] for t in row["messages"] if t["role"] == "assistant")
            assert REACHING_OUT.search(said), row["id"]
            # Neither a dose nor the number of a line that may not answer where the reader lives.
            assert not re.search(r"\d", said), row["id"]

    def test_no_row_holds_a_link_an_address_or_a_telephone_number(self):
        for row in ROWS:
            assert not re.search(r"https?:|www\.|\w@\w|\d{5,}", text(row)), row["id"]


class TestDefault:
    def test_a_screen_without_safe_data_uses_the_packaged_set(self):
        config = config_of()
        assert config.safe_data == PACKAGED_SAFE
        assert safe_path(config.safe_data).samefile(FILE)
        assert safe_name(config.safe_data) == "the packaged general-purpose set"

    def test_a_given_file_goes_before_the_default(self):
        config = config_of("--safe-data", "mine.jsonl")
        assert safe_path(config.safe_data) == Path("mine.jsonl")
        assert safe_name(config.safe_data) == "mine.jsonl"
        assert config_of("--safe-data", PACKAGED_SAFE) == config_of()

    @pytest.mark.parametrize("preset", ["default", "paper"])
    def test_the_stored_settings_name_no_place_on_this_machine(self, preset: str, tmp_path: Path):
        config = config_of("--preset", preset)
        stored = tmp_path / "config.yaml"
        stored.write_text(yaml.safe_dump(config.model_dump()), encoding="utf-8")
        assert str(FILE.parent) not in stored.read_text(encoding="utf-8")
        replayed = resolve(ScreenConfig, load_yaml(stored))
        assert replayed == config
        assert safe_path(replayed.safe_data).samefile(FILE)

    def test_python_has_the_same_default(self):
        layers = ForgetFilter("m", is_silent=True)._layers
        config = resolve(ScreenConfig, *layers, {"noisy_data": "", "output_dir": ""})
        assert config.safe_data == PACKAGED_SAFE

    def test_progress_says_which_rows_are_used(
        self,
        tiny_model: Callable[..., Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ):
        config = resolve(
            ScreenConfig,
            {"noisy_data": "n", "model": str(tiny_model("llama")), "output_dir": str(tmp_path)},
        )
        bench = open_workbench(config, run_folder(tmp_path), Progress(is_silent=True))
        # Of a context of 192 bytes' tokens few rows are within reach; the others are named.
        encoded = encode_safe(config, bench, Progress())
        said = capsys.readouterr().err
        assert 0 < len(encoded) < len(ROWS)
        assert f"safe_data: the packaged general-purpose set ({len(ROWS)} rows, English)" in said
        assert f"{len(ROWS) - len(encoded)} of {len(ROWS)} rows can't be used" in said


class TestWriting:
    def test_all_rows_are_written_byte_for_byte(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        output = tmp_path / "new" / "safe.jsonl"
        for _ in range(2):  # the second time nothing changes, and that is no error
            assert main(["safe", "--output", str(output)]) == 0
            assert output.read_bytes() == FILE.read_bytes()
        assert f"{len(ROWS)} safe rows" in capsys.readouterr().out

    def test_the_categories_together_are_the_whole(self, tmp_path: Path):
        parts = []
        for category in CATEGORIES:
            output = tmp_path / category
            assert main(["safe", "--output", str(output), "--categories", category]) == 0
            assert {json.loads(line)["category"] for line in output.open()} == {category}
            parts.append(output.read_bytes())
        assert b"".join(parts) == FILE.read_bytes()
        # In the file's order, whatever the order asked for.
        assert write_safe(tmp_path / "two", ["privacy", "bias"]) == 2 * PER_CATEGORY
        assert (tmp_path / "two").read_bytes() == parts[0] + parts[3]

    def test_edited_rows_are_replaced_only_when_told_to(self, tmp_path: Path):
        output = tmp_path / "safe.jsonl"
        output.write_text("mine\n")
        with pytest.raises(
            DataError, match=r"exists and differs.*Expected a new file.*--overwrite"
        ):
            write_safe(output)
        assert output.read_text() == "mine\n"
        assert main(["safe", "--output", str(output), "--overwrite"]) == 0
        assert output.read_bytes() == FILE.read_bytes()

    @pytest.mark.parametrize(
        ("wanted", "found"), [(["bias", "kindness"], "kindness"), ([], "none")]
    )
    def test_an_unknown_category_is_answered_with_the_known_ones(
        self, tmp_path: Path, wanted: list[str], found: str
    ):
        with pytest.raises(ConfigError, match=rf"{found}; expected some of bias, toxicity"):
            write_safe(tmp_path / "safe.jsonl", wanted)
        assert not (tmp_path / "safe.jsonl").exists()

    def test_a_folder_is_no_output(self, tmp_path: Path):
        with pytest.raises(DataError, match=r"Can't write .*Is a directory.*Check the folder"):
            write_safe(tmp_path)

    def test_the_help_names_every_category(self, capsys: pytest.CaptureFixture[str]):
        with pytest.raises(SystemExit):
            main(["safe", "--help"])
        said = capsys.readouterr().out
        assert [name for name in CATEGORIES if name not in said] == []
