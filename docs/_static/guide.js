// What overflows scrolls in its own box, and a box that scrolls must be reachable by keyboard.
"use strict";

function reachable() {
  for (const formula of document.querySelectorAll("span.math")) {
    formula.classList.remove("ag-wide");
    const room = formula.closest("p, li, td, th, dd, dt, h1, h2, h3, h4, figcaption, summary, div");
    if (room && formula.getBoundingClientRect().width > room.clientWidth && room.clientWidth > 0) {
      formula.classList.add("ag-wide");
    }
  }
  for (const box of document.querySelectorAll(".ag-formula, .ag-wide, .ag-scroll")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
    } else {
      box.removeAttribute("tabindex");
    }
  }
}

let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(reachable, 200);
});
document.fonts.ready.then(reachable);
document.addEventListener("toggle", reachable, true); // what a dropdown hid has its size only now
