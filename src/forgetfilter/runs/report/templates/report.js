// The page comes alive: controls, keys, links to rows, printing.
var pane = byId("row-pane"), explorer = byId("explorer"), PRINTED = 500, token = 0;

function option(select, value, label) {
  var node = make("option");
  node.value = value;
  node.textContent = label;
  select.appendChild(node);
}

function short(text) { return text.length > 48 ? text.slice(0, 47) + "…" : text; }

function fill(name, every, label) {
  var select = byId("rows-" + name), counts = new Map();
  for (var place = 0; place < index.row.length; place += 1) {
    var value = column(name, place);
    if (value) { counts.set(value, (counts.get(value) || 0) + 1); }
  }
  var before = select.value;
  select.textContent = "";
  option(select, "", every);
  counts.forEach(function (count, value) {
    option(select, value, (label ? label(value) : short(plain(value))) + " (" + grouped(count) + ")");
  });
  select.value = before;
  select.parentNode.hidden = counts.size < 2;
}

function fillAll() {
  fill("decision", "All decisions", function (value) { return DECISIONS[value] || value; });
  fill("reason", "All reasons");
  fill("source", "All sources");
  fill("category", "All categories");
  fill("harm", "All harms");
  highest = index.score.reduce(function (most, score) { return score < 1e300 ? Math.max(most, score) : most; }, 1e-9);
}

function copy(button, value) {
  var done = function (good) {
    var label = button.dataset.label || (button.dataset.label = button.textContent);
    button.textContent = good ? "Copied" : "Not allowed here";
    setTimeout(function () { button.textContent = label; }, 1500);
  };
  var byHand = function () {
    var field = make("textarea");
    field.value = value;
    document.body.appendChild(field);
    field.select();
    var good = document.execCommand("copy");
    field.remove();
    button.focus();
    done(good);
  };
  if (navigator.clipboard && window.isSecureContext) {
    navigator.clipboard.writeText(value).then(function () { done(true); }, byHand);
  } else { byHand(); }
}

function action(label, does, name) {
  var button = make("button", "", label);
  button.type = "button";
  if (name) { button.setAttribute("aria-label", name); }
  button.addEventListener("click", function () { does(button); });
  return button;
}

function openRow(at, keepsUrl) {
  active = at;
  var place = shown[at], own = (token += 1), row = index.row[place];
  intoSight(at);
  draw(true);
  if (!keepsUrl) {
    try { history.replaceState(null, "", "#row-" + row); } catch (error) { location.hash = "row-" + row; }
  }
  textsOf(place).then(function (record) {
    if (own !== token) { return; }
    var article = card(place, record, "h3"), bar = make("div", "pane-actions");
    bar.appendChild(action("Copy id", function (button) { copy(button, plain(idOf(place))); }, "Copy the id of row " + row));
    bar.appendChild(action("Copy link", function (button) { copy(button, location.href.split("#")[0] + "#row-" + row); }, "Copy a link to row " + row));
    bar.appendChild(action("↑", function () { step(-1); }, "Previous row"));
    bar.appendChild(action("↓", function () { step(1); }, "Next row"));
    article.firstChild.appendChild(bar);
    pane.textContent = "";
    pane.appendChild(article);
    pane.scrollTop = 0;
    draw(true);
  });
}

function step(by) {
  if (!shown.length) { return; }
  openRow(Math.max(0, Math.min(shown.length - 1, active < 0 ? 0 : active + by)));
}

// Open the row that the address names; clears filters that hide it.
function followAddress() {
  var found = /^#row-(\d+)$/.exec(location.hash);
  if (!found) { return false; }
  var place = placeOfRow.get(Number(found[1]));
  explorer.scrollIntoView();
  if (place === undefined) {
    pane.textContent = "";
    pane.appendChild(make("p", "note pane-empty", "Row " + found[1] + " is not listed here: it was kept and is not near the threshold. " +
      "scores.parquet in the run folder has every row."));
    return true;
  }
  if (shown.indexOf(place) < 0) {
    ["search", "decision", "reason"].concat(LABELS).forEach(function (name) { byId("rows-" + name).value = ""; });
    refresh();
  }
  openRow(shown.indexOf(place), true);
  return true;
}

function reveal(open) {
  var button = byId("rows-reveal");
  explorer.classList.toggle("open", open);
  button.setAttribute("aria-pressed", String(open));
  button.textContent = open ? "Hide texts" : "Show texts";
}

var typing = 0, searched = false;
byId("rows-search").addEventListener("input", function () {
  clearTimeout(typing);
  typing = setTimeout(function () {
    refresh();
    if (chosen("search").trim().length < 2 || searched || !data.textFiles.length) { return; }
    searched = true;
    loadAll(data.textFiles, function (at) { tell("searching: " + at + " of " + data.textFiles.length + " files"); })
      .then(function (good) { refresh(); if (!good) { searched = false; tell("some texts are not beside this page"); } });
  }, 150);
});
["decision", "reason", "sort"].concat(LABELS).forEach(function (name) {
  byId("rows-" + name).addEventListener("change", function () { box.scrollTop = 0; refresh(); });
});
byId("rows-reveal").addEventListener("click", function () { reveal(!explorer.classList.contains("open")); });
pane.addEventListener("click", function (event) {
  if (event.target.closest(".said") && !explorer.classList.contains("open")) { pane.classList.add("open"); }
});
box.addEventListener("scroll", function () { draw(false); });
window.addEventListener("resize", function () { draw(true); });
box.addEventListener("click", function (event) {
  var item = event.target.closest(".line");
  if (!item) { return; }
  pane.classList.remove("open");
  openRow(Number(item.dataset.at));
  if (window.matchMedia("(max-width: 46rem)").matches) { pane.scrollIntoView(); }
});
box.addEventListener("keydown", function (event) {
  var page = Math.max(1, Math.floor(box.clientHeight / lineHeight()) - 1);
  var by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) { return; }
  if (by !== undefined) { event.preventDefault(); step(by === -Infinity ? -shown.length : by === Infinity ? shown.length : by); }
  else if (event.key === "Enter") { event.preventDefault(); pane.focus(); }
});
document.addEventListener("keydown", function (event) {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { return; }
  event.preventDefault();
  byId("rows-search").focus();
});
document.querySelectorAll("[data-filter]").forEach(function (link) {
  link.addEventListener("click", function () {
    var select = byId("rows-" + link.dataset.filter), wanted = link.dataset.value || link.textContent;
    var fit = Array.prototype.find.call(select.options, function (one) { return one.value && plain(one.value) === wanted; });
    select.value = fit ? fit.value : "";
    refresh();
  });
});
window.addEventListener("hashchange", followAddress);

// Paper has no list to scroll: every removed row is written out, and every disclosure opened.
var opened = [], paper = byId("rows-paper");
function beforePaper() {
  if (paper.firstChild) { return; }
  opened = Array.prototype.filter.call(document.querySelectorAll("details:not([open])"), function (one) { one.open = true; return true; });
  var count = 0, removed = 0;
  for (var place = 0; place < index.row.length; place += 1) {
    var decision = column("decision", place);
    if (decision !== "removed" && !(decision === "undecided" && !data.decided)) { continue; }
    removed += 1;
    if (count >= PRINTED || !texts[place]) { continue; }
    paper.appendChild(card(place, texts[place], "h3"));
    count += 1;
  }
  var kind = data.decided ? " removed rows" : " undecided rows";
  var said = removed === count ? "All " + grouped(removed) + kind + " of the list follow."
    : "The first " + grouped(count) + " of " + grouped(removed) + kind + " follow; " + (data.decided ? "removed" : "undecided") + ".jsonl has all of them.";
  paper.insertBefore(make("p", "note", said), paper.firstChild);
}
function afterPaper() {
  paper.textContent = "";
  opened.forEach(function (one) { one.open = false; });
}
window.addEventListener("beforeprint", beforePaper);
window.addEventListener("afterprint", afterPaper);

document.documentElement.classList.add("js");
fillAll();
refresh();
if (!followAddress() && shown.length) { openRow(0, true); }
// The rest of the list once the page is there: its first rows are the most forgotten ones.
function loadRest() {
  loadAll(data.indexFiles, function (at) { tell("loading: " + at + " of " + data.indexFiles.length + " files"); })
    .then(function () { fillAll(); refresh(); followAddress(); });
}
if (data.indexFiles.length && document.readyState === "complete") { loadRest(); }
else if (data.indexFiles.length) { window.addEventListener("load", function () { setTimeout(loadRest, 0); }); }
