// A list of any number of rows, of which those in sight are in the page.
var byId = function (id) { return document.getElementById(id); };
var box = byId("rows-list"), space = byId("rows-space"), status_ = byId("rows-status");
var shown = [], active = -1, drawn = "", highest = 0;

function lineHeight() { return window.matchMedia("(max-width: 46rem)").matches ? 84 : 68; }

function text(place) {
  var record = texts[place];
  if (!record) { return null; }
  if (record.raw) { return { ask: "", answer: record.raw[0] }; }
  var turns = record.turns || [];
  return { ask: turns.length ? turns[turns.length - 1][1] : "", answer: record.answer[0] };
}

function line(at, height) {
  var place = shown[at], decision = column("decision", place);
  var item = make("div", "line " + decision + (at === active ? " active" : ""));
  item.id = "line-" + place;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", String(at === active));
  item.setAttribute("aria-setsize", String(shown.length));
  item.setAttribute("aria-posinset", String(at + 1));
  item.style.top = at * height + "px";
  item.style.height = height + "px";
  item.dataset.at = String(at);
  var top = make("div", "line-top");
  top.appendChild(make("b", "", "Row " + grouped(index.row[place])));
  top.appendChild(badge(place));
  if (overruled(place)) { top.appendChild(make("span", "badge overruled", "reviewer: " + overruled(place))); }
  if (column("source", place)) { top.appendChild(make("bdi", "tag", column("source", place))); }
  if (opinionOf(place) !== null) { top.appendChild(make("span", "tag", "2nd " + shownNumber(opinionOf(place)))).title = "second opinion"; }
  if (describedOf(place) !== null) { top.appendChild(make("span", "tag", "harm " + shownNumber(describedOf(place)))).title = "described harm"; }
  if (index.id[place] !== 0) { top.appendChild(make("bdi", "mono", idOf(place))); }
  item.appendChild(top);
  var score = make("span", "line-score");
  var bar = make("i");
  bar.style.width = Math.max(0, Math.min(1, (index.score[place] || 0) / highest)) * 100 + "%";
  score.appendChild(bar);
  score.appendChild(make("span", "", shownNumber(index.score[place])));
  item.appendChild(score);
  var said = text(place), snippet = make("p", "line-text");
  if (said) {
    var words = make("span", "said", plain(said.ask).slice(0, 110));
    words.dir = "auto";
    var answer = make("span", "said answer", plain(said.answer).slice(0, 140));
    answer.dir = "auto";
    if (said.ask) { snippet.appendChild(words); }
    snippet.appendChild(answer);
  } else {
    snippet.appendChild(make("span", "muted", column("reason", place)));
  }
  item.appendChild(snippet);
  return item;
}

function draw(force) {
  var height = lineHeight(), first = Math.max(0, Math.floor(box.scrollTop / height) - 4);
  var last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + 4);
  var now = first + "-" + last + "-" + height;
  if (!force && now === drawn) { return; }
  drawn = now;
  space.style.height = shown.length * height + "px";
  space.textContent = "";
  var missing = false;
  for (var at = first; at < last; at += 1) {
    space.appendChild(line(at, height));
    missing = missing || !texts[shown[at]];
  }
  if (missing) { loadInSight(first, last); }
  var own = active >= first && active < last ? "line-" + shown[active] : "";
  if (own) { box.setAttribute("aria-activedescendant", own); } else { box.removeAttribute("aria-activedescendant"); }
}

var settling = 0;
function loadInSight(first, last) {
  clearTimeout(settling);
  settling = setTimeout(function () {
    var wanted = new Set();
    for (var at = first; at < last; at += 1) {
      var file = texts[shown[at]] ? undefined : fileOf(shown[at]);
      if (file) { wanted.add(file); }
    }
    wanted.forEach(function (file) { load(file).then(function (found) { if (found) { draw(true); } }); });
  }, 60);
}

function chosen(name) { var node = byId("rows-" + name); return node ? node.value : ""; }

function matches(place, query) {
  if (!query) { return true; }
  var parts = [String(index.row[place]), idOf(place), column("reason", place), column("source", place), column("category", place), column("harm", place)];
  var record = texts[place];
  if (record) {
    (record.turns || []).forEach(function (turn) { parts.push(turn[1]); });
    [record.answer, record.raw].forEach(function (one) { if (one) { parts.push(one[0]); } });
    (record.said || []).forEach(function (one) { if (one[1]) { parts.push(one[1]); } });
  }
  return plain(parts.join("\n")).toLowerCase().indexOf(query) >= 0;
}

var ORDERS = {
  score: null,
  nearest: function (a, b) { return distance(a) - distance(b); },
  opinion: function (a, b) { return (opinionOf(b) || 0) - (opinionOf(a) || 0); },
  described: function (a, b) { return (describedOf(b) || 0) - (describedOf(a) || 0); },
  row: function (a, b) { return index.row[a] - index.row[b]; }
};
function distance(place) {
  var score = index.score[place];
  return score === null ? Infinity : Math.abs(score - (data.cut === null ? 0 : data.cut));
}

// Filter and sort anew, and keep the row that is open where it is still among them.
function refresh() {
  var open = active >= 0 ? shown[active] : -1;
  var query = chosen("search").trim().toLowerCase(), decision = chosen("decision");
  var wanted = ["reason"].concat(LABELS).map(function (name) { return [name, chosen(name)]; });
  shown = [];
  for (var place = 0; place < index.row.length; place += 1) {
    var fits = (!decision || column("decision", place) === decision) &&
      wanted.every(function (one) { return !one[1] || column(one[0], place) === one[1]; });
    if (fits && matches(place, query)) { shown.push(place); }
  }
  var order = ORDERS[chosen("sort")];
  if (order) { shown.sort(function (a, b) { var by = order(a, b); return by === by && by ? by : a - b; }); }
  active = shown.indexOf(open);
  tell();
  draw(true);
}

function tell(more) {
  var whole = index.row.length;
  status_.textContent = (shown.length === whole ? grouped(whole) : grouped(shown.length) + " of " + grouped(whole)) +
    (whole === 1 ? " row" : " rows") + (more ? ", " + more : "");
  byId("rows-none").hidden = shown.length > 0;
}

function intoSight(at) {
  var height = lineHeight(), top = at * height;
  if (top < box.scrollTop) { box.scrollTop = top; }
  else if (top + height > box.scrollTop + box.clientHeight) { box.scrollTop = top + height - box.clientHeight; }
}
