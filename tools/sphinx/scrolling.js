"use strict";
// What scrolls sideways can be reached and scrolled by the keyboard (WCAG 2.1.1).
function reachable() {
  for (const element of document.querySelectorAll("pre, .table-wrapper, .cell_output, .output, .math, .zsd, .sidebar-scroll, .toc-scroll")) {
    const scrolls = element.scrollWidth > element.clientWidth && getComputedStyle(element).overflowX !== "visible";
    if (scrolls) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
}
addEventListener("resize", reachable);
reachable();
