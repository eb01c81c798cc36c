"use strict";
// The player and the plots of a video's page. The data are packed by player_data.py.
(async () => {
  const byId = (id) => document.getElementById(id);
  const json = (id) => JSON.parse(byId(id).textContent);
  const head = json("head"), stills = json("stills");
  const UNKNOWN = -32768, TRACK = -1, SEEN = 1, INTERPOLATED = 2, JOINTS = 17;
  const message = byId("message");
  if (typeof DecompressionStream === "undefined") {
    message.textContent = "This browser cannot unpack the movement. A browser of 2023 or later can.";
    return;
  }

  // ---- data ----
  async function unpack(id, itemsize, count) {
    const text = atob(byId(id).textContent);
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = planes.length / itemsize;
    const words = itemsize === 2 ? new Int16Array(size) : new Int32Array(size);
    let sum = 0;
    for (let i = 0; i < size; i++) {
      if (i % count === 0) sum = 0;
      let word = 0;
      for (let p = 0; p < itemsize; p++) word |= planes[p * size + i] << (8 * p);
      words[i] = sum += word; // a typed array keeps the lowest bits
      sum = words[i];
    }
    return (column) => words.subarray(column * count, (column + 1) * count);
  }
  const n = head.frames, m = head.rows;
  const frameColumn = n ? await unpack("frames", 4, n) : () => new Int32Array(0);
  const [frameIndex, milliseconds, persons, decoded] = [0, 1, 2, 3].map(frameColumn);
  const rowColumn = m ? await unpack("rows", 2, m) : () => new Int16Array(0);
  const xs = [], ys = [], states = [];
  for (let j = 0; j < JOINTS; j++) {
    xs.push(rowColumn(j)); ys.push(rowColumn(JOINTS + j)); states.push(rowColumn(2 * JOINTS + j));
  }
  const angles = head.angles.map((_, a) => rowColumn(3 * JOINTS + a));
  const after = 3 * JOINTS + head.angles.length;
  const gaps = rowColumn(after), heights = rowColumn(after + 1), paces = rowColumn(after + 2);
  if (!n) { message.textContent = "The video has no processed frame."; return; }
  message.textContent = "";
  const t0 = milliseconds[0] / 1000, t1 = milliseconds[n - 1] / 1000;
  const timeOf = (p) => milliseconds[p] / 1000;
  function frameAt(time) { // position of the last frame that has begun
    const ms = Math.floor(time * 1000 + 0.5);
    let low = 0, high = n - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (milliseconds[middle] <= ms) low = middle; else high = middle - 1;
    }
    return low;
  }

  // ---- state ----
  const main = head.tracks.find((t) => t.main) ||
    head.tracks.reduce((best, t) => (!best || t.rows > best.rows ? t : best), null);
  const state = { position: main ? main.start : 0, playing: false, speed: 1, track: main, alone: false, picture: stills.length > 0, group: "knee", span: 0 };
  const rowOf = (track, p) => (track && p >= track.start && p < track.start + track.rows ? track.row + p - track.start : -1);

  // ---- the stage ----
  const stage = byId("stage"), pen = stage.getContext("2d");
  let scale = 1, ratio = 1;
  function fitStage() {
    ratio = Math.min(window.devicePixelRatio || 1, 2);
    const most = Math.min(window.innerHeight * 0.62, 640);
    const width = stage.parentElement.clientWidth;
    const shown = Math.min(width / head.width, most / head.height);
    stage.style.width = `${Math.round(head.width * shown)}px`;
    stage.style.height = `${Math.round(head.height * shown)}px`;
    stage.width = Math.round(head.width * shown * ratio);
    stage.height = Math.round(head.height * shown * ratio);
    scale = stage.width / head.width;
  }
  const images = new Map();
  let gap = 0.2; // between stills, seconds: a preview may end before its video does
  for (let i = 1; i < stills.length; i++) gap = Math.max(gap, stills[i].t - stills[i - 1].t);
  function stillAt(time) { // the one nearest in time; null after the end of the preview
    if (time - t0 > stills[stills.length - 1].t + gap) return null;
    let low = 0, high = stills.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (2 * (time - t0) <= stills[middle].t + stills[middle + 1].t) high = middle; else low = middle + 1;
    }
    if (!images.has(low)) {
      const image = new Image();
      image.onload = () => { if (!state.playing) drawStage(); };
      image.src = stills[low].u;
      images.set(low, image);
      if (images.size > 40) images.delete(images.keys().next().value);
    }
    const image = images.get(low);
    if (image.complete && image.naturalWidth) lastImage = image;
    return lastImage;
  }
  let lastImage = null;
  const rgb = (c) => `rgb(${c[0]},${c[1]},${c[2]})`;
  const edgeColours = head.edgeColours.map(rgb), jointColours = head.jointColours.map(rgb);
  let drawnSkeletons = 0;
  function drawStage() {
    const p = state.position;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.globalAlpha = 1;
    pen.clearRect(0, 0, stage.width, stage.height);
    if (state.picture && stills.length) {
      const image = stillAt(timeOf(p));
      if (image) { pen.globalAlpha = 0.45; pen.drawImage(image, 0, 0, stage.width, stage.height); }
    }
    drawnSkeletons = 0;
    for (const track of head.tracks) if (track !== state.track && !state.alone) drawTrack(track, p, false);
    if (state.track) drawTrack(state.track, p, true);
    pen.globalAlpha = 1;
    if (!decoded[p]) {
      pen.fillStyle = "#ffb3a6"; pen.font = `${14 * ratio}px system-ui, sans-serif`;
      pen.fillText("this frame could not be decoded", 10 * ratio, 22 * ratio);
    }
  }
  function drawTrack(track, p, chosen) {
    const row = rowOf(track, p);
    if (row < 0) return;
    const unit = head.unit * scale;
    const x = (j) => xs[j][row] * unit + scale / 2, y = (j) => ys[j][row] * unit + scale / 2;
    const shown = (j) => states[j][row] === SEEN || states[j][row] === INTERPOLATED;
    let any = false, top = Infinity, topX = 0, low = -Infinity;
    for (let j = 0; j < JOINTS; j++) {
      if (!shown(j)) continue;
      any = true; low = Math.max(low, y(j));
      if (y(j) < top) { top = y(j); topX = x(j); }
    }
    if (!any) return;
    drawnSkeletons++;
    const line = Math.max(1.6 * ratio, Math.min(4 * ratio, (low - top) / 70)) * (chosen ? 1.15 : 0.8);
    const dash = [line * 2, line * 2];
    pen.lineCap = "round";
    pen.globalAlpha = chosen ? 1 : 0.5;
    for (const rim of [true, false]) {
      pen.lineWidth = rim ? line + 2 * ratio : line;
      head.edges.forEach(([a, b], e) => {
        if (!shown(a) || !shown(b)) return;
        const sure = states[a][row] === SEEN && states[b][row] === SEEN;
        if (rim && !sure) return;
        pen.setLineDash(sure ? [] : dash);
        pen.strokeStyle = rim ? "rgba(0,0,0,.55)" : edgeColours[e];
        pen.beginPath(); pen.moveTo(x(a), y(a)); pen.lineTo(x(b), y(b)); pen.stroke();
      });
    }
    pen.setLineDash([]);
    for (let j = 0; j < JOINTS; j++) {
      if (!shown(j)) continue;
      pen.beginPath(); pen.arc(x(j), y(j), line * 1.1, 0, 2 * Math.PI);
      if (states[j][row] === SEEN) { pen.fillStyle = jointColours[j]; pen.fill(); }
      else { pen.lineWidth = Math.max(1, line / 2.5); pen.strokeStyle = jointColours[j]; pen.stroke(); }
    }
    pen.font = `${chosen ? 600 : 400} ${13 * ratio}px system-ui, sans-serif`;
    pen.textAlign = "center"; pen.lineWidth = 3 * ratio; pen.strokeStyle = "rgba(0,0,0,.7)"; pen.fillStyle = "#fff";
    const label = String(track.id), labelY = Math.max(14 * ratio, top - 10 * ratio);
    pen.strokeText(label, topX, labelY); pen.fillText(label, topX, labelY);
  }

  // ---- the plots ----
  const GROUPS = {};
  head.angles.forEach((name, a) => {
    const side = /^(left|right)_/.exec(name);
    const group = side ? name.slice(side[0].length) : name;
    (GROUPS[group] = GROUPS[group] || []).push({ a, side: side ? side[1] : "middle", name });
  });
  const RESTS_ON = { knee: [11, 13, 15], elbow: [5, 7, 9], hip: [5, 11, 13], shoulder: [11, 5, 7], thigh: [11, 13], shank: [13, 15], upper_arm: [5, 7], forearm: [7, 9], trunk: [5, 6, 11, 12], pelvis: [11, 12], shoulders: [5, 6] };
  function sureAngle(group, side) {
    const joints = (RESTS_ON[group] || []).map((j) => (side === "right" ? j + 1 : j));
    return (row) => joints.every((j) => states[j][row] === SEEN);
  }
  const sureHips = (row) => states[11][row] === SEEN && states[12][row] === SEEN;
  function trackSeries(column, unit, sure, colour, label) {
    const track = state.track;
    return { colour, label, sure: (p) => { const r = rowOf(track, p); return r >= 0 && !gaps[r] && sure(r); },
      at: (p) => { const r = rowOf(track, p); return r < 0 || column[r] === UNKNOWN ? NaN : column[r] * unit; } };
  }
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { left: of("--left"), right: of("--right"), middle: of("--accent"), line: of("--line"), quiet: of("--quiet"), card: of("--card") };
  }
  let paint = colours();
  const plots = [
    { id: "angle", digits: 0, suffix: "°", series: () => GROUPS[state.group].map(({ a, side }) =>
      trackSeries(angles[a], head.degrees, sureAngle(state.group, side), paint[side], side === "middle" ? "" : side)) },
    { id: "height", digits: 2, suffix: "", series: () => [trackSeries(heights, head.torsos, sureHips, paint.middle, "")] },
    { id: "pace", digits: 2, suffix: "", zero: true, series: () => [trackSeries(paces, head.torsos, sureHips, paint.middle, "")] },
    { id: "persons", digits: 0, suffix: "", zero: true, steps: true, series: () => [{ colour: paint.middle, label: "", sure: () => true, at: (p) => persons[p] }] },
  ];
  for (const plot of plots) {
    plot.canvas = byId(`plot-${plot.id}`); plot.box = plot.canvas.parentElement; plot.cursor = plot.box.querySelector(".cursor");
    plot.now = byId(`${plot.id}-now`); plot.pen = plot.canvas.getContext("2d");
  }
  function shownSpan() {
    const length = Math.max(t1 - t0, 0.001);
    if (state.span === TRACK && state.track) {
      const from = timeOf(state.track.start), to = timeOf(state.track.start + state.track.rows - 1);
      return [from, Math.max(to, from + 0.001)];
    }
    if (state.span <= 0 || state.span >= length) return [t0, t0 + length];
    const pixel = state.span / Math.max(plots[0].box.clientWidth, 1); // the window moves by whole pixels
    const centred = Math.round((timeOf(state.position) - state.span / 2) / pixel) * pixel;
    const from = Math.min(Math.max(centred, t0), t1 - state.span);
    return [from, from + state.span];
  }
  function scalePlot(plot) { // limits of the whole track, so that zooming keeps them
    let low = Infinity, high = -Infinity;
    plot.lines = plot.series();
    for (const sureOnly of [true, false]) { // an unsure value that is far out may leave the plot
      if (low <= high) break;
      for (const line of plot.lines) for (let p = 0; p < n; p++) {
        const v = line.at(p);
        if (sureOnly && !line.sure(p)) continue;
        if (v < low) low = v;
        if (v > high) high = v;
      }
    }
    plot.empty = low > high;
    if (plot.empty) { low = 0; high = 1; }
    if (plot.zero) low = Math.min(low, 0);
    const room = (high - low || 1) * 0.08;
    plot.low = plot.zero ? low : low - room; plot.high = high + room;
  }
  function niceStep(range, lines) {
    const rough = range / lines, power = 10 ** Math.floor(Math.log10(rough));
    return [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough);
  }
  function drawPlot(plot) {
    const { pen: ink, canvas } = plot;
    const width = Math.round(plot.box.clientWidth * ratio), height = Math.round(plot.box.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    ink.clearRect(0, 0, width, height);
    const yOf = (v) => height - ((v - plot.low) / (plot.high - plot.low)) * height;
    ink.font = `${11 * ratio}px system-ui, sans-serif`; ink.fillStyle = paint.quiet; ink.strokeStyle = paint.line; ink.lineWidth = ratio;
    if (plot.empty) { ink.font = `${13 * ratio}px system-ui, sans-serif`; ink.fillText("nothing known", 10 * ratio, height / 2); return; }
    const step = Math.max(niceStep(plot.high - plot.low, plot.box.clientHeight / 28), plot.digits === 0 ? 1 : 0);
    const ticks = [];
    for (let v = Math.ceil(plot.low / step) * step; v <= plot.high; v += step) ticks.push([v, Math.round(yOf(v)) + 0.5]);
    for (const [, y] of ticks) { ink.beginPath(); ink.moveTo(0, y); ink.lineTo(width, y); ink.stroke(); }
    const [from, to] = shownSpan();
    const first = Math.max(0, frameAt(from) - 1), last = Math.min(n - 1, frameAt(to) + 1);
    const xOf = (p) => ((timeOf(p) - from) / (to - from)) * width;
    const dense = last - first > 2 * width;
    for (const line of plot.lines) for (const sure of [false, true]) {
      ink.strokeStyle = line.colour; ink.globalAlpha = sure ? 1 : 0.4; ink.lineWidth = (sure ? 1.8 : 1.4) * ratio; ink.lineJoin = "round";
      ink.beginPath();
      if (dense) traceDense(ink, line, sure, first, last, xOf, yOf);
      else trace(ink, plot, line, sure, first, last, xOf, yOf);
      ink.stroke();
    }
    ink.globalAlpha = 1; ink.strokeStyle = paint.card; ink.lineWidth = 3 * ratio;
    for (const [v, y] of ticks) {
      if (y < 12 * ratio) continue;
      const text = String(Math.round(v * 1000) / 1000);
      ink.strokeText(text, 4 * ratio, y - 3 * ratio); ink.fillText(text, 4 * ratio, y - 3 * ratio);
    }
  }
  function trace(ink, plot, line, sure, first, last, xOf, yOf) {
    let before = NaN;
    for (let p = first; p <= last; p++) {
      const v = line.at(p);
      const joined = !Number.isNaN(before) && !Number.isNaN(v) && (line.sure(p) && line.sure(p - 1)) === sure;
      if (joined && plot.steps) { ink.moveTo(xOf(p - 1), yOf(before)); ink.lineTo(xOf(p), yOf(before)); ink.lineTo(xOf(p), yOf(v)); }
      else if (joined) { ink.moveTo(xOf(p - 1), yOf(before)); ink.lineTo(xOf(p), yOf(v)); }
      before = v;
    }
  }
  function traceDense(ink, line, sure, first, last, xOf, yOf) { // the range of values in each column of pixels
    let column = null, low = 0, high = 0, end = 0, joined = false;
    const flush = () => {
      if (column === null) return;
      ink.lineTo(column + 0.5, yOf(low) + 0.5); ink.lineTo(column + 0.5, yOf(high) - 0.5); ink.lineTo(column + 0.5, yOf(end));
    };
    for (let p = first; p <= last; p++) {
      const v = line.at(p);
      if (Number.isNaN(v) || line.sure(p) !== sure) { flush(); column = null; joined = false; continue; }
      const x = Math.floor(xOf(p));
      if (x !== column) {
        flush();
        if (joined) ink.lineTo(x + 0.5, yOf(v)); else ink.moveTo(x + 0.5, yOf(v));
        column = x; low = high = v; joined = true;
      }
      low = Math.min(low, v); high = Math.max(high, v); end = v;
    }
    flush();
  }
  const zoomed = () => state.span > 0 && state.span < t1 - t0;
  let drawnFrom = NaN;
  function drawPlots() {
    for (const plot of plots) drawPlot(plot);
    const [from, to] = shownSpan();
    drawnFrom = from;
    byId("axis-from").textContent = `${from.toFixed(1)} s`; byId("axis-to").textContent = `${to.toFixed(1)} s`;
  }
  function rescale() { for (const plot of plots) scalePlot(plot); drawPlots(); showPosition(); }

  // ---- one position for all ----
  const scrub = byId("scrub"), clock = byId("clock"), playButton = byId("play");
  scrub.max = n - 1;
  let frameDraws = 0;
  function showPosition() {
    const p = state.position, [from, to] = shownSpan();
    if (zoomed() && from !== drawnFrom) drawPlots();
    for (const plot of plots) {
      plot.cursor.style.transform = `translateX(${((timeOf(p) - from) / (to - from)) * plot.box.clientWidth - 1}px)`;
      plot.now.textContent = plot.lines.map((line) => {
        const v = line.at(p);
        return `${line.label} ${Number.isNaN(v) ? "–" : v.toFixed(plot.digits) + plot.suffix}`.trim();
      }).join("   ");
    }
    scrub.value = p;
    scrub.setAttribute("aria-valuetext", `${timeOf(p).toFixed(2)} seconds, frame ${frameIndex[p]}`);
    clock.textContent = `${timeOf(p).toFixed(2)} s`;
    clock.title = `frame ${frameIndex[p]}`;
    drawStage();
    frameDraws++;
  }
  function go(p) { state.position = Math.max(0, Math.min(n - 1, p)); showPosition(); }
  let begunAt = 0, begunTime = 0;
  function play() {
    if (state.position >= n - 1) go(0);
    state.playing = true; begunAt = performance.now(); begunTime = timeOf(state.position);
    playButton.textContent = "Pause"; playButton.setAttribute("aria-label", "Pause");
    requestAnimationFrame(tick);
  }
  function pause() { state.playing = false; playButton.textContent = "Play"; playButton.setAttribute("aria-label", "Play"); }
  function tick(now) {
    if (!state.playing) return;
    const time = begunTime + (Math.max(0, now - begunAt) / 1000) * state.speed;
    const p = frameAt(time);
    if (p !== state.position) go(p);
    if (time >= t1) { go(n - 1); pause(); return; }
    requestAnimationFrame(tick);
  }
  const restart = () => { begunAt = performance.now(); begunTime = timeOf(state.position); };
  const jump = (p) => { go(p); restart(); };

  // ---- controls ----
  const trackSelect = byId("track"), angleSelect = byId("angle");
  const option = (select, value, text) => { const o = document.createElement("option"); o.value = value; o.textContent = text; select.append(o); };
  if (!head.tracks.length) option(trackSelect, "", "none");
  for (const t of head.tracks) option(trackSelect, t.id, `${t.id}${t.main ? " (main)" : ""}${t.grade ? ", grade " + t.grade : ""}`);
  for (const group of Object.keys(GROUPS)) option(angleSelect, group, group[0].toUpperCase() + group.slice(1).replace("_", " "));
  function chooseTrack(id) {
    state.track = head.tracks.find((t) => t.id === id) || state.track;
    if (!state.track) return;
    trackSelect.value = state.track.id;
    for (const row of document.querySelectorAll("#tracks tr[data-track]")) row.classList.toggle("chosen", Number(row.dataset.track) === state.track.id);
    rescale();
  }
  function chooseAngle(group) {
    state.group = group; angleSelect.value = group;
    byId("angle-title").textContent = angleSelect.selectedOptions[0].textContent;
    rescale();
  }
  playButton.onclick = () => (state.playing ? pause() : play());
  byId("back").onclick = () => { pause(); go(state.position - 1); };
  byId("forth").onclick = () => { pause(); go(state.position + 1); };
  scrub.oninput = () => jump(Number(scrub.value));
  byId("speed").onchange = (e) => { state.speed = Number(e.target.value); restart(); };
  byId("span").onchange = (e) => { state.span = Number(e.target.value); drawPlots(); showPosition(); };
  trackSelect.onchange = () => chooseTrack(Number(trackSelect.value));
  angleSelect.onchange = () => chooseAngle(angleSelect.value);
  byId("alone").onchange = (e) => { state.alone = e.target.checked; drawStage(); };
  if (byId("picture")) byId("picture").onchange = (e) => { state.picture = e.target.checked; drawStage(); };
  for (const button of document.querySelectorAll("button[data-track]")) button.onclick = () => {
    chooseTrack(Number(button.dataset.track));
    if (rowOf(state.track, state.position) < 0) jump(state.track.start);
    byId("viewer").scrollIntoView({ block: "start" });
  };
  for (const plot of plots) {
    const seek = (event) => {
      const box = plot.box.getBoundingClientRect(), [from, to] = shownSpan();
      jump(frameAt(from + ((event.clientX - box.left) / box.width) * (to - from)));
    };
    plot.box.addEventListener("pointerdown", (event) => { plot.box.setPointerCapture(event.pointerId); if (!zoomed()) plot.dragging = true; seek(event); });
    plot.box.addEventListener("pointermove", (event) => { if (plot.dragging) seek(event); });
    for (const end of ["pointerup", "pointercancel"]) plot.box.addEventListener(end, () => { plot.dragging = false; });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const step = (d) => { pause(); go(state.position + d); };
    const second = (d) => jump(frameAt(timeOf(state.position) + d));
    const keys = {
      " ": () => (state.playing ? pause() : play()),
      ArrowLeft: () => (event.shiftKey ? second(-1) : step(-1)), ArrowRight: () => (event.shiftKey ? second(1) : step(1)),
      Home: () => jump(0), End: () => jump(n - 1),
      t: () => { const i = head.tracks.indexOf(state.track); if (i >= 0) chooseTrack(head.tracks[(i + 1) % head.tracks.length].id); },
    };
    if (event.key === " " && event.target.type === "checkbox") return;
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  document.addEventListener("keyup", (event) => { if (event.key === " " && event.target.tagName === "BUTTON") event.preventDefault(); });

  const restyle = () => { paint = colours(); fitStage(); rescale(); };
  window.addEventListener("resize", restyle);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  window.addEventListener("beforeprint", () => { document.documentElement.classList.add("printing"); restyle(); });
  window.addEventListener("afterprint", () => { document.documentElement.classList.remove("printing"); restyle(); });

  fitStage();
  for (const plot of plots) scalePlot(plot);
  if (state.track && state.track.rows < 0.6 * n) byId("span").value = state.span = TRACK;
  if (state.track) chooseTrack(state.track.id);
  const best = Object.keys(GROUPS).find((g) => GROUPS[g].some(({ a }) => angles[a].some((v) => v !== UNKNOWN)));
  chooseAngle(best || Object.keys(GROUPS)[0]);
  window.posebatch = { // for the tests of the page, and for people with a console
    frameAt: (time) => frameIndex[frameAt(time)], seek: (time) => jump(frameAt(time)), play, pause, chooseTrack, chooseAngle,
    get frame() { return frameIndex[state.position]; }, get time() { return timeOf(state.position); },
    get playing() { return state.playing; }, get skeletons() { return drawnSkeletons; }, get draws() { return frameDraws; },
    joint: (track, p, j) => { const r = rowOf(head.tracks.find((t) => t.id === track), p); return r < 0 ? null : [xs[j][r] * head.unit, ys[j][r] * head.unit, states[j][r]]; },
    angle: (name, p) => { const r = rowOf(state.track, p), v = r < 0 ? UNKNOWN : angles[head.angles.indexOf(name)][r]; return v === UNKNOWN ? null : v * head.degrees; },
  };
})();
