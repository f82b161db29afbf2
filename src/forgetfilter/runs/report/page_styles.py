"""What a page may style and run: its own sheet and script, each allowed by its hash alone.

The policy of a page refuses style attributes, so that no text that gets into one can hide, cover
or move anything. Lengths that follow from the run's numbers become classes in the sheet instead.
"""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup


class PageStyles:
    """A page's sheet in the making.

    Args:
        sheet: the fixed part.
    """

    def __init__(self, sheet: str) -> None:
        self._sheet = sheet
        self._classes: dict[str, str] = {}

    def placed(self, **lengths: float) -> str:
        """The class of what has these lengths.

        Args:
            **lengths: shares of the whole, by property (``left``, ``top``, ``width``);
                ``flex_grow`` is a plain number.
        """
        rule = ";".join(
            f"{name.replace('_', '-')}:{_number(value if name == 'flex_grow' else 100 * value)}"
            + ("" if name == "flex_grow" else "%")
            for name, value in lengths.items()
        )
        return self._classes.setdefault(rule, f"at-{len(self._classes)}")

    @property
    def text(self) -> Markup:
        """The whole sheet, for the inside of a style element."""
        placed = "".join(f".{name}{{{rule}}}\n" for rule, name in self._classes.items())
        return Markup(f"{self._sheet}\n{placed}")

    @property
    def hash(self) -> str:
        """What a policy names the sheet by; it changes with each further class."""
        return digest(self.text)


def digest(text: str) -> str:
    """What a page's policy names a script or a sheet by, after ``sha256-``."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _number(value: float) -> str:
    return f"{float(value):.3f}".rstrip("0").rstrip(".")
