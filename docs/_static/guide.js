// What overflows scrolls in its own box, and a box that scrolls must be reachable by keyboard.
"use strict";

// Where this page is. The theme's menu of versions reads it; off a disk, where a page may fetch nothing, there is no menu.
const folder = new URL(".", document.currentScript.src);
const path = decodeURI(location.pathname).slice(decodeURI(new URL("..", folder).pathname).length);
DOCUMENTATION_OPTIONS.pagename = path.replace(/\.html$/, "").replace(/(^|\/)$/, "$1index");
DOCUMENTATION_OPTIONS.theme_switcher_json_url = new URL("switcher.json", folder).href;
if (location.protocol === "file:") {
  for (const menu of document.querySelectorAll(".version-switcher__container")) menu.remove();
}

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
