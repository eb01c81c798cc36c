"use strict";
// The wall of pictures, which are inserted when they come into view, and the table of all videos.
(async () => {
  const byId = (id) => document.getElementById(id);
  const pictures = JSON.parse(byId("pictures").textContent);
  const insert = (shot) => {
    const address = pictures[Number(shot.dataset.picture)];
    if (!address || shot.firstChild) return;
    const image = new Image();
    image.alt = "";
    image.src = address;
    shot.append(image);
  };
  const watcher = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) { insert(entry.target); watcher.unobserve(entry.target); }
  }, { rootMargin: "300px" });
  const shots = document.querySelectorAll("[data-picture]");
  for (const shot of shots) watcher.observe(shot);
  window.addEventListener("beforeprint", () => shots.forEach(insert));

  const body = byId("videos");
  if (!body) return;
  if (typeof DecompressionStream === "undefined") {
    byId("where").textContent = "This browser cannot unpack the table. A browser of 2023 or later can.";
    return;
  }
  const bytes = Uint8Array.from(atob(byId("table").textContent), (c) => c.charCodeAt(0));
  const rows = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  const ROWS = 50;
  let found = rows, first = 0;
  const up = "../".repeat(2);
  const numbers = new Intl.NumberFormat("en");
  function cell(row, text, kind) {
    const td = document.createElement("td");
    td.textContent = text === null ? "–" : typeof text === "number" ? numbers.format(text) : text;
    td.className = kind || "";
    row.append(td);
    return td;
  }
  function show() {
    body.replaceChildren();
    for (const [name, status, grade, frames, persons, tracks, page] of found.slice(first, first + ROWS)) {
      const row = document.createElement("tr");
      const named = cell(row, page ? "" : name, "path");
      if (page) {
        const link = document.createElement("a");
        link.href = up + page.split("/").map(encodeURIComponent).join("/");
        link.textContent = name;
        named.append(link);
      }
      cell(row, status); cell(row, grade || "–"); cell(row, frames, "n"); cell(row, persons, "n"); cell(row, tracks, "n");
      body.append(row);
    }
    const last = Math.min(first + ROWS, found.length);
    byId("where").textContent = found.length ? `${numbers.format(first + 1)} to ${numbers.format(last)} of ${numbers.format(found.length)}` : "none";
    byId("previous").disabled = first === 0;
    byId("next").disabled = last >= found.length;
  }
  function search() {
    const part = byId("filter").value.toLowerCase(), grade = byId("grade").value;
    found = rows.filter((row) => (!part || row[0].toLowerCase().includes(part)) && (!grade || row[2] === grade));
    first = 0;
    show();
  }
  byId("filter").oninput = search;
  byId("grade").onchange = search;
  byId("previous").onclick = () => { first -= ROWS; show(); };
  byId("next").onclick = () => { first += ROWS; show(); };
  show();
  window.posebatchRun = { rows: rows.length, get shown() { return body.children.length; } };
})();
