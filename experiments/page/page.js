"use strict";
const $ = (id) => document.getElementById(id);
const all = (selector, of = document) => [...of.querySelectorAll(selector)];

// Blocks of which one is shown at a time. Without scripts, and on paper, all are.
for (const picker of all("[data-picks]")) {
  const blocks = all(`[data-pick^="${picker.dataset.picks}-"]`);
  const show = (value) => blocks.forEach((block) => { block.hidden = block.dataset.pick !== `${picker.dataset.picks}-${value}`; });
  picker.addEventListener("change", (event) => show(event.target.value));
  show(picker.value ?? picker.querySelector(":checked")?.value ?? "0");
}

// Terms explain themselves on hover and focus; Escape puts the explanation away.
const tip = $("tip");
let shownFor = null;
const explain = (term) => {
  shownFor = term;
  tip.textContent = $(term.getAttribute("aria-describedby")).textContent;
  tip.hidden = false;
  const at = term.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(12, Math.min(at.left, document.documentElement.clientWidth - size.width - 12))}px`;
  tip.style.top = `${at.top > size.height + 14 ? at.top - size.height - 8 : at.bottom + 8}px`;
};
const unexplain = () => { tip.hidden = true; shownFor = null; };
const isOver = (event) => event.relatedTarget instanceof Node && (tip.contains(event.relatedTarget) || shownFor?.contains(event.relatedTarget));
for (const term of all(".term")) {
  for (const kind of ["mouseenter", "focus"]) term.addEventListener(kind, () => explain(term));
  term.addEventListener("mouseleave", (event) => { if (!isOver(event)) unexplain(); });
  term.addEventListener("blur", unexplain);
}
tip.addEventListener("mouseleave", (event) => { if (!isOver(event)) unexplain(); });
addEventListener("scroll", () => (shownFor && shownFor === document.activeElement ? explain(shownFor) : unexplain()), { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") unexplain(); });

// The table: sorted by a click on a heading, filtered by words and choices.
const body = document.querySelector("#results tbody");
const rows = [...body.rows];
const heads = all("#results thead button");
const valueOf = (row, column) => {
  const cell = row.cells[column];
  if (column < 3) return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};
const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
const sortBy = (column, direction) => {
  const sorted = column === null ? rows : [...rows].sort((first, second) => {
    const a = valueOf(first, column), b = valueOf(second, column);
    if (a === null || b === null) return (a === null) - (b === null); // what is not known goes last either way
    return direction * compare(a, b);
  });
  body.append(...sorted);
  heads.forEach((head) => head.closest("th").removeAttribute("aria-sort"));
  if (column !== null) heads[column].closest("th").setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
};
for (const head of heads) head.addEventListener("click", () => {
  const column = Number(head.dataset.sort), now = head.closest("th").getAttribute("aria-sort");
  const first = column < 3 || column > 4 ? 1 : -1; // most success first, least cost first
  if (now === null) sortBy(column, first);
  else if ((now === "ascending") === (first > 0)) sortBy(column, -first);
  else sortBy(null, 1);
});
$("sort-by").addEventListener("change", (event) => {
  const column = event.target.value === "" ? null : Number(event.target.value);
  sortBy(column, column === 3 || column === 4 ? -1 : 1);
});
const filter = () => {
  const words = $("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = all("[data-filter]").filter((select) => select.value !== "");
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    // floors and ceilings stay beside whatever is chosen, as far as they are of the same goals
    const fits = chosen.every((select) => row.dataset[select.dataset.filter] === select.value
      || (!row.classList.contains("result") && select.dataset.filter !== "goals"));
    row.hidden = !(fits && words.every((word) => text.includes(word)));
    count += !row.hidden;
  }
  $("count").textContent = `${count} of ${rows.length} lines`;
};
$("filters").addEventListener("input", filter);
filter();
