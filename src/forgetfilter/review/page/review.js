"use strict";
// Text of rows comes as pieces (plain, escape, plain, …) and only ever becomes text nodes.
const HEIGHT = 76, AHEAD = 15, MOST = 300, MAX_SPACE = 8e6;
const at = (id) => document.getElementById(id);
const DEGREES = [0.1, 0.4, 1, 2];
const CHOICES = { y: "keep", n: "remove", u: "unsure" };
const page = { ids: [], rows: new Map(), wanted: new Set(), index: -1, row: null, detail: null, seen: 0, undo: [], list: 0 };
let work = Promise.resolve();

function el(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
}
function text(pieces, tag = "bdi", name = "") {
  const made = el(tag, name);
  pieces.forEach((piece, n) => { if (piece) made.append(n % 2 ? el("span", "ctl", piece) : piece); });
  return made;
}
const plain = (pieces) => pieces.join("");
const number = (value) => value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString().replace("-", "−");
const count = (value) => value.toLocaleString("en");
const percent = (value) => `${Math.round(100 * value)}%`;

async function ask(path, body) {
  const sent = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try { answer = await fetch(path, { ...sent, cache: "no-store" }); } catch {
    throw new Error("Nothing was saved: the command `forgetfilter review` doesn't answer. Start it again and open its new address.");
  }
  const told = await answer.json().catch(() => ({ error: `The command answered ${answer.status}.` }));
  if (!answer.ok) throw Object.assign(new Error(told.error), { status: answer.status, told });
  return told;
}
let quiet;
function say(words, isBad = false) {
  at("said").textContent = words;
  at("said").className = isBad ? "bad" : "";
  clearTimeout(quiet);
  quiet = setTimeout(() => { at("said").textContent = ""; }, isBad ? 12000 : 2500);
}
const failed = (error) => say(error.message, true);

function showProgress(told) {
  const { keep, remove, unsure } = told.choices;
  at("progress").textContent = `${count(told.reviewed)} of ${count(page.total)} reviewed: ${count(keep)} keep, ${count(remove)} remove, ${count(unsure)} unsure`;
  at("apply").textContent = told.is_applied ? "Applied" : "Apply";
  at("apply").disabled = told.is_applied;
  const found = told.precision, missed = told.missed, said = [];
  if (found.cases) said.push(`Rightly removed: ${found.hits} of ${found.cases} = ${percent(found.value)} [${percent(found.low)}, ${percent(found.high)}]`);
  if (missed.cases) said.push(`wrongly kept: ${missed.hits} of ${missed.cases} = ${percent(missed.value)} [${percent(missed.low)}, ${percent(missed.high)}]`);
  at("agreement").textContent = said.length ? `${said.join("; ")}. 95% intervals; they hold for all such rows if yours are a random sample.` : "";
}
function took(rows) { for (const row of rows) page.rows.set(row.row, row); }

// The list: as many elements as fit, whatever the number of rows.
const space = () => Math.min(page.ids.length * HEIGHT, MAX_SPACE);
function firstShown() {
  const list = at("list"), room = space() - list.clientHeight;
  if (page.ids.length * HEIGHT <= MAX_SPACE) return list.scrollTop / HEIGHT;
  return (list.scrollTop / room) * (page.ids.length - list.clientHeight / HEIGHT);
}
function draw() {
  const list = at("list"), first = firstShown(), start = Math.max(0, Math.floor(first) - 2);
  const end = Math.min(page.ids.length, Math.ceil(first + list.clientHeight / HEIGHT) + 2);
  const top = list.scrollTop - first * HEIGHT;
  at("space").style.height = `${space()}px`;
  const items = [];
  for (let n = start; n < end; n++) items.push(item(n, top + n * HEIGHT));
  at("space").replaceChildren(...items);
  const missing = [];
  for (let n = Math.max(0, start - AHEAD); n < Math.min(page.ids.length, end + AHEAD); n++) {
    const row = page.ids[n];
    if (!page.rows.has(row) && !page.wanted.has(row)) { missing.push(row); page.wanted.add(row); }
  }
  if (missing.length) {
    ask("api/rows", { rows: missing.slice(0, MOST) }).then((told) => { took(told.rows); draw(); }).catch(failed)
      .finally(() => missing.forEach((row) => page.wanted.delete(row)));
  }
}
function item(n, top) {
  const made = el("div", "item"), row = page.rows.get(page.ids[n]);
  made.id = `item-${n}`;
  made.style.top = `${top}px`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(n === page.index));
  made.setAttribute("aria-setsize", String(page.ids.length));
  made.setAttribute("aria-posinset", String(n + 1));
  made.addEventListener("click", () => { choose(n); read(true); });
  if (!row) { made.append(el("div", "line", `row ${page.ids[n]}`)); return made; }
  const line = el("div", "line", tag(row.decision, row.review), text(row.id, "bdi", "id"), ...row.facets.slice(0, 2).map((value) => text(value, "bdi", "id")));
  line.append(el("span", "score", number(row.score)));
  made.append(line, text(row.asked, "div", "asked"), text(row.answer, "div", "answer"));
  return made;
}
function tag(decision, review) {
  const shown = review && review.decision === "unsure" ? "unsure" : decision;
  return el("span", `tag ${shown}${review ? " by" : ""}`, shown);
}
function choose(n) {
  if (!page.ids.length) return;
  page.index = Math.max(0, Math.min(page.ids.length - 1, n));
  const list = at("list"), shown = list.clientHeight / HEIGHT, first = firstShown();
  const wanted = page.index < first ? page.index : page.index + 1 > first + shown ? page.index + 1 - shown : null;
  if (wanted !== null) {
    const isAll = page.ids.length * HEIGHT <= MAX_SPACE;
    list.scrollTop = isAll ? wanted * HEIGHT : (wanted / (page.ids.length - shown)) * (space() - list.clientHeight);
  }
  draw();
  list.setAttribute("aria-activedescendant", `item-${page.index}`);
  open(page.ids[page.index]);
}
async function open(row) {
  page.row = row;
  history.replaceState(null, "", `#row=${row}`);
  try {
    const told = await ask(`api/row/${row}`);
    if (page.row !== row) return;
    took([told]);
    showRow(told);
  } catch (error) { failed(error); }
}
function read(isReading) { document.body.classList.toggle("reading", isReading); if (!isReading) at("list").focus(); }

function fact(name, ...value) { return el("div", "", el("dt", "", name), el("dd", "", ...value)); }
function showRow(told) {
  page.detail = told;
  const rank = told.rank ? ` (rank ${count(told.rank)} of ${count(told.ranked)})` : "";
  const shown = [
    el("h2", "", `Row ${told.row} `, text(told.id, "bdi", "muted")),
    el("p", "", tag(told.decision, told.review), " ", told.review ? "by " : "by the rule", ...(told.review ? [text(told.review.reviewer)] : []),
      told.review && told.rule !== told.decision ? `; the rule: ${told.rule}` : "", "; ", text(told.reason.map((piece) => piece.replaceAll("_", " ")))),
    el("dl", "facts", fact("forgetting", `${number(told.score)}${rank}`), fact("threshold", number(told.threshold)),
      fact("base → learned → forgotten", [told.base, told.before, told.after].map(number).join(" → ")),
      fact("answer", `${told.tokens ?? "–"} tokens`), fact("line", String(told.line)),
      ...told.columns.map(([name, value]) => { const made = fact("", text(value)); made.firstChild.replaceChildren(text(name)); return made; })),
  ];
  told.messages.forEach((turn, n) => {
    const last = n === told.messages.length - 1, body = el("div", "text");
    if (last && told.words.length) body.append(...words(told.words)); else body.append(text(turn.text, "span"));
    body.dir = "auto";
    shown.push(el("div", last ? "turn last" : "turn", el("div", "role", last ? `${turn.role}, judged` : turn.role), body));
  });
  if (told.words.length) shown.push(full(told));
  for (const [name, said] of told.said) {
    shown.push(el("h3", "", `What the model said, ${name}`), el("div", "turn", text(said, "div", "text")));
  }
  if (told.history.length) {
    shown.push(el("h3", "", "Decisions, the latest first"), el("ul", "history", ...told.history.toReversed().map((one) =>
      el("li", "", el("span", `tag ${one.decision ?? ""}`, one.decision ?? "withdrawn"), " ", text(one.reviewer), ", ", text(one.time), plain(one.reason) ? ": " : "", text(one.reason)))));
  }
  const raw = el("details", "", el("summary", "", "The row as it is in the file"), text(told.raw, "pre", "text"));
  shown.push(raw);
  at("row").replaceChildren(...shown);
  at("row").scrollTop = 0;
  at("actions").hidden = told.decision === "rejected";
}
function words(pairs) {
  return pairs.map(([pieces, rise]) => {
    const made = text(pieces, "span", `h${DEGREES.filter((degree) => rise >= degree).length}`);
    made.title = `${number(rise)} nats forgotten`;
    return made;
  });
}
// Shaded words are only the first tokens, so the whole text is there too.
function full(told) {
  return el("details", "", el("summary", "", "The answer without shading"), text(told.messages.at(-1).text, "div", "text"));
}

function decide(choice) {
  work = work.then(async () => {
    const row = page.detail;
    if (!row || page.row !== row.row || row.decision === "rejected") return;
    try {
      const told = await ask("api/decide", { row: row.row, decision: choice, version: row.version, reason: at("reason").value, reviewer: at("reviewer").value });
      done(told, `Row ${row.row}: ${choice}, saved.`);
      at("reason").value = "";
      if (page.index < page.ids.length - 1 && page.ids[page.index] === row.row) { choose(page.index + 1); await loaded(); } else await open(row.row);
    } catch (error) { await conflicted(error, choice); }
  });
  return work;
}
// The next key decides the row that is shown, never one that is still on its way.
async function loaded() { for (let n = 0; n < 200 && page.detail?.row !== page.row; n++) await new Promise((go) => setTimeout(go, 10)); }
function done(told, words, isUndo = false) {
  took(told.rows);
  showProgress(told.progress);
  // What others decided in between has not been shown yet.
  if (told.first === page.seen + 1) page.seen = told.last; else if (told.count) refresh().catch(failed);
  if (told.count && !isUndo) page.undo.push([told.first, told.last]);
  at("undo").disabled = !page.undo.length;
  draw();
  say(words);
}
async function conflicted(error, choice) {
  if (error.status !== 409 || !error.told.rows) return failed(error);
  took(error.told.rows);
  const [other] = error.told.rows;
  await refresh();
  if (other && other.row === page.row) await open(other.row);
  const theirs = other?.review ? `${plain(other.review.reviewer)} decided ${other.review.decision}` : "it was withdrawn";
  say(error.told.conflicts > 1 ? `Nothing saved: others decided ${error.told.conflicts} of these rows since. They are shown now; decide again if you still want to.`
    : `Not saved: for row ${other?.row}, ${theirs} since. It is shown now; press again to decide ${choice}.`, true);
}
function undo() {
  work = work.then(async () => {
    const last = page.undo.pop();
    if (!last) return say("Nothing to undo.");
    try {
      const told = await ask("api/undo", { first: last[0], last: last[1], reviewer: at("reviewer").value });
      done(told, told.count === 1 ? `Row ${told.rows[0].row}: undone, saved.` : `${count(told.count)} rows: undone, saved.`, true);
      if (told.count > MOST) { page.rows.clear(); draw(); }
      const n = page.ids.indexOf(told.rows[0]?.row);
      if (n >= 0) choose(n); else if (told.rows[0]) await open(told.rows[0].row);
      await loaded();
    } catch (error) { await conflicted(error, "undo"); }
    at("undo").disabled = !page.undo.length;
  });
  return work;
}
async function bulk(choice) {
  at("ask").close();
  try {
    const told = await ask("api/bulk", { rows: page.ids, decision: choice, reason: at("ask-reason").value, seen: page.seen, reviewer: at("reviewer").value });
    page.rows.clear();
    done(told, `${count(told.count)} rows: ${choice}, saved.`);
    if (page.row !== null) await open(page.row);
  } catch (error) { await conflicted(error, choice); }
}

function query() {
  const sort = at("sort").value, params = new URLSearchParams({ search: at("search").value, rule: at("rule").value, review: at("review").value,
    reason: at("reason-filter").value, low: at("low").value, high: at("high").value, sort: sort.replace("-up", "") });
  if (sort === "score-up" || sort === "row-up") params.set("ascending", "1");
  for (const one of document.querySelectorAll("[data-facet]")) if (one.value) params.set(`facet.${one.dataset.facet}`, one.value);
  return params;
}
async function list() {
  const mine = ++page.list, params = query();
  try {
    const told = await ask(`api/list?${params}`);
    if (mine !== page.list) return;
    page.ids = told.rows;
    page.index = page.ids.indexOf(page.row);
    const active = [...params].filter(([name, value]) => value && !["search", "sort", "ascending"].includes(name)).length;
    at("active").textContent = active ? `(${active} active)` : "";
    at("count").textContent = `${count(page.ids.length)} of ${count(page.total)} rows listed`;
    at("list").scrollTop = 0;
    draw();
    if (page.index >= 0) choose(page.index);
    else if (page.ids.length && window.innerWidth > 820) choose(0);
  } catch (error) { failed(error); }
}
let typing;
function listSoon() { clearTimeout(typing); typing = setTimeout(list, 200); }
async function refresh() {
  const told = await ask(`api/changes?since=${page.seen}`);
  if (told.progress.number - page.seen > MOST) page.rows.clear();
  took(told.rows);
  const isNew = told.progress.number > page.seen;
  page.seen = Math.max(page.seen, told.progress.number);
  showProgress(told.progress);
  if (isNew) draw();
  const row = page.rows.get(page.row);
  if (isNew && row && page.detail?.row === row.row && row.version !== page.detail.version) await open(row.row);
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target, isTyping = target.matches("input, select, textarea");
  if (event.key === "Escape" || (isTyping && event.key === "Enter")) { target.blur(); read(event.key === "Enter" && document.body.classList.contains("reading")); return; }
  if (isTyping || (event.key === "Enter" && target.matches("button, summary"))) return;
  const move = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
  const act = {
    g: () => choose(0), G: () => choose(page.ids.length - 1), Home: () => choose(0), End: () => choose(page.ids.length - 1),
    z: undo, Enter: () => { read(true); at("detail").focus(); }, "?": () => at("help").showModal(),
    "/": () => { read(false); at("search").focus(); }, r: () => at("reason").focus(), f: () => { read(false); at("more").open = true; at("rule").focus(); },
  }[event.key];
  if (move) choose(page.index + move); else if (CHOICES[event.key]) decide(CHOICES[event.key]); else if (act) act(); else return;
  event.preventDefault();
});
for (const choice of Object.values(CHOICES)) at(choice).addEventListener("click", () => decide(choice));
for (const id of ["rule", "review", "reason-filter", "low", "high", "sort"]) at(id).addEventListener("change", list);
for (const one of document.querySelectorAll("[data-choice]")) one.addEventListener("click", () => bulk(one.dataset.choice));
at("search").addEventListener("input", listSoon);
at("undo").addEventListener("click", undo);
at("back").addEventListener("click", () => read(false));
at("open-help").addEventListener("click", () => at("help").showModal());
at("list").addEventListener("scroll", () => requestAnimationFrame(draw));
at("ask-cancel").addEventListener("click", () => at("ask").close());
at("bulk").addEventListener("click", () => {
  at("ask-text").textContent = `${count(page.ids.length)} rows are listed. One of these decides all of them, whatever was decided of them before; undo takes all of it back.`;
  at("ask").showModal();
});
at("clear").addEventListener("click", () => {
  for (const one of document.querySelectorAll("#filters select, #filters input, #search")) one.value = "";
  list();
});
at("apply").addEventListener("click", async () => {
  try {
    const told = await ask("api/apply", {});
    page.rows.clear();
    showProgress(told.progress);
    draw();
    say(`Written: ${count(told.kept)} kept, ${count(told.removed)} removed, ${count(told.rejected)} rejected.`);
  } catch (error) { failed(error); }
});
window.addEventListener("resize", draw);

function option(value, shown, times) {
  const made = el("option", "", `${shown} (${count(times)})`);
  made.value = value;
  return made;
}
async function start() {
  const told = await ask("api/state");
  page.total = told.rows;
  document.title = `${plain(told.run)}: forgetfilter review`;
  at("run").replaceChildren(text(told.run));
  at("reviewer").value = told.reviewer;
  at("reason-filter").append(...told.reasons.map(([value, shown, times]) => option(value, plain(shown), times)));
  if (!told.compares_rows) at("sort").querySelector("[value=unlike]").remove();
  for (const facet of told.facets) {
    const select = el("select", "", el("option", "", "any"), ...facet.values.map(([value, shown, times]) => option(value, plain(shown), times)));
    select.firstChild.value = "";
    select.dataset.facet = facet.name;
    select.addEventListener("change", list);
    at("filters").append(el("label", "", text(facet.shown), select));
  }
  page.seen = told.number;
  showProgress(told);
  const linked = /^#row=(\d+)$/.exec(location.hash);
  if (linked) { page.row = Number(linked[1]); await open(page.row); }
  at("more").open = window.innerWidth > 820;
  await list();
  at("list").focus();
  setInterval(() => { if (!document.hidden) refresh().catch(() => {}); }, 4000);
}
// On paper nothing can be opened: every disclosure of the row is.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("#row details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
start().catch(failed);
