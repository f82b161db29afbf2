(function () {
  "use strict";
  var cards = Array.prototype.slice.call(document.querySelectorAll(".card"));
  var reveal = document.querySelectorAll(".reveal-all");
  function show(card, open) {
    var button = card.querySelector("button");
    var texts = card.querySelector(".texts");
    card.classList.toggle("open", open);
    button.setAttribute("aria-expanded", String(open));
    button.firstChild.textContent = open ? "Hide texts" : "Show texts";
    texts.inert = !open;
  }
  function update() {
    var open = cards.every(function (card) { return card.classList.contains("open"); });
    reveal.forEach(function (button) {
      button.setAttribute("aria-pressed", String(open));
      button.textContent = open ? "Hide all texts" : "Show all texts";
    });
  }
  document.documentElement.classList.add("js");
  cards.forEach(function (card) {
    var veil = card.querySelector(".veil");
    veil.removeAttribute("tabindex");
    show(card, false);
    card.querySelector("button").addEventListener("click", function () {
      show(card, !card.classList.contains("open"));
      update();
    });
    veil.addEventListener("click", function () {
      if (!card.classList.contains("open")) { show(card, true); update(); }
    });
  });
  reveal.forEach(function (button) {
    button.addEventListener("click", function () {
      var open = button.getAttribute("aria-pressed") !== "true";
      cards.forEach(function (card) { show(card, open); });
      update();
    });
  });
}());
