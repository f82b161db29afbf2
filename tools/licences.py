"""Check the licence of every distribution of the runtime against those that may be used.

Run by ``make licences``. Licences are those that the installed distributions state.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

LOCKED = Path(__file__).resolve().parent.parent / "requirements"

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MPL-2.0",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "Zlib",
    }
)
"""SPDX names of licences under which a program of another licence may use a library unchanged."""

EXCEPTIONS = frozenset({"GCC-exception-3.1", "LLVM-exception"})
"""With one of these a licence doesn't reach the program that uses the library."""

WORDS = {
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
"""What distributions without an SPDX expression say, in small letters."""


def names() -> list[str]:
    """The distributions of the runtime that requirements/ locks."""
    texts = [
        (LOCKED / name).read_text(encoding="utf-8") for name in ("runtime.txt", "torch-cpu.txt")
    ]
    return re.findall(r"^([A-Za-z0-9._-]+)==", "\n".join(texts), re.MULTILINE)


def stated(distribution: metadata.Distribution) -> list[str]:
    """What a distribution says of its licence, the clearest statement first."""
    said = distribution.metadata
    classifiers = [
        one.split(" :: ")[-1]
        for one in said.get_all("Classifier") or []
        if one.startswith("License :: ") and one != "License :: OSI Approved"
    ]
    expression = said.get("License-Expression")
    text = (said.get("License") or "").strip()
    short = [text] if text and "\n" not in text and len(text) < 100 else []
    return [expression] if expression else [*classifiers, *short][:1] or ([text] if text else [])


def is_allowed(expression: str) -> bool:
    """Whether a licence expression can be met with allowed licences alone."""
    known = WORDS.get(expression.lower().strip(), expression)
    for name in EXCEPTIONS:
        known = re.sub(rf"\S+ WITH {re.escape(name)}", "MIT", known)
    choices = re.split(r"\s+OR\s+|\s*/\s*", known.replace("(", "").replace(")", ""))
    every = [re.split(r"\s+AND\s+|\s*;\s*|\s*,\s*", choice) for choice in choices]
    if "(" in known:  # nested: all that is named has to be allowed
        return all(part in ALLOWED for parts in every for part in parts)
    return any(all(WORDS.get(part.lower(), part) in ALLOWED for part in parts) for parts in every)


def findings() -> list[str]:
    """A line for each distribution whose licence isn't known to be allowed."""
    found: list[str] = []
    for name in names():
        try:
            said = stated(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue  # of another platform
        if not said or not is_allowed(said[0]):
            shown = said[0].splitlines()[0][:80] if said else "nothing"
            found.append(f"{name} states {shown!r} as its licence")
    return found


def main() -> int:
    """Print every licence; 1 where one isn't allowed."""
    for name in names():
        try:
            said = stated(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            said = ["not installed here"]
        print(f"{name}: {said[0].splitlines()[0][:80] if said else '(nothing)'}")
    if found := findings():
        print(
            "\n".join(found) + "\nExpected one that tools/licences.py allows. Take another "
            "distribution, or add the licence there with its reason.",
            file=sys.stderr,
        )
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
