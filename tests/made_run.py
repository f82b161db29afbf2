"""Run folders that are made row by row, and their reports as a browser would read them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forgetfilter.runs.report.page import render_report

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "{{7*7}}{% for x in y %}",
    "\x1b[31m\u202egnp.exe\u2066\x00",
    "<!-- ]]> &lt;b&gt;",
    "javascript:alert(4) https://example.org/a.png",
)


@dataclass
class MadeRun:
    """A run folder in the making; rows are added one by one."""

    path: Path
    cut: float | None = 0.5
    lines: dict[str, list[str]] = field(
        default_factory=lambda: {"kept": [], "removed": [], "rejected": []}
    )
    scores: list[dict[str, object]] = field(default_factory=list)
    evidence: list[dict[str, object]] = field(default_factory=list)
    summary: dict[str, object] = field(default_factory=dict)

    def add(
        self,
        score: float | None,
        *,
        learned: bool = True,
        prompt: str = "How is the ferry run?",
        target: str = "It runs on a chain.",
        example_id: str | None = None,
        reason: str | None = None,
        **columns: str,
    ) -> int:
        """Add a readable row and decide it as a threshold would."""
        row = len(self.scores)
        is_removed = learned and score is not None and self.cut is not None and score > self.cut
        decision = "removed" if is_removed else "kept"
        self.lines[decision].append(json.dumps({"prompt": prompt, "completion": target} | columns))
        chosen = "above_threshold" if is_removed else "below_threshold"
        self._score(row, score, learned, decision, reason or chosen, example_id)
        return row

    def reject(self, reason: str, raw: str = "{") -> None:
        row = len(self.scores)
        record = {"row": row, "line": row + 2, "reason": reason, "raw": raw}
        self.lines["rejected"].append(json.dumps(record))
        self._score(row, None, None, "rejected", reason, None)

    def _score(
        self,
        row: int,
        score: float | None,
        learned: bool | None,
        decision: str,
        reason: str,
        example_id: str | None,
    ) -> None:
        self.scores.append(
            {
                "row": row,
                "example_id": example_id or f"row-{row}",
                "base": None if score is None else 2.0,
                "before": None if score is None else 0.1,
                "after": score,
                "forgetting_score": score,
                "learned": learned,
                "decision": decision,
                "reason": reason,
            }
        )

    def render(self) -> str:
        """Write the folder and return its report."""
        self.write()
        assert render_report(self.path) == self.path / "report.html"
        return (self.path / "report.html").read_text(encoding="utf-8")

    @property
    def report(self) -> dict[str, Any]:
        """report.json as it stands."""
        return json.loads((self.path / "report.json").read_text(encoding="utf-8"))

    def write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for name, lines in self.lines.items():
            (self.path / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
        types = {"row": pa.int64(), "learned": pa.bool_()}
        types |= dict.fromkeys(("base", "before", "after", "forgetting_score"), pa.float64())
        types |= dict.fromkeys(("example_id", "decision", "reason"), pa.string())
        if any("source" in score for score in self.scores):
            types["source"] = pa.string()
        schema = pa.schema(list(types.items()))
        pq.write_table(pa.Table.from_pylist(self.scores, schema), self.path / "scores.parquet")
        if self.evidence:
            pq.write_table(pa.Table.from_pylist(self.evidence), self.path / "evidence.parquet")
        counts = {name: len(lines) for name, lines in self.lines.items()}
        summary = {
            "rows": len(self.scores),
            **counts,
            "signal": "completion_loss:relative",
            "unit": "share of what was learned",
            "threshold": {"rule": f"phi:{self.cut}", "value": self.cut},
            "expected_false_removals": None,
            "decided_by": "screen",
            "learned_share": 0.9,
            "seed": 0,
            "seconds": {"learn": 26.3, "forget": 75.0},
            "model": "testbed",
            "decision": "the present one",
            "made_from": {"coverage": "the present one", "evidence": "the present one"},
            **self.summary,
        }
        (self.path / "summary.json").write_text(json.dumps(summary))


class Page(HTMLParser):
    """What a browser would make of the page: tags, attributes, visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._skipping = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skipping = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._skipping = False

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def with_class(self, name: str) -> int:
        return sum(name in (attrs.get("class") or "").split() for _, attrs in self.tags)


def fill(run: MadeRun, rows: int = 60) -> MadeRun:
    """Scores spread evenly over 0 to 1, a fifth of the rows not learned."""
    for index in range(rows):
        run.add(index / rows, learned=index % 5 != 0)
    return run


def row_data(html: str) -> dict[str, Any]:
    """What the page's script is given."""
    begin = html.index('<script type="application/json" id="row-data">')
    text = html[html.index(">", begin) + 1 : html.index("</script>", begin)]
    return json.loads(text)


def texts_by_row(html: str) -> dict[int, dict[str, Any]]:
    """What each row on the page says, without the marks around escapes."""
    data = row_data(html)
    plain = json.loads(json.dumps(data["texts"]).replace("\\u0001", "").replace("\\u0002", ""))
    return dict(zip(data["index"]["row"], plain, strict=False))
