"use strict";
// Adds to a page that reads well without it: the figures under a pointer or a key, sorting, and the choice of theme.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };

  // --- theme ---
  const theme = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  // A page opened from a disk may have no storage.
  const stored = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("acceptbench-theme");
      localStorage.setItem("acceptbench-theme", value);
    } catch { /* not kept */ }
    return null;
  };
  const show = (name) => {
    if (name === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
  };
  let chosen = themes.includes(stored()) ? stored() : "auto";
  show(chosen);
  theme.hidden = false;
  theme.addEventListener("click", () => {
    chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
    stored(chosen);
    show(chosen);
  });

  // --- figures of charts ---
  const svgNamespace = document.querySelector("svg")?.namespaceURI;
  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll(".cross").forEach((cross) => cross.remove());
  };
  const isShown = (svg, line) => {
    const lines = svg.closest(".lines");
    const box = lines && lines.querySelector(`[data-line="${line.style}"]`);
    return !box || box.checked;
  };
  const tell = (svg, chart, index) => {
    hide();
    const [x, name] = chart.at[index];
    const rows = chart.lines.filter((line) => line.points[index] && isShown(svg, line));
    if (rows.length === 0) return;
    const cross = document.createElementNS(svgNamespace, "line");
    for (const [key, value] of Object.entries({ class: "cross", x1: x, x2: x, y1: chart.top, y2: chart.bottom })) {
      cross.setAttribute(key, value);
    }
    svg.append(cross);
    tip.replaceChildren(element("b", name));
    for (const line of rows) {
      const row = element("div", "");
      row.append(element("span", line.name), element("span", line.points[index][1]));
      tip.append(row);
    }
    tip.hidden = false;
    // Beside the place, inside the window.
    const box = svg.getBoundingClientRect();
    const at = box.left + (x / svg.viewBox.baseVal.width) * box.width;
    const left = at + 14 + tip.offsetWidth > innerWidth ? at - 14 - tip.offsetWidth : at + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.min(Math.max(4, box.top + 24), innerHeight - tip.offsetHeight - 4)}px`;
  };
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const chart = data.charts[svg.dataset.chart];
    if (!chart || chart.at.length === 0) continue;
    let index = -1;
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      chart.at.forEach(([place], other) => {
        if (index < 0 || Math.abs(place - x) < Math.abs(chart.at[index][0] - x)) index = other;
      });
      tell(svg, chart, index);
    };
    svg.addEventListener("pointermove", nearest);
    svg.addEventListener("pointerdown", nearest);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") hide();
      if (step === undefined) return;
      event.preventDefault();
      index = Math.min(Math.max(index + step, 0), chart.at.length - 1);
      tell(svg, chart, index);
    });
  }
  addEventListener("scroll", hide, { passive: true });

  // --- sorting ---
  const key = (cell) => (cell.dataset.key === undefined ? null : Number(cell.dataset.key));
  const compare = (a, b, sign) => {
    const [x, y] = [key(a), key(b)];
    if (x !== null && y !== null) return sign * (x - y);
    // What has no number comes after what has one, whichever way it goes.
    if (x !== null || y !== null) return x === null ? 1 : -1;
    return sign * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element("button", head.textContent);
      button.type = "button";
      button.className = "sort";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], down ? -1 : 1));
        body.append(...rows);
      });
    });
  }
})();
