// The listed rows: from the page itself, and from files beside it as they are asked for.
// Text of a row enters the page as textContent alone; see put().
var data = JSON.parse(document.getElementById("row-data").textContent);
var index = data.index, names = data.names;
var LABELS = ["source", "category", "harm"];
var texts = [], placeOfRow = new Map(), waiting = [];
data.texts.forEach(function (record, place) { texts[place] = record; });
noteRows(0);

function noteRows(from) {
  for (var place = from; place < index.row.length; place += 1) { placeOfRow.set(index.row[place], place); }
}

function column(name, place) {
  var code = index[name] ? index[name][place] : 0;
  if (LABELS.indexOf(name) >= 0) { return code ? names[name][code - 1] : ""; }
  return names[name][code] || "";
}

function idOf(place) { return index.id[place] === 0 ? "row-" + index.row[place] : index.id[place]; }
function opinionOf(place) { return index.opinion && column("decision", place) !== "rejected" ? index.opinion[place] : null; }
function describedOf(place) { return index.described && column("decision", place) !== "rejected" ? index.described[place] : null; }
function overruled(place) { return (index.overruled && index.overruled[place]) || ""; }

// Text with the escapes of hidden characters, which stand between two controls, as marked spans.
function put(node, text) {
  String(text).split("\u0001").forEach(function (part, at) {
    var cut = at ? part.indexOf("\u0002") : -1;
    if (cut >= 0) {
      var mark = document.createElement("span");
      mark.className = "ctl";
      mark.textContent = part.slice(0, cut);
      node.appendChild(mark);
    }
    node.appendChild(document.createTextNode(part.slice(cut + 1)));
  });
  return node;
}

function plain(text) { return String(text).replace(/[\u0001\u0002]/g, ""); }

function make(tag, classes, text) {
  var node = document.createElement(tag);
  if (classes) { node.className = classes; }
  if (text !== undefined && text !== null) { put(node, text); }
  return node;
}

function shownNumber(value) {
  if (value === null || value === undefined) { return "–"; }
  var size = Math.abs(value), text;
  if (size > 1.797e308) { text = "∞"; }
  else if (size >= 1e7 || (size > 0 && size < 1e-4)) { text = size.toExponential(2); }
  else if (size >= 1000) { text = grouped(Math.round(size)); }
  else { text = String(Number(size.toPrecision(4))); }
  return (value < 0 ? "−" : "") + text;
}

// As toLocaleString does, which takes longer to set up than all the rest of a small page.
function grouped(value) { return String(value).replace(/\B(?=(\d{3})+$)/g, ","); }

// Scripts beside the page call these two.
window.forgetfilterIndex = function (first, part) {
  Object.keys(index).concat(Object.keys(part)).forEach(function (name) {
    if (!index[name]) { index[name] = new Array(first).fill(0); }
  });
  Object.keys(index).forEach(function (name) {
    var values = part[name] || new Array(part.row.length).fill(0);
    values.forEach(function (value, at) { index[name][first + at] = value; });
  });
  noteRows(first);
};
window.forgetfilterTexts = function (first, records) {
  records.forEach(function (record, at) { texts[first + at] = record; });
};

var trusted = window.trustedTypes ? window.trustedTypes.createPolicy("report-rows", {
  createScriptURL: function (name) {
    if (!/^report_rows\/[a-z]+-\d+-[0-9a-f]{12}\.js$/.test(name)) { throw new TypeError(name); }
    return name;
  }
}) : { createScriptURL: function (name) { return name; } };
var asked = new Map();

// Load a file beside the page once; resolves to whether it was there.
function load(file) {
  if (!asked.has(file[0])) {
    asked.set(file[0], new Promise(function (resolve) {
      var script = document.createElement("script");
      script.async = false; // several at once, run in the order in which they were asked for
      script.onload = function () { resolve(true); };
      script.onerror = function () { asked.set(file[0], Promise.resolve(false)); resolve(false); };
      script.src = trusted.createScriptURL(file[0]);
      document.head.appendChild(script);
    }));
  }
  return asked.get(file[0]);
}

function fileOf(place) {
  return data.textFiles.find(function (file) { return file[1] <= place && place < file[2]; });
}

// The texts of one row; resolves to undefined where its file is not beside the page.
function textsOf(place) {
  if (texts[place]) { return Promise.resolve(texts[place]); }
  var file = fileOf(place);
  return file ? load(file).then(function () { return texts[place]; }) : Promise.resolve(undefined);
}

// Load files, a few at once; resolves to whether all were there.
function loadAll(files, step) {
  var next = 0, done = 0, good = true;
  function one() {
    if (next >= files.length) { return Promise.resolve(); }
    return load(files[next++]).then(function (found) {
      done += 1;
      good = good && found;
      step(done);
      return one();
    });
  }
  return Promise.all([one(), one(), one(), one()]).then(function () { return good; });
}
