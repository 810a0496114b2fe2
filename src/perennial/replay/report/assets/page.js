"use strict";
(() => {
  const report = JSON.parse(document.getElementById("report").textContent);
  const id = (name) => document.getElementById(name);
  const XMLNS = "http://www.w3.org/2000/svg";
  const state = { metric: 0, view: "smooth", cost: 0, off: new Set(), near: null };
  const VIEWS = [["smooth", "Smoothed"], ["each", "Per batch"], ["cumulative", "Cumulative"]];

  // ---- elements: text only ever enters as text nodes -------------------------------------------------------
  function put(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  }
  const el = (tag, attributes = {}, ...children) => put(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => put(document.createElementNS(XMLNS, tag), attributes, children);

  // ---- numbers and times -----------------------------------------------------------------------------------
  const minus = (text) => text.replace(/^-/, "−");
  const grouped = (x, digits) =>
    minus(x.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  function score(x) {
    if (x === null || x === undefined) return "–";
    const size = Math.abs(x);
    if (size > 0 && size < 0.001) return minus(x.toExponential(2));
    return grouped(x, size < 10 ? 4 : size < 100 ? 3 : size < 10000 ? 2 : 0);
  }
  function duration(x) {
    if (x === 0) return "0 s";
    if (x < 1) return x >= 0.0001 ? `${+x.toPrecision(2)} s` : "< 0.1 ms";
    for (const [limit, unit, name] of [[120, 1, "s"], [7200, 60, "min"], [172800, 3600, "h"]])
      if (x < limit) return `${+(x / unit).toFixed(1)} ${name}`;
    return `${grouped(x / 86400, 1)} d`;
  }
  function bytes(x) {
    for (const unit of ["B", "kB", "MB", "GB"]) {
      if (Math.abs(x) < 1000) return `${unit === "B" ? x : +x.toFixed(1)} ${unit}`;
      x /= 1000;
    }
    return `${grouped(x, 1)} TB`;
  }
  const SPELL = {
    seconds: duration, bytes, money: (x) => grouped(x, Math.abs(x) < 1000 ? 2 : 0),
    rows: (x) => grouped(x, 0), "row-trees": (x) => grouped(x, 0),
  };
  function brief(x, unit) {
    if (unit === "seconds") return duration(x);
    if (unit === "bytes") return bytes(x);
    for (const [size, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(x) >= size) return minus(`${+(x / size).toPrecision(3)}${name}`);
    return minus(String(+x.toPrecision(3)));
  }
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const two = (n) => String(n).padStart(2, "0");
  function instant(s, clock = true) {
    const d = new Date(s * 1000);
    const day = `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())}`;
    return clock && s % 86400 ? `${day} ${two(d.getUTCHours())}:${two(d.getUTCMinutes())}` : day;
  }
  function timeTicks(from, to, most) {
    const span = to - from;
    const H = 3600, D = 86400;
    const step = [60, 300, 900, 1800, H, 3 * H, 6 * H, 12 * H, D, 2 * D, 7 * D, 14 * D].find((s) => span / s <= most);
    const out = [];
    if (step) {
      for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
        const d = new Date(t * 1000);
        out.push([t, t % D ? `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}` : `${d.getUTCDate()} ${MONTHS[d.getUTCMonth()]}`]);
      }
      return out;
    }
    const months = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600].find((m) => span / (m * 2629800) <= most) || 1200;
    const year = new Date(from * 1000).getUTCFullYear();
    for (let m = months < 12 ? 0 : -((year * 12) % months); ; m += months) {
      const d = new Date(Date.UTC(year, m, 1));
      const t = d.getTime() / 1000;
      if (t > to) return out;
      if (t < from) continue;
      const month = MONTHS[d.getUTCMonth()];
      out.push([t, months >= 12 ? String(d.getUTCFullYear()) : out.length && d.getUTCMonth() ? month : `${month} ${d.getUTCFullYear()}`]);
    }
  }
  function ticks(low, high, most) {
    const raw = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push([k * step, grouped(k * step, digits)]);
    return out;
  }

  // ---- lines -----------------------------------------------------------------------------------------------
  const lines = [
    ...report.strategies.map((s) => ({ ...s, skill: true })),
    ...report.baselines.map((b) => ({ ...b, skill: false })),
  ];
  lines.forEach((line) => { if (line.hidden) state.off.add(line); });
  const title = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
  const direction = () => `${title(metric().label)} ${metric().greater ? "(higher is better)" : "(lower is better)"}`;
  const metric = () => report.metrics[state.metric];
  const visible = (line) => !state.off.has(line);
  const values = (line) => (line.grid === undefined ? null : line[state.view][metric().name] || null);
  const shape = (line, r, x, y, name = "point") =>
    svg("path", { d: line.shape, transform: `translate(${x} ${y}) scale(${r})`, fill: "currentColor", class: name });
  function swatch(line, wide) {
    const w = wide ? 30 : 14;
    const out = svg("svg", { width: w, height: 14, viewBox: `${-w / 2} -7 ${w} 14`, "aria-hidden": "true", class: line.skill ? `s${line.colour}` : null });
    if (wide || !line.skill)
      out.append(svg("line", { x1: -w / 2, x2: w / 2, y1: 0, y2: 0, stroke: line.skill ? "currentColor" : "var(--base)", "stroke-width": 2, "stroke-dasharray": line.dash || null }));
    if (line.skill) out.append(shape(line, 4.4, 0, 0));
    return out;
  }
  function tipIn(figure) {
    const tip = el("div", { class: "tip", hidden: "" });
    figure.append(tip);
    return {
      show(x, y, ...content) {
        tip.replaceChildren(...content);
        tip.hidden = false;
        const room = figure.clientWidth - tip.offsetWidth - 6;
        const left = x + 16 <= room ? x + 16 : x - tip.offsetWidth - 16;
        tip.style.left = `${Math.max(6, Math.min(left, room))}px`;
        tip.style.top = `${Math.max(4, y)}px`;
      },
      hide() { tip.hidden = true; },
    };
  }

  // ---- score over time -------------------------------------------------------------------------------------
  const time = (() => {
    const figure = id("time");
    figure.replaceChildren();
    const tip = tipIn(figure);
    const spoken = el("p", { class: "hidden", role: "status", "aria-live": "polite" });
    figure.after(spoken);
    let picture = null, scale = null, cursor = null, lanes = [], at = null, lane = -1, mark = 0;

    function range(shown) {
      const all = [];
      for (const line of shown) {
        const own = values(line);
        if (own) for (const v of own) { if (v !== null) all.push(v); }
        else if (line.scores[metric().name] != null) all.push(line.scores[metric().name]);
      }
      if (!all.length) return { low: 0, high: 1, cut: 0 };
      all.sort((a, b) => a - b);
      let low = all[0], high = all[all.length - 1];
      const q = (p) => all[Math.floor(p * (all.length - 1))];
      // a few wild batches must not flatten the rest: crop when the middle 98 % fill less than a third of the range
      const inner = q(0.99) - q(0.01);
      let cut = 0;
      if (inner > 0 && high - low > 3 * inner) {
        low = Math.max(low, q(0.01) - 0.3 * inner);
        high = Math.min(high, q(0.99) + 0.3 * inner);
        cut = all.filter((v) => v < low || v > high).length;
      }
      const pad = (high - low || Math.abs(high) || 1) * 0.05;
      return { low: low - pad, high: high + pad, cut };
    }

    function path(line, x, y) {
      const own = values(line), grid = report.grids[line.grid];
      let d = "", pen = "M";
      own.forEach((v, i) => {
        if (v === null) { pen = "M"; return; }
        d += `${pen}${x(grid.middle[i]).toFixed(1)} ${y(v).toFixed(1)}`;
        pen = "L";
      });
      return d;
    }

    function draw() {
      const width = Math.max(300, figure.clientWidth), narrow = width < 560;
      const shown = lines.filter(visible), marked = shown.filter((line) => line.skill && line.marks.length);
      const LANE = 15;
      const left = narrow ? 46 : 58, right = narrow ? 12 : 22, top = 26, plot = narrow ? 250 : 340;
      const rug = marked.length ? marked.length * LANE + 22 : 0;
      const height = top + plot + 26 + rug + 6;
      const { low, high, cut } = range(shown);
      let from = Infinity, to = -Infinity;
      for (const grid of report.grids) if (grid.middle.length) { from = Math.min(from, grid.start[0]); to = Math.max(to, grid.stop[grid.stop.length - 1]); }
      for (const line of marked) from = Math.min(from, line.marks[0][0]);
      if (!isFinite(from)) { from = 0; to = 1; }
      if (from >= to) { from -= 43200; to += 43200; }
      const x = (t) => left + ((t - from) / (to - from)) * (width - left - right);
      const y = (v) => top + plot - ((v - low) / (high - low)) * plot;
      scale = { x, from, to, left, right, top, plot, width, height };

      const out = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
      out.append(svg("clipPath", { id: "inside" }, svg("rect", { x: left, y: top - 3, width: width - left - right + 3, height: plot + 6 })));
      out.append(svg("text", { x: narrow ? 10 : 18, y: 14, class: "strong" }, direction()));
      for (const [v, label] of ticks(low, high, narrow ? 5 : 6)) {
        out.append(svg("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: "grid" }));
        out.append(svg("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, label));
      }
      for (const [t, label] of timeTicks(from, to, narrow ? 4 : 9)) {
        out.append(svg("line", { x1: x(t), x2: x(t), y1: top + plot, y2: top + plot + 5, class: "axis" }));
        const end = x(t) > width - right - 24;
        out.append(svg("text", { x: end ? width - right : x(t), y: top + plot + 19, "text-anchor": end ? "end" : "middle" }, label));
      }
      out.append(svg("line", { x1: left, x2: width - right, y1: top + plot, y2: top + plot, class: "axis" }));

      const inside = svg("g", { "clip-path": "url(#inside)" });
      out.append(inside);
      const order = [...shown].sort((a, b) => (a.skill - b.skill) || ((a.recommended || 0) - (b.recommended || 0)));
      for (const line of order) {
        const dim = state.near && state.near !== line ? " dim" : "";
        if (!line.skill) {
          const flat = line.scores[metric().name];
          const d = values(line) ? path(line, x, y) : flat == null ? "" : `M${left} ${y(flat)}H${width - right}`;
          inside.append(svg("path", { d, class: `base${dim}`, "stroke-dasharray": line.dash }));
          continue;
        }
        if (!values(line)) continue;
        const group = svg("g", { class: `s${line.colour}${dim}` });
        const chosen = line.recommended || state.near === line;
        group.append(svg("path", { d: path(line, x, y), class: `line${chosen ? " chosen" : ""}`, "stroke-dasharray": state.view === "each" ? null : line.dash || null }));
        const own = values(line), grid = report.grids[line.grid], n = own.length, many = narrow ? 4 : 8;
        const offset = (lines.indexOf(line) + 0.5) / lines.length; // shapes of different lines stand apart
        for (let k = 0; k < many && n > 1; k++) {
          const i = Math.min(n - 1, Math.floor(((k + offset) / many) * n));
          if (own[i] !== null) group.append(shape(line, 4.2, x(grid.middle[i]), y(own[i])));
        }
        if (n === 1 && own[0] !== null) group.append(shape(line, 4.2, x(grid.middle[0]), y(own[0])));
        inside.append(group);
      }

      lanes = marked.map((line, k) => ({ line, top: top + plot + 26 + 20 + k * LANE, height: LANE - 3 }));
      if (lanes.length) out.append(svg("text", { x: narrow ? 10 : 18, y: top + plot + 40, class: "strong" }, narrow ? "Versions: tall new model, short update" : "Versions: tall marks are new models, short marks are updates"));
      lanes.forEach(({ line, top: y0, height: h }, k) => {
        const dim = state.near && state.near !== line ? " dim" : "";
        out.append(svg("rect", { x: left, y: y0, width: width - left - right, height: h, class: `lane${lane === k ? " on" : ""}`, rx: 2 }));
        const group = svg("g", { class: `s${line.colour}${dim}` }, shape(line, 4, left - 12, y0 + h / 2));
        let big = "", small = "";
        for (const [t, fit] of line.marks) {
          const px = x(Math.min(t, to)).toFixed(1);
          if (fit) big += `M${px} ${y0}V${y0 + h}`;
          else small += `M${px} ${y0 + h}V${y0 + h - 5}`;
        }
        group.append(svg("path", { d: small, stroke: "currentColor", "stroke-width": 1, opacity: 0.75 }), svg("path", { d: big, stroke: "currentColor", "stroke-width": 2 }));
        out.append(group);
      });
      cursor = svg("g", {});
      out.append(cursor);
      if (picture) picture.replaceWith(out); else figure.prepend(out);
      picture = out;
      note(cut);
    }

    function note(cut) {
      const grid = report.grids[0], parts = [];
      if (state.view === "smooth") parts.push("Moving mean over the batches 4 % of the time to each side, weighted by rows.");
      if (state.view === "cumulative") parts.push("Score of all rows up to that moment.");
      if (grid && grid.batches > grid.middle.length) parts.push(`${grouped(grid.batches, 0)} batches drawn as ${grid.middle.length} points.`);
      if (cut) parts.push(`${grouped(cut, 0)} extreme ${cut === 1 ? "value lies" : "values lie"} outside the picture.`);
      const capped = report.strategies.filter((s) => s.versions > s.marks.length);
      if (capped.length) parts.push(`At most ${report.strategies.reduce((m, s) => Math.max(m, s.marks.length), 0)} version marks per strategy are drawn, new models first (${capped.map((s) => `${s.name}: ${grouped(s.versions, 0)} in all`).join("; ")}).`);
      parts.push("Dashed grey: lines without skill. Times are UTC.");
      id("time-note").textContent = parts.join(" ");
    }

    const indexAt = (grid, t) => {
      let best = 0;
      grid.middle.forEach((m, i) => { if (Math.abs(m - t) < Math.abs(grid.middle[best] - t)) best = i; });
      return best;
    };
    function span(grid, i) {
      return grid.start[i] === grid.stop[i] ? instant(grid.start[i]) : `${instant(grid.start[i])} to ${instant(grid.stop[i])}`;
    }
    function pointTo(t) {
      const grid = report.grids[0];
      if (!grid || !grid.middle.length) return;
      const i = indexAt(grid, t);
      at = i;
      const px = scale.x(grid.middle[i]);
      cursor.replaceChildren(svg("line", { x1: px, x2: px, y1: scale.top, y2: scale.top + scale.plot, class: "cursor" }));
      const rows = lines.filter(visible).map((line) => {
        const own = values(line);
        if (!own) return [line, line.scores[metric().name]];
        return [line, own[indexAt(report.grids[line.grid], grid.middle[i])]];
      }).filter(([, v]) => v !== null && v !== undefined);
      rows.sort((a, b) => (metric().greater ? b[1] - a[1] : a[1] - b[1]));
      tip.show(px, scale.top + 8,
        el("p", { class: "head" }, span(grid, i)),
        el("p", { class: "sub" }, `${title(metric().label)}, ${grouped(grid.rows[i], 0)} rows`),
        ...rows.map(([line, v]) => el("div", { class: "pair" }, swatch(line), el("span", {}, line.name), el("span", {}, score(v)))));
      spoken.textContent = `${span(grid, i)}: ${rows.map(([line, v]) => `${line.name} ${score(v)}`).join(", ")}`;
    }
    function pointToMark(k, m) {
      const { line, top: y0, height: h } = lanes[k];
      const [t, fit, number, rows, reason] = line.marks[m];
      const px = scale.x(t);
      mark = m;
      cursor.replaceChildren(svg("line", { x1: px, x2: px, y1: y0 - 4, y2: y0 + h + 4, stroke: "var(--ink)", "stroke-width": 2 }));
      tip.show(px, Math.min(y0 - 104, scale.height - 130),
        el("p", { class: "head" }, `${line.name} ${number}`),
        el("p", { class: "sub" }, `${fit ? "New model" : "Update"}, ${instant(t)}, ${grouped(rows, 0)} rows`),
        el("p", {}, report.reasons[reason]));
      spoken.textContent = `${line.name} version ${number}, ${fit ? "new model" : "update"}, ${instant(t)}, ${grouped(rows, 0)} rows: ${report.reasons[reason]}`;
    }
    function leave() { tip.hide(); if (cursor) cursor.replaceChildren(); }

    figure.addEventListener("pointermove", (event) => {
      const box = picture.getBoundingClientRect();
      const zoom = scale.width / box.width;
      const px = (event.clientX - box.left) * zoom, py = (event.clientY - box.top) * zoom;
      if (px < scale.left - 20 || px > scale.width - scale.right + 10 || py > scale.height) { leave(); return; }
      const t = scale.from + ((px - scale.left) / (scale.width - scale.left - scale.right)) * (scale.to - scale.from);
      const k = lanes.findIndex((l) => py >= l.top - 1 && py < l.top + l.height + 2);
      if (k < 0) { pointTo(t); return; }
      const marks = lanes[k].line.marks;
      let best = 0;
      marks.forEach((m, i) => { if (Math.abs(m[0] - t) < Math.abs(marks[best][0] - t)) best = i; });
      pointToMark(k, best);
    });
    figure.addEventListener("pointerleave", leave);
    figure.addEventListener("blur", () => { lane = -1; at = null; draw(); leave(); });
    figure.addEventListener("keydown", (event) => {
      const across = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
      const down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (event.key === "Escape") { leave(); return; }
      if (across === undefined && down === undefined) return;
      event.preventDefault();
      const clamp = (v, n) => Math.max(0, Math.min(n - 1, v));
      if (down) { lane = Math.max(-1, Math.min(lanes.length - 1, lane + down)); mark = 0; draw(); }
      if (lane >= 0) pointToMark(lane, clamp(mark + (across || 0), lanes[lane].line.marks.length));
      else {
        const grid = report.grids[0];
        if (grid && grid.middle.length) pointTo(grid.middle[clamp(at === null ? 0 : at + (across || 0), grid.middle.length)]);
      }
    });
    return { draw, leave };
  })();

  // ---- score against cost ----------------------------------------------------------------------------------
  const scatter = (() => {
    const figure = id("scatter");
    const tip = tipIn(figure);
    let picture = null;

    function front(points) {
      const up = metric().greater ? 1 : -1;
      const sorted = [...points].sort((a, b) => a.cost - b.cost || up * (b.score - a.score));
      let best = -Infinity;
      return sorted.filter((p) => { if (up * p.score > best) { best = up * p.score; return true; } return false; });
    }

    function horizontal(costs, from, to) {
      const positive = costs.filter((c) => c > 0), low = Math.min(...positive), high = Math.max(...positive);
      if (costs.some((c) => c < 0) || !positive.length || high / low < 5) {
        const a = Math.min(0, ...costs), b = Math.max(...costs, a + 1e-9) , pad = (b - a) * 0.06;
        return { log: false, x: (c) => from + ((c - a) / (b + pad - a)) * (to - from), ticks: (most) => ticks(a, b + pad, most).map(([v]) => v) };
      }
      // nothing has no place on a logarithmic axis: it gets its own at the left end
      const start = costs.includes(0) ? from + 34 : from;
      const a = Math.log10(low) - 0.12 * Math.log10(high / low), b = Math.log10(high) + 0.12 * Math.log10(high / low);
      const x = (c) => (c === 0 ? from + 6 : start + ((Math.log10(c) - a) / (b - a)) * (to - start));
      return {
        log: true, x,
        ticks: (most) => {
          for (const factors of [[1, 2, 5], [1, 3], [1]]) {
            const out = costs.includes(0) ? [0] : [];
            for (let k = Math.floor(a); k <= Math.ceil(b); k++) for (const f of factors) { const v = f * 10 ** k; if (Math.log10(v) >= a && Math.log10(v) <= b) out.push(v); }
            if (out.length <= most || factors.length === 1) return out;
          }
        },
      };
    }

    function draw() {
      const axis = report.axes[state.cost], width = Math.max(300, figure.clientWidth), narrow = width < 560;
      const left = narrow ? 46 : 58, right = narrow ? 16 : 30, top = 30, plot = narrow ? 270 : 330, height = top + plot + 46;
      const points = report.strategies
        .map((line) => ({ line, cost: line.costs[axis.key], score: line.scores[metric().name] }))
        .filter((p) => p.cost !== null && p.cost !== undefined && p.score !== null && p.score !== undefined);
      const bases = report.baselines.filter((b) => b.scores[metric().name] != null && !b.hidden);
      const out = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
      if (picture) picture.replaceWith(out); else figure.prepend(out);
      picture = out;
      if (!points.length) {
        out.append(svg("text", { x: left, y: top + 20 }, "No strategy has both this score and this cost."));
        id("scatter-note").textContent = "";
        return;
      }
      const heights = [...points.map((p) => p.score), ...bases.map((b) => b.scores[metric().name])];
      let low = Math.min(...heights), high = Math.max(...heights);
      const pad = (high - low || Math.abs(high) || 1) * 0.1;
      low -= pad; high += pad;
      const y = (v) => top + plot - ((v - low) / (high - low)) * plot;
      const scale = horizontal(points.map((p) => p.cost), left + 14, width - right);
      out.append(svg("text", { x: narrow ? 10 : 18, y: 16, class: "strong" }, direction()));
      for (const [v, label] of ticks(low, high, 6)) {
        out.append(svg("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: "grid" }));
        out.append(svg("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, label));
      }
      for (const v of scale.ticks(narrow ? 4 : 8)) {
        out.append(svg("line", { x1: scale.x(v), x2: scale.x(v), y1: top + plot, y2: top + plot + 5, class: "axis" }));
        out.append(svg("text", { x: scale.x(v), y: top + plot + 19, "text-anchor": "middle" }, v === 0 ? "0" : brief(v, axis.unit)));
      }
      out.append(svg("line", { x1: left, x2: width - right, y1: top + plot, y2: top + plot, class: "axis" }));
      out.append(svg("text", { x: width - right, y: top + plot + 38, "text-anchor": "end", class: "strong" }, `${axis.label}${scale.log ? ", logarithmic" : ""} (less is better)`));

      const taken = points.map((p) => [scale.x(p.cost) - 8, y(p.score) - 8, 16, 16]);
      const fits = (box) => box[0] >= left && box[0] + box[2] <= width - 4 && box[1] >= top - 14 && box[1] + box[3] <= top + plot + 2 &&
        !taken.some((t) => box[0] < t[0] + t[2] && t[0] < box[0] + box[2] && box[1] < t[1] + t[3] && t[1] < box[1] + box[3]);
      const clipped = (text) => { const most = narrow ? 22 : 40; return [...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text; };
      const labels = svg("g", {});
      for (const b of bases) {
        const v = y(b.scores[metric().name]);
        out.append(svg("line", { x1: left, x2: width - right, y1: v, y2: v, class: "base", "stroke-dasharray": b.dash }));
      }
      const best = front(points);
      if (best.length) {
        let d = "";
        best.forEach((p, i) => { d += i ? `H${scale.x(p.cost)}V${y(p.score)}` : `M${scale.x(p.cost)} ${y(p.score)}`; });
        out.append(svg("path", { d: `${d}H${width - right}`, class: "front" }));
      }
      out.append(labels);
      for (const p of [...points].sort((a, b) => y(a.score) - y(b.score))) {
        const px = scale.x(p.cost), py = y(p.score), good = best.includes(p);
        const spelled = `${p.line.name}: ${metric().label} ${score(p.score)}, ${axis.label.toLowerCase()} ${SPELL[axis.unit](p.cost)}${good ? "; on the front" : ""}`;
        const node = svg("g", { class: `s${p.line.colour}`, tabindex: 0, role: "img", "aria-label": spelled },
          svg("circle", { cx: px, cy: py, r: 12, class: "ring" }),
          svg("circle", { cx: px, cy: py, r: 14, fill: "transparent" }),
          shape(p.line, p.line.recommended ? 7.5 : 6, px, py, good ? "point" : "hollow"));
        const show = () => tip.show(px, py + 14,
          el("p", { class: "head" }, p.line.name), el("p", { class: "sub" }, p.line.kind),
          el("p", {}, `${title(metric().label)} ${score(p.score)}`), el("p", {}, `${axis.label} ${SPELL[axis.unit](p.cost)}`),
          el("p", {}, good ? "Nothing cheaper is as good." : "Another strategy is as good for less, or better for as much."));
        for (const kind of ["pointerenter", "focus"]) node.addEventListener(kind, show);
        for (const kind of ["pointerleave", "blur"]) node.addEventListener(kind, tip.hide);
        out.append(node);
        const text = clipped(p.line.name), w = [...text].length * 6.9 + 4;
        const place = [[px + 11, py - 7, "start", px + 12], [px - 11 - w, py - 7, "end", px - 12], [px - w / 2, py - 26, "middle", px], [px - w / 2, py + 11, "middle", px]]
          .find(([bx, by]) => fits([bx, by, w, 14]));
        if (place) {
          taken.push([place[0], place[1], w, 14]);
          labels.append(svg("text", { x: place[3], y: place[1] + 11, "text-anchor": place[2], class: "strong halo", "font-weight": p.line.recommended ? 700 : 400 }, text));
        }
      }
      for (const b of [...bases].sort((a, c) => a.scores[metric().name] - c.scores[metric().name])) {
        const v = y(b.scores[metric().name]), w = b.name.length * 6.7;
        const place = [[width - right - w, v - 17], [width - right - w, v + 3], [left + 4, v - 17], [left + 4, v + 3]].find(([bx, by]) => fits([bx, by, w, 14]));
        if (place) {
          taken.push([place[0], place[1], w, 14]);
          labels.append(svg("text", { x: place[0] + 2, y: place[1] + 11, class: "halo" }, b.name));
        }
      }
      id("scatter-note").textContent = "Filled: on the front, where nothing cheaper is as good. Hollow: another strategy is as good for less. Dashed grey: lines without skill, which cost next to nothing.";
    }
    return { draw };
  })();

  // ---- controls --------------------------------------------------------------------------------------------
  function draw() { time.draw(); scatter.draw(); }
  function choose(select, options, key) {
    options.forEach((option, i) => select.append(el("option", { value: i }, option.label)));
    select.addEventListener("change", () => { state[key] = Number(select.value); draw(); });
  }
  function legend() {
    for (const line of lines) {
      const button = el("button", { type: "button", "aria-pressed": String(visible(line)), class: line.recommended ? "chosen" : null }, swatch(line, true), el("span", {}, line.name));
      button.addEventListener("click", () => {
        if (visible(line)) state.off.add(line); else state.off.delete(line);
        button.setAttribute("aria-pressed", String(visible(line)));
        state.near = null;
        time.draw();
      });
      const near = (value) => () => { if (visible(line) && state.near !== value) { state.near = value; time.draw(); } };
      button.addEventListener("pointerenter", near(line));
      button.addEventListener("pointerleave", near(null));
      id("legend").append(button);
    }
  }
  function sorting() {
    const table = id("strategies"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "ascending" ? "descending" : "ascending") : head.dataset.first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.v;
      const compare = (a, b) => {
        if (column === 0) return sign * value(a).localeCompare(value(b), "en", { numeric: true });
        if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === ""); // no number comes last
        return sign * (Number(value(a)) - Number(value(b)));
      };
      body.append(...[...body.rows].sort(compare));
    }));
  }

  for (const [view, label] of VIEWS) {
    const input = el("input", { type: "radio", name: "view", value: view });
    input.checked = view === state.view;
    input.addEventListener("change", () => { state.view = view; time.draw(); });
    id("view").append(el("label", {}, input, el("span", {}, label)));
  }
  choose(id("metric"), report.metrics, "metric");
  choose(id("cost"), report.axes, "cost");
  sorting();
  if (!report.metrics.length || !lines.length) return;
  legend();
  draw();
  let drawn = id("time").clientWidth;
  new ResizeObserver(() => {
    const width = id("time").clientWidth;
    if (width !== drawn) { drawn = width; draw(); }
  }).observe(id("time"));
})();
