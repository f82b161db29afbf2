// One row with all that is known of it: in the pane beside the list, and on paper.
var DECISIONS = { removed: "removed", kept: "kept", undecided: "undecided", rejected: "not used" };

function quote(label, parts) {
  var group = make("div"), term = make("dt", "", label), quoted = make("dd", "quote");
  parts.forEach(function (part) {
    if (part.role) { quoted.appendChild(make("span", "role", part.role)); }
    var said = make("span", "said", part.text);
    said.dir = "auto";
    quoted.appendChild(said);
    if (part.note) { quoted.appendChild(make("span", "cut-note", part.note)); }
  });
  group.appendChild(term);
  group.appendChild(quoted);
  return group;
}

function shadedWords(words) {
  var group = make("div", "wide"), quoted = make("dd", "quote"), said = make("span", "said");
  group.appendChild(make("dt", "", "Its words, darker = forgotten more"));
  said.dir = "auto";
  words.forEach(function (word) {
    if (!word[1]) { put(said, word[0]); return; }
    var mark = make("mark", "d" + word[1], word[0]);
    mark.title = word[2] + " nats";
    said.appendChild(mark);
  });
  quoted.appendChild(said);
  group.appendChild(quoted);
  return group;
}

function modelSaid(state, text, note) {
  var label = "The model when it had " + state.replace(/^learned/, "learned the row");
  if (text !== null) { return quote(label, [{ text: text, note: note }]); }
  var group = make("div");
  group.appendChild(make("dt", "", label));
  group.appendChild(make("dd", "quote muted", "not generated"));
  return group;
}

function cardTexts(record) {
  var list = make("dl", "texts");
  if (record.raw) {
    list.appendChild(quote("The row as it stands in the file", [{ text: record.raw[0], note: record.raw[1] }]));
    return list;
  }
  var turns = record.turns || [], earlier = record.earlier || 0;
  var label = "Prompt" + (earlier ? " (" + grouped(earlier) + " earlier turn" + (earlier === 1 ? "" : "s") + " left out)" : "");
  var isOne = turns.length === 1 && !earlier;
  list.appendChild(quote(label, turns.map(function (turn) {
    return { role: isOne ? "" : turn[0], text: turn[1], note: turn[2] };
  })));
  list.appendChild(quote("Target: the row's answer", [{ text: record.answer[0], note: record.answer[1] }]));
  if (record.words) { list.appendChild(shadedWords(record.words)); }
  (record.said || []).forEach(function (said) { list.appendChild(modelSaid(said[0], said[1], said[2])); });
  if (record.against) {
    var against = quote("Safe rows whose prompts are most like this one's", record.against.map(function (near) {
      return { role: "safe row " + grouped(near[0]) + (plain(near[1]) ? ", " + plain(near[1]) : ""), text: near[2] };
    }));
    against.className = "wide against";
    list.appendChild(against);
  }
  return list;
}

function fact(list, name, value) {
  if (value === "" || value === null || value === undefined) { return; }
  var group = make("div");
  group.appendChild(make("dt", "", name));
  group.appendChild(value.nodeType ? value : make("dd", "", value));
  list.appendChild(group);
}

function badge(place) {
  var decision = column("decision", place);
  return make("span", "badge " + decision, DECISIONS[decision] || decision);
}

function card(place, record, level) {
  var decision = column("decision", place);
  var article = make("article", "card " + decision);
  var head = make("header"), title = make(level, "", "Row " + grouped(index.row[place]) + " ");
  title.appendChild(badge(place));
  if (overruled(place)) { title.appendChild(make("span", "badge overruled", "reviewer: " + overruled(place))); }
  head.appendChild(title);
  article.appendChild(head);
  var facts = make("dl", "row-facts");
  fact(facts, "Id", make("dd", "mono", idOf(place)));
  var score = index.score[place], opinion = opinionOf(place);
  fact(facts, data.joint ? "Joint score" : "Score", score === null ? "" : shownNumber(score));
  if (data.joint && score !== null && opinion !== null) { fact(facts, "Of it forgetting", shownNumber(score - data.joint * opinion)); }
  fact(facts, "Second opinion", opinion === null ? "" : shownNumber(opinion));
  fact(facts, "Described harm", describedOf(place) === null ? "" : shownNumber(describedOf(place)));
  fact(facts, "Why", column("reason", place));
  fact(facts, "Source", column("source", place));
  fact(facts, "Category", column("category", place));
  fact(facts, "Pulls against", column("harm", place));
  if (record && record.unscored) { fact(facts, "Not read", record.unscored + ", which the template leaves out"); }
  if (record && record.states) {
    fact(facts, "Loss of the answer", record.states.map(function (state) { return state[0] + " " + state[1]; }).join(" → "));
    fact(facts, "Length", record.tokens || "");
  }
  article.appendChild(facts);
  if (record) {
    article.appendChild(cardTexts(record));
    if (!record.raw && !record.said) {
      article.appendChild(make("p", "note", "What the model says was generated for the most forgotten rows and those nearest to the threshold only."));
    }
  } else {
    article.appendChild(make("p", "note", "The text of this row lies in the folder report_rows beside the page, which is not there. It is also in " + decision + ".jsonl of the run."));
  }
  return article;
}
