"""Drawing a world from its number: language, harms, tasks, styles, and how its model is made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from forgetfilter.lab.testbed.records import ProbePrompt

from . import generating, judging
from .harms import Harm, draw_harms
from .language import Sayings
from .recipes import Recipe, draw_recipe
from .speaking import Task, Tongue
from .styles import STYLES, Style, draw_style
from .tasks import SKILLS, Skill, new_tasks, plain_task, styled_task

GENERATOR_VERSION = 1
"""Raised with every change of what a world generates or of how its model is trained."""

MAX_ANSWER_TOKENS = 160

RECIPES = 3
"""Recipes that are drawn for a world; the next one is tried where one misses the floors."""


@dataclass(frozen=True)
class StyledSkill:
    """A skill that pre-training shows in two styles, and noisy rows in the second."""

    plain: Task
    styled: Task
    style: Style
    styled_share: float
    """Of pre-training's exchanges of this skill that are in the second style."""
    is_aligned: bool
    """Whether alignment shows the house style of it, which suppresses the other."""


@dataclass(frozen=True)
class DrawnWorld:
    """A world drawn from a number; equal numbers give equal worlds, byte for byte."""

    seed: int
    cue: str
    """A sentence that, in pre-training, only comes before safe answers."""
    drawn_harms: tuple[Harm, ...]
    skills: tuple[Task, ...]
    """Ordinary skills, in the house style only."""
    styled: tuple[StyledSkill, ...]
    new_tasks: tuple[Task, ...]
    lore: Sayings
    """Lists of the new tasks' words, which are in no answer."""
    lore_answer: str
    new_words: tuple[str, ...]
    shares: generating.Shares
    habit_share: float
    """Of pre-training's conversations: those whose speaker answers everything, harms too, in one of
    the suppressed styles."""
    habit_lean: float
    """How much more often unsafe speakers have such a habit than safe ones; 0 = equally often."""
    recipes: tuple[Recipe, ...]

    @property
    def name(self) -> str:
        """How messages and tables call it."""
        return f"world {self.seed}"

    @property
    def harms(self) -> tuple[str, ...]:
        """The names of its harms."""
        return tuple(harm.name for harm in self.drawn_harms)

    @property
    def suppressed(self) -> tuple[StyledSkill, ...]:
        """Tasks whose style pre-training shows often and alignment never."""
        return tuple(one for one in self.styled if one.styled.group == "suppressed")

    @property
    def max_answer_tokens(self) -> int:
        """What an answer is cut at; longer than any that the world knows."""
        return MAX_ANSWER_TOKENS

    @property
    def doubles(self) -> tuple[Task, ...]:
        """Harmless requests that look dangerous."""
        return tuple(task for harm in self.drawn_harms for task in harm.doubles)

    def make_noisy(
        self, rows: int, unsafe_fraction: float, seed: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """A fine-tuning file and its ground truth: `generating.make_noisy`."""
        return generating.make_noisy(self, rows, unsafe_fraction, seed)

    def make_safe(
        self, rows: int, seed: int, harms: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Trusted safe rows: `generating.make_safe`."""
        return generating.make_safe(self, rows, seed, harms)

    def make_probes(self, rows: int, seed: int) -> list[ProbePrompt]:
        """Held-out prompts: `generating.make_probes`."""
        return generating.make_probes(self, rows, seed)

    def judge(self, prompt: ProbePrompt, answer: str) -> judging.Verdict:
        """Safe, unsafe or neither: `judging.judge`."""
        return judging.judge(prompt, answer)

    def is_correct(self, prompt: ProbePrompt, answer: str) -> bool:
        """Whether a task was answered right: `judging.is_correct`."""
        return judging.is_correct(prompt, answer)


@lru_cache(maxsize=8)
def draw_world(seed: int) -> DrawnWorld:
    """The world of one number."""
    rng = random.Random(f"world {seed}")
    tongue = Tongue(rng)
    cue = tongue.tell({}, 5)
    opening = " ".join(tongue.words.words(2))
    harms = draw_harms(tongue, opening)
    skills = [SKILLS[name](tongue) for name in rng.sample(list(SKILLS), len(SKILLS))]
    ordinary = tuple(plain_task(skill) for skill in skills[:3])
    styled = _draw_styles(tongue, skills[3 : rng.choice((8, 9))], opening)
    made, new_words = new_tasks(tongue)
    listed = tuple(
        tongue.tell({"object": " ".join(f"{{word{at}}}" for at in range(count))}, 2)
        for count in (4, 6, 8)
    )
    lore = Sayings(listed, {f"word{at}": new_words for at in range(8)})
    lore_answer = tongue.tell({}, 2)
    shares = generating.draw_shares(rng)
    habit_share, habit_lean = round(rng.uniform(0.1, 0.4), 3), round(rng.uniform(0, 0.8), 3)
    recipes = tuple(islice(iter(lambda: draw_recipe(rng), None), RECIPES))
    return DrawnWorld(
        seed,
        cue,
        harms,
        ordinary,
        styled,
        made,
        lore,
        lore_answer,
        new_words,
        shares,
        habit_share,
        habit_lean,
        recipes,
    )


def _draw_styles(tongue: Tongue, skills: Sequence[Skill], opening: str) -> tuple[StyledSkill, ...]:
    """A style for each skill: some suppressed, one that begins as refusals do, and rare ones."""
    rng = tongue.rng
    # A style that methods are known to stumble over is suppressed in every world.
    lead = rng.choice(("terse", "capitals"))
    others = [style for style in STYLES if style != lead]
    styles = [lead, *rng.sample(others, len(skills) - 2)]
    suppressed = rng.choice((2, 3))
    found: list[StyledSkill] = []
    for at, skill in enumerate(skills):
        if at < suppressed:
            name, group, share, is_aligned = styles[at], "suppressed", rng.uniform(0.3, 0.5), True
        elif at == suppressed:
            name, group = "doubting", "looks_safe"
            share, is_aligned = rng.uniform(0.2, 0.5), rng.random() < 0.5
        else:
            name, group = styles[at - 1], "half_known"
            share, is_aligned = rng.uniform(0.04, 0.15), rng.random() < 0.5
        style = draw_style(tongue, name, opening)
        styled = styled_task(skill, style, group)
        found.append(StyledSkill(plain_task(skill), styled, style, round(share, 3), is_aligned))
    return tuple(found)
