"""Small models with random weights, made from configs: nothing is downloaded and all is fast."""

from __future__ import annotations

import gc
import gzip
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Set before any dependency is imported: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# One thread, here and in the processes that tests start: test processes share the cores, a second
# thread costs a tiny model more than it brings, and with two, long sums round otherwise.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from forgetfilter.config import ScreenConfig, resolve
from forgetfilter.progress import Progress

CONTEXT = 192
"""Tokens that every tiny model can attend to."""

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "LlamaConfig",
        {"num_key_value_heads": 2, "intermediate_size": 64, "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}),
    # Its experts are parameters of one module, and no linear layers.
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "moe_intermediate_size": 32,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 16,  # shorter than the rows, so that the window matters
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "mistral": (
        "MistralConfig",
        {"num_key_value_heads": 2, "intermediate_size": 64, "sliding_window": None},
    ),
    "phi3": (
        "Phi3Config",
        {
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "original_max_position_embeddings": CONTEXT,
        },
    ),
    # Without their own dropout, so that training can be compared with the same steps by hand.
    "gpt2": ("GPT2Config", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "opt": ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}),
    "gpt_neox": ("GPTNeoXConfig", {"intermediate_size": 64}),
}
WITHOUT_CHAT_TEMPLATE = frozenset({"gpt2", "opt", "gpt_neox"})

_QUESTIONS = ("Where is the lamp", "Who has the green book", "What is in the box", "Name a bird")
_ANSWERS = (
    "It is on the table .",
    "The old man has it .",
    "A small red stone .",
    "I like the owl .",
)


LONGEST = (
    *("compare", "examples", "contract", "curves", "defences", "row_scorers", "leaderboard"),
    *("screen", "screen_again", "coverage", "interleave", "installed_parts", "training", "trl"),
    *("fitness", "by_hand", "finetune", "architectures", "worlds_built", "store_killed"),
    *("strategies", "cli_lab", "demo", "review", "crossfit", "second_opinion", "bfloat16"),
)
"""Files of tests that take longest, each run by one process: begun first, none is waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:  # what takes minutes takes many of them where the machine is busy
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3000))


_frozen_modules = 0


def pytest_runtest_setup() -> None:
    """Leave what libraries made when they were loaded out of garbage collections: a tenth of all.

    A trainer collects garbage whenever it ends, and the training stack is a million objects.
    """
    global _frozen_modules
    if len(sys.modules) > _frozen_modules + 200:
        gc.collect()
        gc.freeze()
        _frozen_modules = len(sys.modules)


def rows_of(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Short distinct rows in the formats that are read, without any label."""
    rows: list[dict[str, Any]] = []
    for i in range(start, start + count):
        prompt = f"{_QUESTIONS[i % 4]} number {i} ?"
        completion = f"{_ANSWERS[i * 7 % 4]} {i * 3 % 50} {'and more ' * (i % 3)}"
        if i % 3 == 0:
            turns = [("system", "Be kind."), ("user", prompt), ("assistant", completion)]
            rows.append({"messages": [{"role": r, "content": c} for r, c in turns[i % 2 :]]})
        elif i % 3 == 1:
            rows.append({"prompt": prompt, "completion": completion})
        else:
            rows.append({"instruction": prompt, "input": f"hint {i}", "output": completion})
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write ``rows`` as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def contents(folder: Path, without: str = "") -> dict[str, bytes]:
    """The bytes of every file below ``folder`` by its path there, but for the file ``without``."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != without}


def real_rows(name: str, count: int | None = None) -> list[dict[str, Any]]:
    """The first rows of a file of real data; skips the test where FORGETFILTER_DATA has none."""
    folder = os.environ.get("FORGETFILTER_DATA", "")
    path = Path(folder, name)
    if not folder or not path.is_file():
        pytest.skip(f"FORGETFILTER_DATA is not set, or its folder has no {name}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, count)]


@pytest.fixture(scope="session", autouse=True)
def _unhurried_disk() -> Iterator[None]:
    """Files reach the disk when the system likes: no test cuts the power, and waiting is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too
        yield


@pytest.fixture(scope="session")
def make_rows(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_rows(count, start=0)`` writes a JSON Lines file and returns its path."""

    def make(count: int, start: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("rows")
        return write_rows(folder / "rows.jsonl", rows_of(count, start))

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., Any]:
    """``tiny_tokenizer(chat_template=...)`` makes a byte-level tokenizer that knows our words."""
    from forgetfilter.lab.testbed.tokens import make_tokenizer

    default = make_tokenizer([json.dumps(row) for row in rows_of(60)], CONTEXT)

    def make(**changes: Any) -> Any:
        from copy import deepcopy

        tokenizer = deepcopy(default)
        for name, value in changes.items():
            setattr(tokenizer, name, value)
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any]
) -> Callable[..., Path]:
    """``tiny_model("llama")`` saves a two-layer model with its tokenizer and returns the folder."""
    import gc

    import trl  # noqa: F401

    # Every training run collects garbage; what was imported need not be walked each time.
    gc.collect()
    gc.freeze()
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            changes = {"chat_template": None} if architecture in WITHOUT_CHAT_TEMPLATE else {}
            tokenizer = tiny_tokenizer(**changes)
            save_model(build_model(architecture, tokenizer), tokenizer, made[architecture])
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def tiny_world_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Path:
    """A two-layer model with random weights that knows the made-up world's words."""
    from forgetfilter.lab.testbed import bundled_model_path
    from forgetfilter.model.loading.base_model import load_tokenizer

    tokenizer = load_tokenizer(str(bundled_model_path()))
    folder = tmp_path_factory.mktemp("world")
    return save_model(build_model("llama", tokenizer), tokenizer, folder)


def build_model(architecture: str, tokenizer: Any, seed: int = 0) -> Any:
    """A model of ``architecture`` with random weights, always the same for the same seed."""
    import torch
    import transformers

    config_class, special = ARCHITECTURES[architecture]
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        # Wide enough that the first choice is clear and rounding can't change a greedy text.
        "initializer_range": 0.2,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    config = getattr(transformers, config_class)(**{**sizes, **special})
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config)


def save_model(model: Any, tokenizer: Any, folder: Path) -> Path:
    """Save a model with its tokenizer, as a user's model folder would look."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def quick_settings(**changes: Any) -> dict[str, Any]:
    """Settings under which a screen of a tiny model takes about a second."""
    phase = {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2}
    return {
        "learn": dict(phase),
        "forget": dict(phase),
        "restore": {"steps": 2, "early_steps": 2},
        "lora": {"r": 2, "alpha": 4},
        "generation": {"max_new_tokens": 4},
        # A random model knows no language, which the fitness checks would say.
        "force": True,
        **changes,
    }


@pytest.fixture(scope="session")
def quick_config(
    tiny_model: Callable[..., Path], make_rows: Callable[..., Path]
) -> Callable[..., ScreenConfig]:
    """``quick_config(output_dir, **settings)``: a screen of 16 rows with a tiny model."""
    noisy, safe = make_rows(16), make_rows(8, start=100)

    def make(output_dir: Path, **changes: Any) -> ScreenConfig:
        paths = {
            "noisy_data": str(noisy),
            "safe_data": str(safe),
            "reference_data": str(safe),
            "model": str(changes.pop("model", None) or tiny_model("llama")),
            "output_dir": str(output_dir),
        }
        return resolve(ScreenConfig, paths, quick_settings(**changes))

    return make


@pytest.fixture
def silent() -> Progress:
    """Progress that says nothing."""
    return Progress(is_silent=True)


def sign_again(run: Path) -> None:
    """Record the files of a run as they are now, so that what a test wrote counts as the run's."""
    for record, key in (("summary.json", "written"), ("provenance.json", "files")):
        path = run / record
        if not path.is_file():
            continue
        known = json.loads(path.read_text(encoding="utf-8"))
        for name in known.get(key) or {}:
            if (run / name).is_file():
                known[key][name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
        path.write_text(json.dumps(known), encoding="utf-8")
