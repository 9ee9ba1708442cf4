"use strict";
(() => {
  // The index of cases: sorted by a click on a column's head, filtered by words and by verdict.
  const $ = id => document.getElementById(id);
  const table = $("cases"), body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const key = cell => cell.dataset.order ?? cell.textContent.trim();
  const collator = new Intl.Collator("en", {numeric: true});

  function sort(at, falling) {
    const sign = falling ? -1 : 1;
    body.append(...rows.sort((a, b) => sign * collator.compare(key(a.cells[at]), key(b.cells[at]))));
    heads.forEach((head, place) => head.setAttribute("aria-sort", place !== at ? "none" : falling ? "descending" : "ascending"));
  }

  function filter() {
    const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean), verdict = $("verdict").value;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every(word => text.includes(word)) && (!verdict || row.dataset.verdict === verdict));
    }
    const shown = rows.filter(row => !row.hidden).length;
    $("shown").textContent = shown === rows.length ? "" : `${shown} of ${rows.length} patients`;
  }

  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by this column";
    button.addEventListener("click", () => sort(at, head.getAttribute("aria-sort") === "ascending"));
    head.replaceChildren(button);
    head.setAttribute("aria-sort", at === 1 ? "ascending" : "none");
  });
  document.querySelector(".controls").hidden = false;
  document.querySelector(".controls").addEventListener("submit", event => event.preventDefault());
  $("words").addEventListener("input", filter);
  $("verdict").addEventListener("change", filter);
})();
