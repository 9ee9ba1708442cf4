// What scrolls can be reached by the keyboard, and the search has a name for screen readers.
addEventListener("load", () => {
  for (const each of document.querySelectorAll("pre > code, .md-typeset__scrollwrap"))
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
});
