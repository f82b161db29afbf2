"""Which worlds choose a method's options, and which only report.

The rule: whatever is chosen (a signal, its options, a threshold, a learning rate) is chosen on the
worlds of `CHOOSING` and on the bundled one, where everything may be looked at as often as one
likes. The worlds of `REPORTING` are opened once, when nothing will be chosen any more, and what
they say is reported whatever it is. Building their models and checking them against their floors is
no opening; scoring their rows is. Who chooses again after that needs other numbers here.
"""

from __future__ import annotations

CHOOSING = (1, 2, 3, 4, 10, 24, 25)
"""Beside the bundled world. 10 reported before, on `crossfit`, 24 on a first cut of the fifth
version of `contradiction`, and 25 on the sixth."""
REPORTING = (22, 23, 26, 27)
OPENED_BEFORE = (5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
"""They reported on earlier choices; nothing is chosen on them, and nothing more is claimed."""
