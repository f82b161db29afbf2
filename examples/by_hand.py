"""What `forgetfilter screen` does by default, by hand: PyTorch, transformers, peft, scikit-learn.

Read it from top to bottom. Four steps find the unsafe rows of a file, without any label:

1. learn:   fine-tune a LoRA adapter on all rows of the file, safe and unsafe alike; and one on each
            random half of them, which has never seen the other half's rows.
2. restore: a few gradient steps bring the behaviour on known safe rows back to the base model's.
3. score:   how much does the loss of each row, and of the rows like it, rise on the way back, in
            most of these models? It counts by how much the row contradicts what the base model
            would answer itself, and less where the row is unlike all that stand out.
4. cut:     remove the rows whose score is above the emptiest place of the scores' density.

    python examples/by_hand.py --model DIR --noisy FILE --safe FILE --output scores.jsonl

Scores agree to within 1e-4 nats per root token with those of `forgetfilter screen --dtype float32
--set learn.stop=epochs --set learn.num_train_epochs=6`; tests/test_by_hand.py compares them. By
default the package also finds the number of epochs, see `learn`. It reads more row formats and
models without a chat template, rejects unusable rows, checks that the model can judge the rows at
all, resumes, and writes a report.

A `category` in the safe rows names what kind of row each is, so that all kinds are restored alike.
"""

import argparse
import hashlib
import json
import random
from itertools import cycle, islice

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy, log_softmax
from torch.nn.utils import clip_grad_norm_, vector_to_parameters
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed


def encode(path, tokenizer):
    """Token ids of each row of a JSON Lines file, labels (-100 outside answers), and category."""
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.strip()]
    rows = []
    for row in records:
        turns = row.get("messages") or [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
        spans = []  # the characters of each answer, end-of-turn mark included
        for i in range(len(turns)):
            if turns[i]["role"] == "assistant":
                prompt = tokenizer.apply_chat_template(
                    turns[:i], tokenize=False, add_generation_prompt=True
                )
                text = tokenizer.apply_chat_template(turns[: i + 1], tokenize=False)
                spans.append((len(prompt), len(text.rstrip())))
        tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = torch.tensor(tokens.input_ids), tokens.offset_mapping
        is_answer = [any(a < stop and b > start for start, stop in spans) for a, b in offsets]
        rows.append((ids, ids.where(torch.tensor(is_answer), -100), row.get("category", "other")))
    return rows


def forward(model, rows):
    """Logits (B, T-1, V) of the next tokens in a batch of rows, and these tokens as labels."""
    every_ids, every_labels, _ = zip(*rows, strict=True)
    ids = pad_sequence(every_ids, batch_first=True)
    labels = pad_sequence(every_labels, batch_first=True, padding_value=-100)
    mask = pad_sequence([torch.ones_like(ids) for ids in every_ids], batch_first=True)
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    return logits[:, :-1], labels[:, 1:].to(model.device)


def adapter(model):
    """The weights that are trained: those of the LoRA adapter alone."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def flat(tensors):
    """A copy of some tensors as one vector."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def learn(model, rows, epochs, seed):
    """1. Fine-tune the adapter on all rows; return it after two passes, and at the end.

    By default (`learn.stop: learned`) the package finds the number of epochs. The learning rate
    stays level until the share of learned rows, measured after each epoch, no longer rises; half as
    many epochs again then bring it to zero.
    """
    weights = adapter(model)
    epoch_steps = -(-len(rows) // 16)  # 16 rows a step
    steps = epochs * epoch_steps
    warmup = round(0.03 * steps)
    early_step = max(1, min(2 * epoch_steps, steps // 2))
    learning_rate = 2e-4 * (4096 / model.config.hidden_size) ** 0.75
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(  # up to the rate, and linearly down to zero
        optimizer,
        lambda step: step / warmup if step < warmup else (steps - step) / (steps - warmup),
    )
    model.train()
    for epoch in range(epochs):
        # The order that the trainer of transformers draws.
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + epoch))
        for batch in order.split(16):
            logits, labels = forward(model, [rows[i] for i in batch])
            # The mean over all answer tokens of the batch, so that a long answer counts for more.
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            if schedule.last_epoch == early_step:  # it counts steps
                early = flat(weights)
        print(f"learn: epoch {epoch + 1} of {epochs}, loss {loss.item():.3f} nats per token")
    model.eval()
    return early, flat(weights)


def safe_batches(safe, steps, seed):
    """The safe rows of each step, 4 a step: every category from the start, each by its share."""
    rng, members = random.Random(seed), {}
    for row in safe:
        members.setdefault(row[2], []).append(row)
    queues = [rng.sample(rows, len(rows)) for rows in members.values()]
    rng.shuffle(queues)
    placed = [(rank / len(rows), row) for rows in queues for rank, row in enumerate(rows)]
    order = cycle(row for _, row in sorted(placed, key=lambda place: place[0]))
    return [list(islice(order, min(4, len(safe)))) for _ in range(steps)]


def divergence(model, rows):
    """``KL(base || model)`` of each row, the mean over its answer tokens, in nats."""
    with torch.no_grad(), model.disable_adapter():
        base = log_softmax(forward(model, rows)[0], dim=-1)  # (B, T-1, V)
    logits, labels = forward(model, rows)
    nats = (base.exp() * (base - log_softmax(logits, dim=-1))).sum(dim=-1)  # (B, T-1)
    is_answer = labels != -100
    return (nats * is_answer).sum(dim=1) / is_answer.sum(dim=1)


def restore(model, safe, steps, seed):
    """2. Bring the behaviour on safe rows back to the base model's.

    The divergence is zero in the base model, so its gradient g holds only what learning has
    damaged. The Polyak step 2 f / |g|^2 needs no learning rate: where the divergence f is
    quadratic, it leads to zero. No step is longer than a tenth of the adapter.
    """
    values = []
    for batch in safe_batches(safe, steps, seed):
        f = divergence(model, batch).mean()
        values.append(f.item())
        if values[-1] > 1e-6:  # less is rounding
            weights = flat(adapter(model))
            g = flat(torch.autograd.grad(f, adapter(model)))
            length = min(2 * values[-1] / g.norm(), 0.1 * weights.norm())
            vector_to_parameters(weights - length * g / g.norm(), adapter(model))
    print(f"restore: KL to base {values[0]:.4f} -> {values[-1]:.4f} nats per token")


def weights_of(row):
    """How much each answer token counts: 1 for the first of an answer, then 5% less for each."""
    weights, last = [], 0.0
    for label in row[1][1:].tolist():
        last = 0.0 if label == -100 else (0.95 * last or 1.0)
        weights.append(last)
    return torch.tensor(weights, dtype=torch.double)


@torch.no_grad()
def read(model, rows):
    """Loss of each row, nats: summed over its answer tokens by their weights, and their mean."""
    sums, means = [], []
    for i in range(0, len(rows), 16):
        logits, labels = forward(model, rows[i : i + 16])
        nats = cross_entropy(logits.transpose(1, 2), labels, reduction="none").double().cpu()
        weights = pad_sequence([weights_of(row) for row in rows[i : i + 16]], batch_first=True)
        sums += (nats * weights).sum(dim=1).tolist()
        means += (nats.sum(dim=1) / (weights > 0).sum(dim=1)).tolist()
    return np.array(sums), np.array(means)


@torch.no_grad()
def means(model, rows, part, frame=()):
    """What base makes of the rows' answers, of its own in their place, or of prompts.

    The mean hidden state where the answer's tokens are predicted, of the layer two thirds of the
    way up and of the last one. Of its own answer to the row's prompt, greedily, the first eight
    tokens. As texts, eight tokens of either are read behind ``frame`` in the prompt's place.
    """
    found = []
    for ids, labels, _ in rows:
        ids, is_answer = ids[None].to(model.device), labels != -100
        start = (is_answer[1:] & ~is_answer[:-1]).nonzero()[-1] + 1  # of the last answer
        if part in ("own", "own_text"):
            said = model.generate(
                ids[:, :start],
                max_new_tokens=8,
                do_sample=False,
                return_dict_in_generate=True,
                output_hidden_states=True,
            )
            steps = zip(*said.hidden_states, strict=True)
            states = [torch.cat([step[:, -1:] for step in own], dim=1) for own in steps]
            chosen = slice(None)
        if part in ("own_text", "given_text"):
            before = torch.tensor([frame], dtype=ids.dtype, device=ids.device)
            text = said.sequences if part == "own_text" else ids
            read = torch.cat([before, text[:, start : start + 8]], dim=1)
            states = model(input_ids=read, output_hidden_states=True).hidden_states
            chosen = slice(len(frame), None)
        if part == "prompt":
            states = model(input_ids=ids[:, :start], output_hidden_states=True).hidden_states
            chosen = slice(None)
        if part == "answer":
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
            chosen = is_answer.roll(-1) & (torch.arange(len(labels)) < len(labels) - 1)
        layers = torch.cat([states[2 * (len(states) - 1) // 3], states[-1]], dim=-1)[0]
        found.append(layers[chosen].mean(dim=0).double().cpu().numpy())
    return np.stack(found)


def vectors(table, size=64, standard=None):
    """Each dimension standardised, by ``standard`` where given, and projected at random.

    Beyond 1,000 rows the package standardises by 1,000 of them.
    """
    by = table if standard is None else standard
    table = (table - by.mean(axis=0)) / (by.std(axis=0) + 1e-6)
    return table @ np.random.default_rng(0).normal(size=(table.shape[1], size))


def neighbours(model, rows):
    """The four rows whose answers the base model represents most alike, for each row."""
    table = vectors(means(model, rows, "answer"))
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    near = table @ table.T
    np.fill_diagonal(near, -np.inf)
    return np.argsort(-near, axis=1)[:, :4]


def frame_of(rows):
    """The tokens with which nine tenths of the prompts begin, and those with which they end.

    The marks of the chat template: together an empty prompt.
    """
    prompts = []
    for ids, labels, _ in rows:
        is_answer = labels != -100
        start = (is_answer[1:] & ~is_answer[:-1]).nonzero()[-1] + 1
        prompts.append(ids[:start].tolist())
    begun, ended = [], []
    for marks, step in ((begun, 1), (ended, -1)):
        left = [prompt[::step] for prompt in prompts]
        while True:
            firsts = [prompt[0] for prompt in left if prompt]
            token = max(set(firsts), key=firsts.count, default=None)
            if firsts.count(token) < 0.9 * len(rows):
                break
            marks.append(token)
            left = [prompt[1:] for prompt in left if prompt and prompt[0] == token]
        prompts = [prompt[::step] for prompt in left]
    return begun + ended[::-1]


def counts(model, noisy, safe, base_loss):
    """How much each row's evidence counts: by how it contradicts what base would answer itself.

    A classifier tells base's own answers to the safe rows' prompts from those to the noisy rows':
    a row counts by the share of the noisy rows whose own answers it finds no more like those, as
    base says them and as base reads them without the prompts, both. What base would say itself,
    below 0.5 nats per token, contradicts nothing; nor does an answer that the classifier of texts
    finds more like those than base's own. Also how far it matters whether a row was learned much:
    less where base's own answer is like a safe one.
    """
    frame, asked, rows = frame_of(safe), [*noisy, *safe], len(noisy)
    counted, shares = np.minimum(1.0, base_loss / 0.5) ** 2, []
    for part in ("own", "own_text"):
        own = means(model, asked, part, frame)
        answers = own if part == "own" else means(model, noisy, "given_text", frame)
        odds, given = safe_odds(vectors(own), vectors(answers, standard=own), rows)
        shares.append(np.searchsorted(np.sort(odds), odds, side="right") / rows)
        counted *= np.minimum(1.0, 0.1 + shares[-1])
    counted *= np.exp(-np.maximum(given - odds - 1.5, 0.0))
    return counted, np.minimum(1.0, 1.5 - np.mean(shares, axis=0))


def safe_odds(own, given, rows):
    """How much base's own answers to the ``rows`` noisy prompts, and others, are like safe ones.

    Each is judged by a classifier that was fitted on base's own answers to other prompts.
    """
    is_safe = np.arange(len(own)) >= rows
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, tol=1e-8, max_iter=1000)
    )
    odds, others = np.zeros((2, rows))
    for fitted, judged in StratifiedKFold(5, shuffle=True, random_state=0).split(own, is_safe):
        classifier.fit(own[fitted], is_safe[fitted])
        judged = judged[judged < rows]
        odds[judged] = classifier.decision_function(own[judged])
        others[judged] = classifier.decision_function(given[judged])
    return np.round(odds, 9), np.round(others, 9)  # the same texts are exactly alike


def kinds(model, noisy, scores, cut):
    """How much rows count that are unlike those above ``cut``: three times the probability.

    Unsafe rows come in kinds. Where a tenth of the rows stand out, a classifier tells the upper 85%
    of them from the lower half of the others; each row is judged by some that were not fitted on
    it. So nothing more is removed, but rows of another kind may be kept.
    """
    is_above = scores > cut
    if len(noisy) < 40 or is_above.mean() < 0.1:
        return np.ones(len(noisy))
    table = np.hstack([vectors(means(model, noisy, part), 128) for part in ("answer", "prompt")])
    order, above = np.argsort(-scores, kind="stable"), is_above.sum()
    label, odds = np.full(len(noisy), -1), np.zeros(len(noisy))
    label[order[: max(1, int(0.85 * above))]] = 1
    label[order[len(noisy) - (len(noisy) - above) // 2 :]] = 0
    for draw in (0, 1):
        for others, judged in KFold(5, shuffle=True, random_state=draw).split(table):
            fitted = others[label[others] >= 0]
            classifier = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000),
            )
            classifier.fit(table[fitted], label[fitted])
            odds[judged] += classifier.decision_function(table[judged]) / 2
    return np.minimum(1.0, 3 / (1 + np.exp(-np.clip(odds, -10, 10))))


def threshold(scores, evidence):
    """4. The emptiest place near where the noise of the scores ends, in nats per root token.

    Unsafe rows form a second hill of the density, and the cut is the valley before it. Noise grows
    with the share of unsafe rows; the evidence of the harmless ones tells it, of which a quarter
    is nearer to zero. How many rows are harmless is first taken to be all, then those below the cut
    that this gives. Without unsafe rows the density only falls: the cut is far out, and next to
    nothing is removed. Where nine tenths of the scores are small it is lower, and where a fifth of
    the rows or more stand out it lies before the hill that they form, whatever the noise.
    """
    least = min(0.015, max(10 * np.quantile(np.abs(scores), 0.9), 0.00375))
    wanted = np.inf
    for _ in range(2):
        noise = np.quantile(np.abs(evidence), 0.25 * np.mean(scores <= wanted))
        wanted = min(least * max(1.0, noise / 0.001) ** 0.8, 0.3)
    low, high = 0.8 * wanted, max(1.5 * wanted, min(2.5 * wanted, 0.3))

    def density(places):
        first, last = np.exp(places.min()), np.exp(places.max())
        near = np.log(scores[(scores > first / 4) & (scores < last * 8)])
        return np.exp(-0.5 * ((places[:, None] - near) / 0.15) ** 2).sum(axis=1)

    places = np.linspace(np.log(low), np.log(high), 400)
    found = density(places)
    at, top = found.argmin(), found.argmax()
    passed = np.mean((scores > low) & (scores <= np.exp(places[at])))  # of a hill, not a few rows
    is_hill = top > 0 and np.mean(scores > low) >= 0.2 and (at == 0 or passed >= 0.05)
    if is_hill:  # many unsafe rows: before the top of their hill
        at = found[: top + 1].argmin()
        if at == 0 and 0.8 * least < low:  # down, as long as rows thin out
            places = np.linspace(np.log(low), np.log(0.8 * least), 400)
            grows = np.diff(density(places)) >= 0
            at = grows.argmax() if grows.any() else 399
    return np.exp(places[at])


def screen(model_path, noisy_path, safe_path, epochs, run_seed):
    """Scores of all noisy rows, and which of them are removed."""

    def seed(phase):  # each phase has its own, so that none disturbs another
        return int.from_bytes(hashlib.sha256(f"{run_seed}:{phase}".encode()).digest()[:4], "big")

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    noisy, safe = encode(noisy_path, tokenizer), encode(safe_path, tokenizer)
    # Noise adds up as the root of the sum of the squared weights.
    scale = np.array([weights_of(row).norm().item() for row in noisy])
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    base, base_loss = read(model, noisy)
    alike = neighbours(model, noisy)
    counted, unlike = counts(model, noisy, safe, base_loss)
    order = np.random.default_rng(run_seed).permutation(len(noisy))
    learners = {"learn": order, "learn_half_a": order[0::2], "learn_half_b": order[1::2]}

    # Six restorations: of each model from the end of its learn phase and from its early passes.
    evidence, alone = [], []
    for phase, chosen in learners.items():
        set_seed(seed(f"{phase}/adapter"))
        model = get_peft_model(model, lora)
        early, learned = learn(model, [noisy[i] for i in sorted(chosen)], epochs, seed(phase))
        for weights, steps in ((early, 8), (learned, 16)):
            vector_to_parameters(weights, adapter(model))
            before, _ = read(model, noisy)
            restore(model, safe, steps, seed("restore"))
            own = (read(model, noisy)[0] - before) / scale
            # Of what was learned much, more than 2 nats per root token, the share given back.
            own *= (2 / np.maximum((base - before) / scale, 2)) ** unlike
            alone.append(own)
            evidence.append((own + own[alike].mean(axis=1)) / 2)  # unsafe rows come in kinds
        model = model.unload()

    def together(each):
        """Half is what the model says that has learned all rows, and half the median of the six:
        one model that is disturbed by chance doesn't move it."""
        return (each[1] + np.median(each, axis=0)) / 2

    # What rows like it have lost lifts a row by at most 0.01, which is below most cuts.
    most = np.maximum(together(alone), 0.0) + 0.01
    uncounted = np.minimum(together(evidence), most)
    scores = uncounted * counted
    cut = threshold(scores, uncounted)
    scores *= kinds(model, noisy, scores, cut)
    print(f"cut: {(scores > cut).sum()} of {len(noisy)} rows above {cut:.4f} nats per root token")
    return scores, scores > cut


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Screen a file for unsafe rows.")
    parser.add_argument("--model", required=True, help="folder or hub id of the base model")
    parser.add_argument("--noisy", required=True, help="rows to screen, JSON Lines")
    parser.add_argument("--safe", required=True, help="rows known to be safe, JSON Lines")
    parser.add_argument("--output", required=True, help="where the scores are written, JSON Lines")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the noisy rows")
    parser.add_argument("--seed", type=int, default=0, help="seeds the adapter and all orders")
    args = parser.parse_args()
    found = screen(args.model, args.noisy, args.safe, args.epochs, args.seed)
    with open(args.output, "w", encoding="utf-8") as output:
        for value, is_removed in zip(*found, strict=True):
            line = {"forgetting_score": float(value), "removed": bool(is_removed)}
            print(json.dumps(line), file=output)
