// What the pages do by themselves: they ask again for the parts that change, draw the charts, and open the dialog.
// Nothing here is needed to read a page or to act: without it links lead to pages and forms are sent as forms.
(() => {
  "use strict";
  const EVERY = 2500; // milliseconds between two looks
  const root = document.documentElement;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const narrow = () => window.innerWidth < 560;

  // -- colours

  const button = document.getElementById("theme");
  const said = { auto: "as the system", light: "light", dark: "dark" };
  const theme = () => root.dataset.theme || "auto";
  const tell = () => button.setAttribute("aria-label", `Colours: ${said[theme()]}`);
  button.addEventListener("click", () => {
    const next = { auto: "light", light: "dark", dark: "auto" }[theme()];
    if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
    try { if (next === "auto") localStorage.removeItem("theme"); else localStorage.setItem("theme", next); } catch { /* storage is off */ }
    tell();
    redraw();
  });
  tell();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());

  // -- asking again

  const pulse = document.getElementById("pulse");
  const live = pulse.dataset.live === "yes";
  const tick = () => {
    if (document.hidden) return;
    htmx.trigger(document.body, "tick");
    charts.forEach((chart) => chart.load());
  };
  document.body.addEventListener("htmx:sendError", () => away(true));
  document.body.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) away(false); });
  const away = (is) => {
    if (!live) return;
    pulse.classList.toggle("away", is);
    pulse.textContent = is ? "The server does not answer." : "Updates by itself.";
  };

  // -- the dialog

  const ask = document.getElementById("ask");
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === ask && !ask.open) {
      ask.showModal();
      ask.querySelector("input:not([type=hidden])").focus();
    }
    const picked = event.detail.requestConfig && event.detail.requestConfig.elt;
    if (picked && picked.classList.contains("chip")) {
      picked.parentElement.querySelectorAll(".chosen").forEach((one) => one.classList.remove("chosen"));
      const still = document.getElementById(picked.id);
      if (still) still.classList.add("chosen");
    }
  });
  ask.addEventListener("click", (event) => {
    if (event.target === ask || event.target.closest("[data-close]")) { event.preventDefault(); ask.close(); }
  });
  document.body.addEventListener("keydown", (event) => {
    // a link that acts as a button answers to the space bar too
    if (event.key === " " && event.target.matches("a[role=button]")) { event.preventDefault(); event.target.click(); }
  });

  // -- charts

  const charts = [];
  const redraw = () => charts.forEach((chart) => chart.redraw());
  const number = (value) => value == null ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))).replace("-", "−");
  const zone = () => document.body.dataset.zone || "UTC";
  const formatter = (about) => {
    const made = new Intl.DateTimeFormat("en-GB", { timeZone: zone(), ...about });
    return (seconds) => made.format(new Date(seconds * 1000));
  };
  const full = formatter({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  const day = formatter({ day: "numeric", month: "short" });
  const clock = formatter({ hour: "2-digit", minute: "2-digit" });
  const second = formatter({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const ticks = (_, splits, __, ___, step) => splits.map((at) => step >= 86400 ? day(at) : step >= 60 ? (clock(at) === "00:00" ? day(at) : clock(at)) : second(at));
  const span = (seconds) => seconds == null ? "–" : seconds >= 2 * 86400 ? `${number(seconds / 86400)} d` : seconds >= 7200 ? `${number(seconds / 3600)} h` : seconds >= 120 ? `${number(seconds / 60)} min` : `${number(seconds)} s`;

  const axes = (values, filter, incrs) => [
    { stroke: css("--soft"), grid: { show: false }, ticks: { stroke: css("--rule"), size: 5 }, values: ticks, font: "12px system-ui, sans-serif", space: narrow() ? 62 : 76, size: 30 },
    { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, ...(filter && { filter }), ...(incrs && { incrs }), values: (_, splits) => splits.map((at) => at == null ? "" : values(at)), font: "12px system-ui, sans-serif", size: narrow() ? 48 : 58, gap: 4 },
  ];

  // steps of an axis of durations, in seconds: whole minutes, hours, days
  const STEPS = [.1, .2, .5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, ...[1, 2, 5, 10, 20, 50, 100, 200, 500].map((days) => days * 86400)];

  // a box that tells what is under the pointer: lines of text, the first one strong
  const tip = (box) => {
    const made = document.createElement("div");
    made.className = "tip";
    made.hidden = true;
    box.append(made);
    return (lines, left) => {
      made.hidden = !lines;
      if (!lines) return;
      made.replaceChildren(...lines.filter(Boolean).map((text, i) => {
        const line = document.createElement(i ? "span" : "b");
        line.textContent = text;
        return line;
      }));
      const room = box.clientWidth - made.offsetWidth - 8;
      made.style.left = `${Math.max(0, Math.min(left + 14, room))}px`;
      made.style.top = "6px";
    };
  };

  class Chart {
    constructor(box, options) {
      this.box = box;
      this.options = options;
      this.plot = null;
      this.tell = tip(box);
      this.nothing = null;
      new ResizeObserver(() => this.plot && this.plot.setSize(this.size())).observe(box);
    }

    size() { return { width: Math.max(this.box.clientWidth, 100), height: this.box.clientHeight }; }

    show(data, told) {
      this.data = data;
      this.told = told;
      const empty = !data[0].length;
      if (empty && !this.nothing) {
        this.nothing = Object.assign(document.createElement("p"), { className: "nothing", textContent: "Nothing to draw yet." });
        this.box.append(this.nothing);
      }
      if (!empty && this.nothing) { this.nothing.remove(); this.nothing = null; }
      if (empty) return;
      if (this.plot) this.plot.setData(data);
      else this.make();
    }

    make() {
      if (!this.data || !this.data[0].length) return;
      this.plot = new uPlot({ ...this.size(), legend: { show: false }, tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone()), ...this.options(this) }, this.data, this.box);
      this.box.append(this.box.querySelector(".tip"));
    }

    redraw() {
      if (this.plot) { this.plot.destroy(); this.plot = null; this.make(); }
    }

    load() {}
  }

  // marks of what happened: a shape for each kind, so that colour is not needed to tell them apart
  const RANK = { trigger: 0, trained: 1, quarantined: 2, rejected: 3, promoted: 4, "rolled back": 5 };
  const mark = (context, what, x, y, size) => {
    const colour = { promoted: "--leaf", trained: "--accent", rejected: "--bad", "rolled back": "--c4", quarantined: "--care", trigger: "--quiet" }[what];
    context.beginPath();
    context.fillStyle = context.strokeStyle = css(colour);
    if (what === "promoted" || what === "trained") context.arc(x, y, what === "trained" ? size * .8 : size, 0, 7);
    else if (what === "rejected") { context.moveTo(x - size, y - size); context.lineTo(x + size, y + size); context.moveTo(x + size, y - size); context.lineTo(x - size, y + size); }
    else if (what === "rolled back") { context.moveTo(x, y - size * 1.3); context.lineTo(x + size * 1.3, y); context.lineTo(x, y + size * 1.3); context.lineTo(x - size * 1.3, y); context.closePath(); }
    else if (what === "trigger") context.rect(x - 1, y - size, 2, 2 * size);
    else context.rect(x - size * .9, y - size * .9, size * 1.8, size * 1.8);
    if (what === "trained") { context.lineWidth = 2 * devicePixelRatio; context.fillStyle = css("--card"); context.fill(); context.stroke(); }
    else if (what === "rejected") { context.lineWidth = 2.4 * devicePixelRatio; context.stroke(); }
    else context.fill();
  };

  const LANES = 46; // pixels above the plot's floor that marks and the band of lines take

  const drawHappened = (chart) => (u) => {
    const { marks, live } = chart.told;
    const { ctx: context, bbox } = u;
    const px = devicePixelRatio;
    const floor = bbox.top + bbox.height;
    context.save();
    context.beginPath();
    context.rect(bbox.left - 6 * px, bbox.top, bbox.width + 12 * px, bbox.height);
    context.clip();
    for (const [i, one] of live.entries()) {
      const from = u.valToPos(one.from, "x", true);
      const to = u.valToPos(one.to, "x", true);
      context.fillStyle = css(i % 2 ? "--leaf" : "--edge");
      context.globalAlpha = i % 2 ? .34 : .3;
      context.fillRect(from, floor - 12 * px, Math.max(to - from - px, px), 9 * px);
      context.globalAlpha = 1;
      context.font = `${11 * px}px system-ui, sans-serif`;
      const text = one.last;
      if (to - from > context.measureText(text).width + 8 * px) {
        context.fillStyle = css("--soft");
        context.textAlign = "left";
        context.fillText(text, from + 3 * px, floor - 16 * px);
      }
    }
    for (const one of marks.filter((m) => m.what === "promoted" || m.what === "rolled back")) {
      const x = Math.round(u.valToPos(one.t, "x", true)) + .5;
      context.strokeStyle = css(one.what === "promoted" ? "--leaf" : "--c4");
      context.globalAlpha = .5;
      context.lineWidth = px;
      context.setLineDash([3 * px, 3 * px]);
      context.beginPath();
      context.moveTo(x, bbox.top);
      context.lineTo(x, floor);
      context.stroke();
      context.setLineDash([]);
      context.globalAlpha = 1;
    }
    for (const one of [...marks].sort((a, b) => RANK[a.what] - RANK[b.what])) {
      const x = u.valToPos(one.t, "x", true);
      mark(context, one.what, x, floor - 36 * px, (narrow() ? 3.6 : 4.4) * px);
    }
    context.restore();
  };

  const tellHappened = (chart) => (u) => {
    const { left, top, idx } = u.cursor;
    if (left == null || left < 0 || idx == null) return chart.tell(null);
    const { marks, live } = chart.told;
    const near = marks
      .map((one) => ({ one, away: Math.abs(u.valToPos(one.t, "x") - left) }))
      .filter(({ away }) => away < 9)
      .sort((a, b) => a.away - b.away || RANK[b.one.what] - RANK[a.one.what]);
    const at = u.data[0][idx];
    const line = live.find((one) => at >= one.from && at <= one.to);
    const lines = near.length && top > u.over.clientHeight - 60
      ? [`${near[0].one.version || ""} ${near[0].one.what}`.trim(), full(near[0].one.t), near[0].one.why, near[1] && `${near[1].one.version || ""} ${near[1].one.what}: ${near[1].one.why}`]
      : [full(at), u.data[1][idx] != null && `mean ${chart.told.loss} ${number(u.data[1][idx])} on ${chart.told.scored[idx]} labels`, line && `${line.last} answered`,
         ...near.slice(0, 2).map(({ one }) => `${one.version || ""} ${one.what}: ${one.why}`.trim())];
    return chart.tell(lines, left + u.over.offsetLeft);
  };

  // where most of it lies: a single wild bucket may leave the picture
  const reach = (values) => {
    const there = values.filter((value) => value != null).sort((a, b) => a - b);
    return there.length ? [there[0], there[Math.min(there.length - 1, Math.ceil(there.length * .99))] ] : null;
  };

  // a few buckets of few labels would hide where the loss goes: what is drawn strong is a running mean
  const smoothed = (mean, scored) => {
    const reach = Math.max(1, Math.round(mean.length / 60));
    return mean.map((value, i) => {
      let n = 0, total = 0;
      for (let j = Math.max(0, i - reach); j <= Math.min(mean.length - 1, i + reach); j++) {
        if (mean[j] != null) { n += scored[j]; total += mean[j] * scored[j]; }
      }
      return n && value != null ? total / n : null;
    });
  };

  const score = document.getElementById("score");
  if (score) {
    const small = (id, series, paint, values, incrs) => {
      const box = document.getElementById(id);
      const chart = new Chart(box, (chart) => ({
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => [0, Math.max(high || 1, 1e-9) * 1.1] } },
        series: [{}, paint()],
        axes: axes(values, null, incrs),
        hooks: { setCursor: [(u) => u.cursor.idx == null || u.cursor.left < 0 ? chart.tell(null) : chart.tell([full(u.data[0][u.cursor.idx]), series(chart.told, u.cursor.idx)], u.cursor.left + u.over.offsetLeft)] },
      }));
      charts.push(chart);
      return chart;
    };
    const main = new Chart(score, (chart) => ({
      padding: [10, 8, 0, 0],
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { y: { range: () => {
        const found = reach(chart.data[1]);
        if (!found) return [0, 1];
        const [low, high] = found;
        const room = (high - low) * .08 || Math.abs(high) * .1 || .1;
        const foot = chart.foot = low - room;
        const height = Math.max(score.clientHeight - 40, 100);
        return [foot - (high + room - foot) * LANES / (height - LANES), high + room]; // marks have the floor to themselves
      } } },
      series: [{}, { stroke: css("--edge"), width: 1, alpha: .55, points: { show: false } }, { stroke: css("--ink"), width: 2, points: { show: false }, spanGaps: true }],
      axes: axes(number, (_, splits) => splits.map((at) => at < chart.foot ? null : at)),
      hooks: { draw: [drawHappened(chart)], setCursor: [tellHappened(chart)], ready: [(u) => u.over.addEventListener("click", () => {
        if (u.cursor.left < 0) return;
        const at = new Date(u.posToVal(u.cursor.left, "x") * 1000).toISOString();
        htmx.ajax("GET", `/ui/served-at?at=${encodeURIComponent(at)}`, { target: "#served-answer", swap: "innerHTML" });
        document.getElementById("served-title").scrollIntoView({ block: "nearest" });
      })] },
    }));
    const rows = small("rows", (told, i) => `${told.rows[i]} rows`, () => ({ stroke: css("--accent"), fill: css("--band"), width: 1.5, points: { show: false } }), number);
    const stale = small("staleness", (told, i) => `staleness ${span(told.staleness[i])}`, () => ({ stroke: css("--care"), width: 1.5, points: { show: false } }), span, STEPS);
    let which = "all";
    let last = "";
    main.load = async () => {
      let text;
      try {
        const answer = await fetch(`${score.dataset.json}?span=${which}`, { headers: { accept: "application/json" } });
        if (!answer.ok) return;
        text = await answer.text();
      } catch { return; }
      if (text === last) return;
      last = text;
      const told = JSON.parse(text);
      main.show([told.t, told.mean, smoothed(told.mean, told.scored)], told);
      rows.show([told.t, told.rows], told);
      stale.show([told.t, told.staleness], told);
    };
    charts.push(main);
    document.querySelectorAll("[data-span]").forEach((chip) => chip.addEventListener("click", () => {
      which = chip.dataset.span;
      document.querySelectorAll("[data-span]").forEach((one) => one.setAttribute("aria-pressed", String(one === chip)));
      main.load();
    }));
    main.load();
  }

  const trial = document.getElementById("evidence-chart");
  if (trial) {
    const chart = new Chart(trial, (chart) => ({
      padding: [10, 8, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { y: { range: (u, low, high) => {
        const { extent, margin } = chart.told;
        const reach = Math.max(extent || 0, Math.abs(margin || 0) * 1.5, ...chart.told.mean.slice(-20).map(Math.abs), 1e-9) * 1.15;
        return [-reach, reach];
      } } },
      series: [{}, { stroke: css("--accent"), width: 2, points: { show: chart.data[0].length < 30, size: 5, fill: css("--accent") } }, { stroke: css("--accent"), width: 1, alpha: .5, points: { show: false } }, { stroke: css("--accent"), width: 1, alpha: .5, points: { show: false } }],
      bands: [{ series: [2, 3], fill: css("--band") }],
      axes: axes((value) => value > 0 ? `+${number(value)}` : number(value)),
      hooks: {
        drawClear: [(u) => {
          const { ctx: context, bbox } = u;
          const px = devicePixelRatio;
          const level = (value, colour, dash) => {
            const y = Math.round(u.valToPos(value, "y", true)) + .5;
            context.save();
            context.strokeStyle = css(colour);
            context.lineWidth = 1.5 * px;
            context.setLineDash(dash.map((one) => one * px));
            context.beginPath();
            context.moveTo(bbox.left, y);
            context.lineTo(bbox.left + bbox.width, y);
            context.stroke();
            context.restore();
          };
          level(0, "--edge", []);
          if (chart.told.margin) level(chart.told.margin, "--leaf", [6, 4]);
        }],
        setCursor: [(u) => {
          const { idx, left } = u.cursor;
          if (idx == null || left < 0) return chart.tell(null);
          const { mean, lower, upper, rows } = chart.told;
          return chart.tell([full(u.data[0][idx]), `difference ${number(mean[idx])} on ${rows[idx]} labels`, upper[idx] != null && `between ${number(lower[idx])} and ${number(upper[idx])}`], left + u.over.offsetLeft);
        }],
      },
    }));
    let last = "";
    chart.load = async () => {
      let text;
      try {
        const answer = await fetch(trial.dataset.json, { headers: { accept: "application/json" } });
        if (!answer.ok) return;
        text = await answer.text();
      } catch { return; }
      if (text === last) return;
      last = text;
      const told = JSON.parse(text);
      chart.show([told.t, told.mean, told.upper, told.lower], told);
    };
    charts.push(chart);
    chart.load();
  }

  if (live) setInterval(tick, EVERY);
  document.addEventListener("visibilitychange", () => { if (live && !document.hidden) tick(); });
})();
