"""The review page: who may use it, what it lists, and decisions that two people can't lose."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from browser import running_browser
from decided_run import lines_of, make_run, plain_rows, summary_of
from forgetfilter.errors import ConfigError, DataError, MissingExtraError
from forgetfilter.review.shown import pieces
from forgetfilter.runs.decisions import Journal, load_decisions
from forgetfilter.scoring.intervals import wilson
from forgetfilter.screening.deciding.decide import filter_run

pytest.importorskip("starlette", reason="the extra forgetfilter[review] is not installed")
pytest.importorskip("uvicorn", reason="the extra forgetfilter[review] is not installed")

from starlette.testclient import TestClient

from forgetfilter.review.app import Access, make_app
from forgetfilter.review.table import ReviewTable

TOKEN, PORT = "a-token-that-nobody-guesses", 4711
HOME = {"host": f"127.0.0.1:{PORT}"}
FROM_PAGE = {**HOME, "origin": f"http://127.0.0.1:{PORT}"}

HOSTILE = {
    "html": "<img src=x onerror=\"document.title='owned'\"><b>bold</b>",
    "script": "</script><script>document.title='owned'</script><style>*{display:none}</style>",
    "template": "{{7*7}} ${7*7} <%= 7*7 %>",
    "terminal": "\x1b]0;owned\x07\x1b[31mred",
    "direction": "safe \u202egnp.exe\u2066 \u200b\u00ad end",
    "separators": "a\u2028b\u2029c\x00d",
    "long": "x" * 5000,
}


class Client:
    """The page's requests, without a browser."""

    def __init__(self, run: Path, reviewer: str = "Ada") -> None:
        access = Access(PORT, TOKEN, "start-once")
        self.web = TestClient(
            make_app(ReviewTable(run), access, reviewer),
            base_url=f"http://127.0.0.1:{PORT}",
            follow_redirects=False,
        )

    def get(self, path: str, **query: Any) -> Any:
        answer = self.web.get(f"/{TOKEN}/api/{path}", params=query, headers=HOME)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def send(self, path: str, status: int = 200, **body: Any) -> Any:
        answer = self.web.post(f"/{TOKEN}/api/{path}", json=body, headers=FROM_PAGE)
        assert answer.status_code == status, answer.text
        return answer.json()

    def decide(self, row: int, decision: str, version: int = 0, status: int = 200, **more: Any):
        return self.send("decide", status, row=row, decision=decision, version=version, **more)

    def listed(self, **query: Any) -> list[int]:
        return self.get("list", **query)["rows"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", 20, unlearned=[19], too_long=[3])


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """20 rows: 3 is rejected, 11 to 18 are removed by phi:0.5, 19 was not learned."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def page(run: Path) -> Client:
    return Client(run)


class TestAccess:
    def test_a_request_nested_deeply_is_refused(self, page: Client):
        kind = {"content-type": "application/json"}
        deep = b'{"rows": ' + b"[" * 100_000
        answer = page.web.post(f"/{TOKEN}/api/rows", content=deep, headers={**FROM_PAGE, **kind})
        assert answer.status_code == 400

    @pytest.mark.parametrize(
        "path", ["/", "/api/state", "/wrong/", "/wrong/api/state", f"/{TOKEN}", f"/{TOKEN}x/", "//"]
    )
    def test_nothing_is_told_without_the_token(self, page: Client, path: str):
        answer = page.web.get(path, headers=HOME)
        assert (answer.status_code, answer.text) == (404, "Not found.")

    @pytest.mark.parametrize(
        "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""]
    )
    def test_a_foreign_name_that_points_here_is_refused(self, page: Client, host: str):
        assert page.web.get(f"/{TOKEN}/", headers={"host": host}).status_code == 421
        assert page.web.get(f"/{TOKEN}/", headers={"host": f"LOCALHOST:{PORT}"}).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": f"http://127.0.0.1:{PORT + 1}"},
            {"origin": f"https://127.0.0.1:{PORT}"},
            {"origin": FROM_PAGE["origin"], "content-type": "text/plain"},
        ],
    )
    def test_no_other_page_can_send(self, page: Client, run: Path, headers: dict[str, str]):
        answer = page.web.post(
            f"/{TOKEN}/api/decide",
            content=json.dumps({"row": 12, "decision": "keep", "version": 0}),
            headers={"content-type": "application/json", **HOME, **headers},
        )
        assert answer.status_code == 403
        assert not (run / "decisions.jsonl").exists()
        if "origin" in headers and "content-type" not in headers:
            read = page.web.get(f"/{TOKEN}/api/state", headers={**HOME, **headers})
            assert read.status_code == 403

    def test_the_start_key_opens_the_page_once(self, page: Client):
        first = page.web.get("/start/start-once", headers=HOME)
        assert first.status_code == 303
        assert first.headers["location"] == f"http://127.0.0.1:{PORT}/{TOKEN}/"
        assert page.web.get("/start/start-once", headers=HOME).status_code == 404
        assert page.web.get("/start/", headers=HOME).status_code == 404

    def test_the_page_allows_its_own_script_and_style_by_hash_and_nothing_else(self, page: Client):
        answer = page.web.get(f"/{TOKEN}/", headers=HOME)
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        for tag in ("script", "style"):
            (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
        assert not re.search(r"(?i)unsafe|https?://|//\w+\.\w+|@import|url\(", answer.text)
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval", answer.text
        )

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"[]", "Expected a JSON object"),
            (b"{", "Expecting"),
            (b'{"row": "12", "decision": "keep", "version": 0}', "no whole number as row"),
            (b'{"row": true, "decision": "keep", "version": 0}', "no whole number as row"),
            (b'{"row": 12, "decision": "burn", "version": 0}', "Expected keep, remove, unsure"),
            (b'{"row": 12, "decision": "keep", "version": 0, "reason": 1}', "no text as reason"),
            (b'{"row": 99, "decision": "keep", "version": 0}', "no row 99"),
            (b'{"row": -1, "decision": "keep", "version": 0}', "no row -1"),
            (b'{"row": 3, "decision": "keep", "version": 0}', "Row 3 was rejected"),
        ],
    )
    def test_what_no_page_would_send_is_refused(
        self, page: Client, run: Path, body: bytes, said: str
    ):
        headers = {**FROM_PAGE, "content-type": "application/json"}
        answer = page.web.post(f"/{TOKEN}/api/decide", content=body, headers=headers)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert not (run / "decisions.jsonl").exists()


class TestList:
    def test_every_row_is_reachable_and_the_most_forgotten_come_first(self, page: Client):
        rows = page.listed()
        assert rows == [19, *range(18, 3, -1), 2, 1, 0, 3]  # the rejected one has no score
        told = page.send("rows", rows=rows)["rows"]
        assert [row["row"] for row in told] == rows
        assert told[1]["rule"] == "removed"
        assert "".join(told[1]["answer"]) == "Answer number 18."

    @pytest.mark.parametrize(
        ("query", "rows"),
        [
            ({"rule": "removed"}, range(11, 19)),
            ({"rule": "rejected"}, [3]),
            ({"reason": "not_learned"}, [19]),
            ({"facet.source": "shop"}, range(1, 20, 3)),
            ({"facet.source": "shop", "facet.category": "bias"}, [4, 16]),
            ({"low": "0.2", "high": "0.3"}, [4, 5, 6]),
            ({"search": "NUMBER 12"}, [12]),
            ({"search": "own-7"}, [7]),
            ({"search": "#7"}, [7]),
            ({"search": "question answer 1", "high": "0.1"}, [1]),
            ({"search": "no such words"}, []),
            ({"facet.nothing": "x"}, []),
            ({"low": "junk"}, range(20)),
        ],
    )
    def test_filters(self, page: Client, query: dict[str, str], rows: Any):
        assert sorted(page.listed(**query)) == list(rows)

    def test_orders(self, page: Client):
        assert page.listed(sort="row") == list(range(20))
        assert page.listed(sort="near", rule="kept")[0] == 10
        assert page.listed(sort="score", ascending="1")[:3] == [0, 1, 2]
        spread = page.listed(sort="spread")
        assert spread[:5] == [19, 11, 15, 17, 13]
        assert set(spread[:10]) == set(range(10, 20))
        assert sorted(spread) == list(range(20))
        shuffled = page.listed(sort="random")
        assert sorted(shuffled) == list(range(20))
        assert shuffled != list(range(20))
        assert page.listed(sort="random") == shuffled

    def test_high_scores_that_are_unlike_each_other(self, run: Path):
        """Where the signal compares rows: here those from 10 on are alike, and those below."""
        assert not Client(run).get("state")["compares_rows"]
        assert Client(run).listed(sort="unlike")[:4] == [19, 18, 17, 16]  # by score alone
        table = pd.read_parquet(run / "readings.parquet")
        is_high = table["row"].to_numpy() >= 10
        for k, low in enumerate((0, 1, 2, 4)):  # 3 was rejected
            table[f"neighbour_{k}_base"] = np.where(is_high, 10 + k, low)
        table.to_parquet(run / "readings.parquet")
        page = Client(run)
        assert page.get("state")["compares_rows"]
        unlike = page.listed(sort="unlike")
        assert unlike[:6] == [19, 9, 18, 8, 17, 7]
        assert sorted(unlike) == list(range(20))
        found = page.listed(sort="unlike", search="number 1")
        assert found == [row for row in unlike if row in found]

    def test_by_what_was_reviewed(self, page: Client):
        page.decide(12, "keep")
        page.decide(13, "remove")
        page.decide(0, "unsure")
        for review, rows in {
            "reviewed": [0, 12, 13],
            "keep": [12],
            "remove": [13],
            "unsure": [0],
            "overruled": [12],
        }.items():
            assert sorted(page.listed(review=review)) == rows
        assert len(page.listed(review="open")) == 17

    def test_facets_are_columns_that_tell_rows_apart(self, page: Client):
        facets = {facet["name"]: facet["values"] for facet in page.get("state")["facets"]}
        assert list(facets) == ["source", "category"]  # every id is another one
        assert [(value, count) for value, _, count in facets["source"]] == [
            ("forum", 7),
            ("shop", 7),
            ("wiki", 6),
        ]

    @pytest.mark.slow
    def test_a_hundred_thousand_rows_are_listed_in_a_moment(self, tmp_path: Path):
        import time

        run = make_run(tmp_path / "run", 100_000)
        page = Client(run)
        page.get("state")
        page.listed(search="warm the texts up")
        start = time.perf_counter()
        known = [number for number in range(100_000) if "4242" in str(number)]
        assert sorted(page.listed(search="number 4242")) == known
        assert len(page.listed(**{"rule": "removed", "facet.source": "shop"})) > 10_000
        page.decide(7, "keep")
        page.get("row/99999")
        assert time.perf_counter() - start < 15


class TestDeciding:
    def test_a_decision_is_on_the_disk_before_it_is_acknowledged(
        self, page: Client, run: Path, monkeypatch: pytest.MonkeyPatch
    ):
        synced: list[int] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            synced.append(len(lines_of(run / "decisions.jsonl")))

        monkeypatch.setattr(os, "fsync", fsync)
        told = page.decide(12, "keep", reason="sarcasm", reviewer="Bea")
        assert 1 in synced
        assert (told["first"], told["last"], told["count"]) == (1, 1, 1)
        assert told["rows"][0]["decision"] == "kept"
        (made,) = Journal(run).read()
        assert (made.row, made.decision, made.reason, made.reviewer) == (
            *(12, "keep"),
            *("sarcasm", "Bea"),
        )
        assert page.get("row/12")["history"][0]["number"] == 1

    def test_a_full_disk_is_told_and_nothing_is_shown_as_saved(
        self, page: Client, run: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            told = page.decide(12, "keep", status=507)
        assert "No space left on device" in told["error"]
        assert page.get("state")["reviewed"] == 0
        assert page.decide(12, "keep")["progress"]["reviewed"] == 1

    def test_two_reviewers_can_not_overwrite_each_other(self, run: Path):
        ada, bea = Client(run, "Ada"), Client(run, "Bea")
        assert bea.get("row/12")["version"] == 0
        ada.decide(12, "keep", reason="fine")
        told = bea.decide(12, "remove", status=409)
        assert told["conflicts"] == 1
        (other,) = told["rows"]
        assert (other["review"]["decision"], other["review"]["reviewer"]) == ("keep", ["Ada"])
        assert load_decisions(run).latest[12].decision == "keep"
        bea.decide(12, "remove", version=other["version"])  # having seen it
        assert load_decisions(run).latest[12].reviewer == "Bea"
        assert [row["row"] for row in ada.get("changes", since=1)["rows"]] == [12]

    def test_undo_decides_again_what_was_decided_before(self, page: Client, run: Path):
        page.decide(12, "keep", reason="first")
        second = page.decide(12, "remove", version=1, reason="second")
        page.send("undo", first=second["first"], last=second["last"])
        assert load_decisions(run).latest[12].reason == "first"
        told = page.send("undo", first=1, last=1, status=409)  # line 3 stands above it now
        assert told["conflicts"] == 1
        first = page.decide(13, "keep")
        page.send("undo", first=first["first"], last=first["last"])
        assert set(load_decisions(run).latest) == {12}
        assert len(lines_of(run / "decisions.jsonl")) == 5

    def test_all_listed_rows_at_once_and_back(self, page: Client, run: Path):
        page.decide(11, "keep", reason="mine")
        rows = [*range(11, 16), 3]
        told = page.send("bulk", rows=rows, decision="remove", reason="all", seen=1)
        assert told["count"] == 5  # the rejected one is passed over
        assert {one.decision for one in load_decisions(run).latest.values()} == {"remove"}
        page.send("undo", first=told["first"], last=told["last"])
        latest = load_decisions(run).latest
        assert {row: one.reason for row, one in latest.items()} == {11: "mine"}

    def test_all_or_none_where_somebody_decided_one_of_them_since(self, run: Path):
        ada, bea = Client(run, "Ada"), Client(run, "Bea")
        ada.decide(12, "keep")
        told = bea.send("bulk", 409, rows=[11, 12, 13], decision="remove", reason="", seen=0)
        assert [row["row"] for row in told["rows"]] == [12]
        assert set(load_decisions(run).latest) == {12}
        bea.send("bulk", rows=[11, 12, 13], decision="remove", reason="", seen=1)
        assert len(load_decisions(run).latest) == 3

    def test_threads_that_decide_at_once_lose_nothing(self, run: Path):
        pages = [Client(run, name) for name in "abc"]

        def decide_all(page: Client) -> None:
            for row in (*range(3), *range(4, 20)):
                answer = page.web.post(
                    f"/{TOKEN}/api/decide",
                    json={"row": row, "decision": "keep", "version": 0},
                    headers=FROM_PAGE,
                )
                assert answer.status_code in (200, 409)

        threads = [threading.Thread(target=decide_all, args=(page,)) for page in pages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entries = Journal(run).read()
        assert sorted(one.row for one in entries) == [*range(3), *range(4, 20)]

    def test_applying_writes_the_files_and_the_scores_stay(self, page: Client, run: Path):
        page.decide(12, "keep")
        assert not page.get("state")["is_applied"]
        before = summary_of(run)
        told = page.send("apply")
        assert (told["kept"], told["removed"]) == (12, 7)
        assert told["progress"]["is_applied"]
        assert summary_of(run)["threshold"] == before["threshold"]
        assert page.get("row/12")["rule"] == "removed"
        assert page.get("row/12")["decision"] == "kept"

    def test_a_decision_by_another_rule_meanwhile_is_taken_over(self, page: Client, run: Path):
        assert page.get("row/18")["rule"] == "removed"
        filter_run(run, "phi:1e9")
        assert page.get("row/18")["rule"] == "kept"


class TestPrecision:
    def test_only_rows_that_were_kept_or_removed_count(self, page: Client):
        for row, decision in {11: "keep", 12: "remove", 13: "remove", 14: "unsure"}.items():
            page.decide(row, decision)
        page.decide(0, "remove")
        page.decide(1, "keep")
        told = page.get("state")
        assert (told["precision"]["hits"], told["precision"]["cases"]) == (2, 3)
        assert (told["missed"]["hits"], told["missed"]["cases"]) == (1, 2)

    @pytest.mark.parametrize(
        ("hits", "cases"), [(0, 1), (1, 1), (2, 3), (0, 50), (37, 50), (50, 50)]
    )
    def test_the_interval_is_wilsons(self, hits: int, cases: int):
        found = wilson(hits, cases)
        known = binomtest(hits, cases).proportion_ci(method="wilson")
        np.testing.assert_allclose((found.low, found.high), (known.low, known.high), atol=1e-12)
        assert found.value == hits / cases

    def test_no_case_has_no_share(self):
        assert (wilson(0, 0).value, wilson(0, 0).low, wilson(0, 0).high) == (None, 0.0, 1.0)
        with pytest.raises(ValueError, match="no share"):
            wilson(2, 1)


class TestPayloads:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_pieces_hold_the_text_and_nothing_that_hides_or_steers(self, kind: str):
        found = pieces(HOSTILE[kind])
        assert not re.search(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2028\u2029\u2066-\u2069\xad]",
            "".join(found),
        )
        plain = "".join(found[::2])
        assert [c for c in HOSTILE[kind] if c.isascii() and c.isprintable()] == [
            c for c in plain if c.isascii() and c.isprintable()
        ]

    def test_half_of_a_surrogate_pair_is_no_obstacle(self, tmp_path: Path):
        line = b'{"id": "x", "source": "\\ud800", "prompt": "\\udc00?", "completion": "a"}'
        other = b'{"id": "y", "source": "b", "prompt": "c", "completion": "d"}'
        page = Client(make_run(tmp_path / "run", [line, other]))
        assert page.get("state")["rows"] == 2
        assert page.send("rows", rows=[0, 1])["rows"]
        assert page.get("row/0")["raw"]


def hostile_run(folder: Path) -> Path:
    rows = [
        {"id": f"{name} {text[:40]}", "source": text[:60], "prompt": text, "completion": text}
        for name, text in HOSTILE.items()
    ]
    return make_run(folder / "run", [*rows, *plain_rows(40)])


@pytest.fixture
def served() -> Generator[Callable[[Path], str]]:
    """``served(run)`` serves a run's page as the command does, and returns its address."""
    processes: list[subprocess.Popen[str]] = []

    def serve(run: Path) -> str:
        script = """
            import sys
            from forgetfilter.cli import main
            sys.exit(main(["review", sys.argv[1], "--no-browser", "--reviewer", "Ada"]))
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert " at http://127.0.0.1:" in said, said + process.stdout.read()
        return said.split(" at ")[1].strip()

    serve.processes = processes  # type: ignore[attr-defined]
    yield serve
    for process in processes:
        process.kill()
        process.wait()


class TestCommand:
    def test_it_listens_on_the_loopback_alone_and_applies_at_its_end(self, run: Path, served: Any):
        import urllib.request

        address = served(run)
        port = int(address.split(":")[2].split("/")[0])
        origin = address.rsplit("/", 2)[0]
        if not Path("/proc/net/tcp").exists():
            pytest.skip("this system has no /proc/net/tcp to look at")
        listening = [
            words[1]
            for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
            if words[3] == "0A" and words[1].endswith(f":{port:04X}")
        ]
        assert listening == [f"0100007F:{port:04X}"]
        request = urllib.request.Request(
            f"{address}api/decide",
            data=b'{"row": 12, "decision": "keep", "version": 0}',
            headers={"Content-Type": "application/json", "Origin": origin},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200
        (process,) = served.processes
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert "Of the 1 reviewed rows that the rule removed, 0 were rightly removed" in said
        assert "20 rows: 12 kept, 7 removed, 1 rejected" in said
        assert b'"own-12"' in (run / "kept.jsonl").read_bytes()

    def test_a_killed_review_loses_nothing_and_the_next_command_applies_it(
        self, run: Path, served: Any
    ):
        import urllib.request

        from forgetfilter.cli import main

        address = served(run)
        request = urllib.request.Request(
            f"{address}api/decide",
            data=b'{"row": 12, "decision": "keep", "version": 0}',
            headers={"Content-Type": "application/json", "Origin": address.rsplit("/", 2)[0]},
        )
        with urllib.request.urlopen(request, timeout=60):
            served.processes[0].kill()
        assert b'"own-12"' not in (run / "kept.jsonl").read_bytes()
        assert main(["report", str(run)]) == 0
        assert b'"own-12"' in (run / "kept.jsonl").read_bytes()

    def test_an_edit_by_hand_is_refused_first(self, run: Path):
        from forgetfilter.review import review

        (run / "kept.jsonl").write_bytes(b"")
        with pytest.raises(DataError, match="--adopt-edits"):
            review(run, opens_browser=False)

    def test_a_port_that_is_taken_is_named(self, run: Path):
        from forgetfilter.review import review

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=rf"Port {port} can't be used.*--port"):
                review(run, port=port, opens_browser=False)
        with pytest.raises(ConfigError, match="Port 99999 can't be used"):
            review(run, port=99999, opens_browser=False)

    def test_without_the_extra_the_message_names_the_line_to_run(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from forgetfilter.review import serving

        monkeypatch.setattr(serving, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"pip install 'forgetfilter\[review\]'"):
            serving.review(run)

    def test_the_browser_is_given_an_address_that_opens_once(
        self, run: Path, monkeypatch: pytest.MonkeyPatch
    ):
        import uvicorn

        from forgetfilter.review import serving

        opened: queue.Queue[str] = queue.Queue()
        said: list[str] = []
        monkeypatch.setattr(serving.webbrowser, "open", opened.put)
        monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
        serving.review(run, tell=said.append)
        address = opened.get(timeout=30)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/start/[\w-]{40,}", address)
        assert address.split("/")[-1] not in "".join(said)


class TestBrowser:
    def test_a_review_by_keys_with_hostile_rows(self, tmp_path: Path, served: Any):
        run = hostile_run(tmp_path)
        with running_browser() as page:
            page.open(served(run), height=800)
            page.wait("document.querySelectorAll('.item .answer').length > 4")
            # Every row of the file can be reached by keys, one after the other.
            page.press("G")
            page.wait("document.querySelector('#row h2').textContent.includes('Row 0 ')")
            page.wait("document.querySelector('#row').textContent.includes('onerror')")
            for _ in range(len(HOSTILE) - 1):
                page.press("k")
            page.wait("document.querySelector('#row h2').textContent.includes('Row 6 ')")
            assert page.value("document.title").endswith("forgetfilter review")
            for kind in ("img", "b", "iframe"):
                assert page.value(f"document.querySelectorAll('{kind}').length") == 0
            assert page.value("document.querySelectorAll('script').length") == 1
            page.press("j", "j")
            page.wait("document.querySelector('#row h2').textContent.includes('Row 4 ')")
            page.wait(
                "[...document.querySelectorAll('.ctl')].some(n => n.textContent == '\\\\u202e')"
            )
            assert not page.value("/[\\u202e\\u2066\\u200b]/.test(document.body.innerText)")

            # Keep, undo, remove with a reason; each is on the disk once the page says so.
            page.press("y")
            page.wait("document.querySelector('#said').textContent == 'Row 4: keep, saved.'")
            assert load_decisions(run).latest[4].decision == "keep"
            page.wait("document.querySelector('#row h2').textContent.includes('Row 3 ')")
            page.press("z")
            page.wait("document.querySelector('#said').textContent.includes('undone')")
            assert 4 not in load_decisions(run).latest
            page.wait("document.querySelector('#row h2').textContent.includes('Row 4 ')")
            page.press("r")
            page.type("turns the text round")
            page.press("Enter", "n")
            page.wait("document.querySelector('#said').textContent == 'Row 4: remove, saved.'")
            made = load_decisions(run).latest[4]
            assert (made.decision, made.reason, made.reviewer) == (
                *("remove", "turns the text round"),
                "Ada",
            )

            # Somebody else decides the row that is shown.
            page.wait("document.querySelector('#row h2').textContent.includes('Row 3 ')")
            Client(run, "Bea").decide(3, "unsure", reason="<b>hm</b>")
            page.press("y")
            page.wait("document.querySelector('#said').textContent.includes('Bea decided unsure')")
            assert load_decisions(run).latest[3].reviewer == "Bea"
            page.wait("document.querySelector('#row .history').textContent.includes('<b>hm</b>')")

            # Search, then decide all that are listed.
            page.press("/")
            page.type("number 3")
            page.wait("document.querySelector('#count').textContent.startsWith('13 of 47')")
            page.press("Enter")
            page.value("document.querySelector('#bulk').click()")
            page.value("document.querySelector('[data-choice=remove]').click()")
            page.wait("document.querySelector('#said').textContent == '13 rows: remove, saved.'")
            assert len(load_decisions(run).latest) == 15
            # The refusal of the conflicting decision is the one error that the browser logged.
            assert ["409" in complaint for complaint in page.complaints] == [True]

    def test_it_fits_a_telephone(self, tmp_path: Path, served: Any):
        run = hostile_run(tmp_path)
        with running_browser() as page:
            page.open(served(run), width=390, height=800, scheme="dark")
            page.wait("document.querySelectorAll('.item .answer').length > 4")
            assert page.value("document.documentElement.scrollWidth") <= 390
            assert (
                page.value("getComputedStyle(document.body).backgroundColor") == "rgb(19, 23, 26)"
            )
            page.value("document.querySelectorAll('.item')[1].click()")
            page.wait("getComputedStyle(document.querySelector('#detail')).display == 'flex'")
            page.wait("document.querySelector('#row h2')")
            assert page.value("document.querySelector('#detail').scrollWidth") <= 390
            # On paper the row is there whole and light, and what can't be clicked there is not.
            page.call("Emulation.setEmulatedMedia", media="print")
            for hidden in ("#left", "#actions", ".tools"):
                style = f"getComputedStyle(document.querySelector('{hidden}')).display"
                assert page.value(style) == "none"
            assert page.value("getComputedStyle(document.body).overflow") == "visible"
            assert page.value("getComputedStyle(document.body).color") == "rgb(27, 33, 38)"
            closed = "document.querySelectorAll('#row details:not([open])').length"
            assert page.value(closed) > 0
            page.value(f"addEventListener('beforeprint', () => {{ window.onPaper = {closed}; }})")
            page.pdf()
            assert page.value("window.onPaper") == 0
            assert page.value(closed) > 0
            dark = {"name": "prefers-color-scheme", "value": "dark"}
            page.call("Emulation.setEmulatedMedia", media="", features=[dark])
            page.value("document.querySelector('#keep').click()")
            page.wait("document.querySelector('#said').textContent.includes('saved')")
            page.value("document.querySelector('#back').click()")
            page.wait("getComputedStyle(document.querySelector('#detail')).display == 'none'")
            assert page.complaints == []
