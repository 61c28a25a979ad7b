"use strict";
// The table of calls: sorted, filtered and turned page by page, so that ten thousand rows are as quick as ten. What is
// shown stands in the address after "#calls?", so that it can be kept and passed on.
(() => {
  const { columns, rows } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const [head, body] = [byId("table").tHead, byId("table").tBodies[0]];
  const index = Object.fromEntries(columns.map((column, i) => [column.key, i]));
  const of = (row, key) => row[index[key]];
  const shows = {
    "all calls": () => true,
    failed: (row) => !["ok", "cancelled"].includes(of(row, "status")),
    cancelled: (row) => of(row, "status") === "cancelled",
    stragglers: (row) => of(row, "marks").includes("slow"),
    "cold starts": (row) => of(row, "marks").includes("cold"),
    retried: (row) => of(row, "attempt") > 1,
  };
  const sizes = ["50", "200", "1000"];
  const start = { sort: "", filter: "", stage: "", show: "all calls", size: "50", page: "1" };
  let state = { ...start };

  const figures = (value) => (value === 0 ? "0" : Number(value.toPrecision(3)).toString());
  const write = {
    text: (value) => value,
    count: (value) => value.toLocaleString("en"),
    seconds: (value) => (Math.abs(value) < 1 ? `${figures(value * 1000)} ms` : `${figures(value)} s`),
    bytes: (value) => {
      const power = value < 1 ? 0 : Math.min(Math.floor(Math.log(value) / Math.log(1024)), 5);
      return `${figures(value / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][power]}`;
    },
  };

  const read = () => {
    const given = location.hash.startsWith("#calls?") ? new URLSearchParams(location.hash.slice(7)) : [];
    state = { ...start, ...Object.fromEntries([...given].filter(([key]) => key in start)) };
    if (!(state.show in shows)) state.show = start.show;
    if (!sizes.includes(state.size)) state.size = start.size;
    if (!(state.sort.replace(/^-/, "") in index)) state.sort = start.sort;
  };

  const change = (what) => {
    state = { ...state, page: "1", ...what };
    const kept = Object.entries(state).filter(([key, value]) => value !== start[key]);
    history.replaceState(null, "", `#calls?${new URLSearchParams(kept)}`);
    draw();
  };

  const chosen = () => {
    const wanted = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const texts = columns.flatMap((column, i) => (column.kind === "text" || column.key === "call" ? [i] : []));
    const found = rows.filter((row) => {
      if (state.stage && of(row, "stage") !== state.stage) return false;
      if (!shows[state.show](row)) return false;
      const text = wanted.length ? texts.map((i) => row[i]).join("\n").toLowerCase() : "";
      return wanted.every((word) => text.includes(word));
    });
    if (state.sort) {
      const down = state.sort.startsWith("-") ? -1 : 1;
      const at = index[state.sort.replace(/^-/, "")];
      const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
      // What is not known stands at the end, either way.
      found.sort((a, b) => (a[at] === null) - (b[at] === null) || down * order(a[at], b[at]));
    }
    return found;
  };

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const draw = () => {
    const found = chosen();
    const size = Number(state.size);
    const pages = Math.max(1, Math.ceil(found.length / size));
    const page = Math.min(Math.max(1, Math.floor(Number(state.page)) || 1), pages);
    const shown = found.slice((page - 1) * size, page * size);
    body.replaceChildren(
      ...shown.map((row) => {
        const line = element("tr", undefined, shows.failed(row) ? "failed" : "");
        row.forEach((value, i) => {
          const { key, kind } = columns[i];
          line.append(element("td", value === null ? "-" : write[kind](value), kind === "text" ? key : "number"));
        });
        return line;
      }),
    );
    [...head.rows[0].cells].forEach((cell, i) => {
      const { key } = columns[i];
      if (state.sort === key) cell.setAttribute("aria-sort", "ascending");
      else if (state.sort === `-${key}`) cell.setAttribute("aria-sort", "descending");
      else cell.removeAttribute("aria-sort");
    });
    byId("filter").value = state.filter;
    byId("stage").value = state.stage;
    byId("show").value = state.show;
    byId("size").value = state.size;
    const from = found.length ? (page - 1) * size + 1 : 0;
    const n = (number) => number.toLocaleString("en");
    byId("where").textContent = `${n(from)} to ${n(Math.min(page * size, found.length))} of ${n(found.length)}`;
    byId("previous").disabled = page === 1;
    byId("next").disabled = page === pages;
    byId("previous").onclick = () => change({ page: String(page - 1) });
    byId("next").onclick = () => change({ page: String(page + 1) });
  };

  const line = head.insertRow();
  for (const column of columns) {
    const cell = element("th", undefined, column.kind === "text" ? "" : "number");
    cell.scope = "col";
    const button = element("button", column.title);
    button.type = "button";
    button.title = column.help;
    // The largest numbers first, since they are what one looks for; of text the first.
    const [first, second] = column.kind === "text" ? [column.key, `-${column.key}`] : [`-${column.key}`, column.key];
    button.onclick = () => change({ sort: state.sort === first ? second : first });
    cell.append(button);
    line.append(cell);
  }
  const option = (value, text) => Object.assign(element("option", text), { value });
  byId("stage").append(option("", "all"), ...[...new Set(rows.map((row) => of(row, "stage")))].map((s) => option(s, s)));
  byId("show").append(...Object.keys(shows).map((name) => option(name, name)));
  byId("size").append(...sizes.map((size) => option(size, size)));
  byId("filter").oninput = (event) => change({ filter: event.target.value });
  for (const id of ["stage", "show", "size"]) byId(id).onchange = (event) => change({ [id]: event.target.value });
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#calls?")) show();
  });
  const show = () => {
    read();
    draw();
    if (location.hash.startsWith("#calls?")) byId("calls").scrollIntoView();
  };
  document.querySelector(".controls").hidden = false;
  show();
})();
