"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const FIRST = 12;

  // Sorting: a click on a column's name, and another one turns it round.
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
    return text !== "" && Number.isFinite(+text) ? +text : text.toLowerCase();
  };
  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table);
    let start = 0;
    for (const head of heads) {
      const column = start;
      start += head.colSpan;
      const button = head.querySelector("button");
      if (!button) continue;
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const body = table.tBodies[table.tBodies.length - 1];
        const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
        const rows = [...body.rows];
        rows.sort((a, b) => order(value(a, column), value(b, column)) * (falling ? -1 : 1));
        body.append(...rows);
      });
    }
  }

  // Filtering the rows of a matrix.
  for (const form of all("form[data-table]")) {
    const rows = all("tbody:last-of-type tr", document.getElementById(form.dataset.table));
    const [name, mark, count] = form.elements;
    const apply = () => {
      const words = name.value.trim().toLowerCase();
      for (const row of rows) {
        const marked = !mark.value || row.dataset.mark.split(" ").includes(mark.value);
        row.hidden = !(marked && row.dataset.name.toLowerCase().includes(words));
      }
      count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // Galleries: ordered, filtered, and the first few until all are asked for.
  for (const form of all("form[data-gallery]")) {
    const list = document.getElementById(form.dataset.gallery);
    const more = document.querySelector(`[data-more="${form.dataset.gallery}"]`);
    const items = all("li", list);
    const { order, attack, epsilon } = form.elements;
    const count = form.querySelector("output");
    let every = false;
    const apply = () => {
      const key = order.value;
      items.sort((a, b) => a.dataset[key] - b.dataset[key]);
      list.append(...items);
      const fits = items.filter(
        (item) =>
          (!attack.value || item.dataset.attack === attack.value) &&
          (!epsilon.value || +item.dataset.distance <= +epsilon.value),
      );
      const shown = new Set(every ? fits : fits.slice(0, FIRST));
      for (const item of items) item.hidden = !shown.has(item);
      more.hidden = shown.size === fits.length;
      more.textContent = `Show all ${fits.length}`;
      count.value = `${shown.size} of ${fits.length}`;
    };
    const reveal = () => {
      const target = document.getElementById(location.hash.slice(1));
      if (target && list.contains(target) && target.hidden) {
        form.reset();
        every = true;
        apply();
        target.scrollIntoView();
      }
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      every = true;
      apply();
    });
    addEventListener("hashchange", reveal);
    apply();
    reveal();
  }

  // Curves: each line says its figures, under the mouse and by the arrow keys.
  for (const chart of all(".curve")) {
    const lines = all("g.line", chart);
    const readout = chart.querySelector(".readout");
    const show = (line) => {
      for (const each of lines) {
        each.classList.toggle("on", each === line);
        each.tabIndex = each === line ? 0 : -1;
      }
      readout.value = line.getAttribute("aria-label");
    };
    const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
    lines.forEach((line, place) => {
      line.addEventListener("pointerenter", () => show(line));
      line.addEventListener("focus", () => show(line));
      line.addEventListener("keydown", (event) => {
        const ends = { Home: 0, End: lines.length - 1 };
        const next = ends[event.key] ?? place + (steps[event.key] ?? NaN);
        if (!(next >= 0)) return;
        event.preventDefault();
        lines[Math.min(next, lines.length - 1)].focus();
      });
    });
  }

  // On paper nothing can be opened.
  const closed = [];
  addEventListener("beforeprint", () => {
    closed.push(...all("details:not([open])"));
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of closed.splice(0)) each.open = false;
  });
})();
