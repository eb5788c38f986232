// Starts an explorer when it comes near the screen, or at once when the address of the page asks for it.

const asked = () => /^#explorer-([a-z-]+)(?::|$)/.exec(location.hash)?.[1];
const started = new WeakSet();

async function start(root) {
  if (started.has(root)) return;
  started.add(root);
  const name = root.dataset.explorer;
  try {
    const [module, data] = await Promise.all([import(`./${name}.js`), "data" in root.dataset ? read(name) : null]);
    module.default(root, data);
    if (asked() === name) root.scrollIntoView({ block: "start", behavior: "instant" });
  } catch (error) {
    const note = document.createElement("p");
    note.className = "ag-explorer-failed";
    note.textContent = "This explorer could not be started. The figure shows one of its pictures.";
    root.append(note);
    throw error;
  }
}

async function read(name) {
  const answer = await fetch(new URL(`./data/${name}.json`, import.meta.url));
  if (!answer.ok) throw new Error(`no data for the explorer ${name}: ${answer.status}`);
  return answer.json();
}

const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      start(entry.target);
    }
  },
  { rootMargin: "600px 0px" },
);

for (const root of document.querySelectorAll(".ag-explorer")) {
  if (asked() === root.dataset.explorer) start(root);
  else near.observe(root);
}

addEventListener("hashchange", () => {
  const root = document.querySelector(`.ag-explorer[data-explorer="${asked() ?? ""}"]`);
  if (root) start(root);
});
