// The appliance's gauges: `/stats` once a second, drawn as figures, sparklines and small tables.
//
// One request at a time: a slow daemon is asked less often, never more. While it does not answer
// the last figures stay, dimmed, with the time since.
//
// It does not: compute rates or format numbers (`stats`), or know the room.

import { Rates, Series, compact, compactBytes, duration, readStats } from "./stats.js";

const POLL_MS = 1000;
const ANSWER_MS = 4000;

/** Up to this many shards share a row with the other panels. */
const SHARDS_BESIDE = 6;

/** How a sparkline's peak reads, where it is not a plain number. */
const PEAK_FORMAT = { bytes: compactBytes, drops: (value) => `${compact(value)}/s` };

const byId = (id) => document.getElementById(id);

export class Gauges {
  #rates = new Rates();
  #shardRates = new Map();
  #sparks = new Map();
  #answeredAt = null;
  #onStats;

  /** `onStats(stats)` is called with every reading. */
  constructor(onStats) {
    this.#onStats = onStats;
    for (const figure of document.querySelectorAll("[data-figure]")) {
      const name = figure.dataset.figure;
      this.#sparks.set(name, new Sparkline(figure.querySelector(".spark"), PEAK_FORMAT[name] ?? compact));
    }
  }

  /** Asks for ever. Resolves after the first answer, or the first failure. */
  start() {
    return this.#poll();
  }

  async #poll() {
    try {
      const answer = await fetch("/stats", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      if (!answer.ok) {
        throw new Error(`/stats answered ${answer.status}`);
      }
      const stats = readStats(await answer.json());
      this.#answeredAt = performance.now();
      this.#draw(stats);
      this.#onStats(stats);
    } catch (error) {
      this.#drawSilence(error);
    }
    setTimeout(() => this.#poll(), POLL_MS);
  }

  #drawSilence(error) {
    byId("gauges").dataset.stale = "true";
    const since = this.#answeredAt === null ? null : (performance.now() - this.#answeredAt) / 1000;
    // fetch's own words for a refused connection differ from browser to browser.
    const unreachable = error instanceof TypeError || error.name === "TimeoutError";
    const what = unreachable ? "no answer from /stats" : error.message;
    write("gauges-note", since === null ? what : `${what}, last reading ${duration(since)} ago`);
    for (const spark of this.#sparks.values()) {
      spark.push(null);
    }
  }

  #draw(stats) {
    const now = performance.now();
    const rates = this.#rates.step(
      { delivered: stats.delivered, published: stats.messagesIn, bytes: stats.bytes, drops: stats.dropped },
      stats.uptimeS,
      now,
    );
    byId("gauges").dataset.stale = "false";
    write("gauges-note", "once a second");
    write("node", [stats.node, stats.version && `v${stats.version}`, `up ${duration(stats.uptimeS)}`].filter(Boolean).join(" · "));

    number("connections", stats.connections, compact);
    write("connections-sub", `tcp ${compact(stats.connectionsTcp)} · ws ${compact(stats.connectionsWs)} · ${plural(stats.rooms, "room")}`);
    number("delivered-rate", rates.delivered, compact);
    number("delivered", stats.delivered, compact);
    number("published-rate", rates.published, compact);
    number("published", stats.messagesIn, compact);
    number("bytes-rate", rates.bytes, compactBytes);
    number("bytes", stats.bytes, compactBytes);
    number("drops", stats.dropped, compact);
    write("drops-sub", rates.drops ? `${compact(rates.drops)} a second, to slow clients` : "to slow clients, none now");
    document.querySelector("[data-figure=drops]").dataset.alarm = String(Boolean(rates.drops));

    this.#sparks.get("connections").push(stats.connections);
    this.#sparks.get("delivered").push(rates.delivered);
    this.#sparks.get("published").push(rates.published);
    this.#sparks.get("bytes").push(rates.bytes);
    this.#sparks.get("drops").push(rates.drops);

    this.#drawShards(stats, now);
    drawTrunk(stats);
    write("closed-note", `${compact(stats.closed)} closed of ${compact(stats.accepted)} accepted`);
    drawReasons(byId("closed"), stats.closedByReason, "nobody has left yet");
    drawKernel(stats.kernel);
  }

  #drawShards({ shards, uptimeS }, now) {
    write("shards-sub", shards.length === 0 ? "none reported" : `${shards.length}, by time busy`);
    byId("shards").parentElement.dataset.many = String(shards.length > SHARDS_BESIDE);
    rows(byId("shards"), shards, buildShard, (element, shard) => {
      const rates = this.#shardRates.get(shard.id) ?? new Rates();
      this.#shardRates.set(shard.id, rates);
      const { delivered } = rates.step({ delivered: shard.delivered }, uptimeS, now);
      const busy = shard.busyPermille === null ? null : Math.min(shard.busyPermille, 1000) / 10;
      part(element, "id", `shard ${shard.id}`);
      part(element, "cpu", shard.cpu === null ? "" : `cpu ${shard.cpu}`);
      part(element, "busy", busy === null ? "–" : `${busy.toFixed(busy < 10 ? 1 : 0)} %`);
      part(element, "held", `${compact(shard.connections)} conn`);
      part(element, "rate", `${compact(delivered)} msg/s`);
      part(element, "owed", shard.owedBytes ? `owes ${compactBytes(shard.owedBytes)}` : "");
      bar(element, busy ?? 0);
    });
    const present = new Set(shards.map((shard) => shard.id));
    for (const id of this.#shardRates.keys()) {
      if (!present.has(id)) {
        this.#shardRates.delete(id);
      }
    }
  }
}

function drawTrunk({ lines, gaps, duplicates, replays }) {
  const up = lines.filter((line) => line.state === "up").length;
  write("trunk-sub", lines.length === 0 ? "" : `${up} of ${plural(lines.length, "line")} up`);
  write("trunk-note", `${plural(gaps, "gap")} · ${plural(replays, "replay")} · ${plural(duplicates, "duplicate")}`);
  rows(byId("lines"), lines, buildLine, (element, line) => {
    element.dataset.state = line.state;
    part(element, "id", `line ${line.name}`);
    part(element, "address", line.address);
    part(element, "state", line.state);
  }, "no line configured");
}

function drawKernel(kernel) {
  if (kernel === null) {
    write("kernel-sub", "");
    write("kernel-note", "no kernel plane: packets reach the daemon unfiltered");
    drawReasons(byId("kernel-drops"), [], "");
    return;
  }
  write("kernel-sub", kernel.interface);
  write("kernel-note", `${kernel.mode} mode: ${compact(kernel.passed)} packets passed, ${compact(kernel.dropped)} dropped`);
  drawReasons(byId("kernel-drops"), kernel.droppedByReason, "no drops yet");
}

function drawReasons(list, reasons, nothing) {
  const most = reasons[0]?.count ?? 0;
  rows(list, reasons, buildReason, (element, { reason, count }) => {
    part(element, "id", reason.replaceAll("_", " "));
    part(element, "count", compact(count));
    bar(element, most === 0 ? 0 : (count / most) * 100);
  }, nothing);
}

/** Seconds a sparkline spans at first; it widens with the history up to two minutes. */
const FIRST_SPAN = 30;

/** Where nought and the peak are drawn, in hundredths of the height from the top. */
const FLOOR = 90;
const CEILING = 10;

/** One line of the last two minutes, the newest at the right edge, as inline SVG. */
class Sparkline {
  #series = new Series();
  #format;
  #svg;
  #line;
  #area;
  #dot;
  #peak;

  constructor(host, format) {
    this.#format = format;
    this.#svg = svgElement("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.#area = svgElement("path", { class: "area" });
    this.#line = svgElement("path", { class: "line" });
    this.#svg.append(this.#area, this.#line);
    this.#dot = document.createElement("i");
    this.#peak = document.createElement("span");
    this.#peak.className = "peak";
    host.append(this.#svg, this.#dot);
    host.parentElement.append(this.#peak);
  }

  push(value) {
    this.#series.push(value);
    const values = this.#series.values;
    const most = Math.max(0, ...values.filter((each) => each !== null));
    const span = Math.max(values.length, FIRST_SPAN);
    const first = span - values.length;
    const y = (each) => (most === 0 ? FLOOR : FLOOR - (each / most) * (FLOOR - CEILING));
    let line = "";
    let area = "";
    let runStart = null;
    values.forEach((each, index) => {
      const x = first + index;
      if (each === null) {
        area += closeRun(runStart, x - 1);
        runStart = null;
        return;
      }
      const point = `${x} ${y(each).toFixed(1)}`;
      line += `${runStart === null ? "M" : "L"}${point}`;
      area += runStart === null ? `M${x} 100L${point}` : `L${point}`;
      runStart ??= x;
    });
    area += closeRun(runStart, span - 1);
    this.#svg.setAttribute("viewBox", `0 0 ${span - 1} 100`);
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    this.#dot.hidden = value === null;
    this.#dot.style.top = `${value === null ? FLOOR : y(value)}%`;
    this.#peak.textContent = most > 0 ? `peak ${this.#format(most)}` : "";
  }
}

function closeRun(start, end) {
  return start === null ? "" : `L${end} 100Z`;
}

function svgElement(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  return element;
}

/** Makes `list` hold one row per item, reusing rows in place, so that nothing flickers or loses focus. */
function rows(list, items, build, update, nothing = "") {
  list.querySelector(":scope > .nothing")?.remove();
  while (list.childElementCount > items.length) {
    list.lastElementChild.remove();
  }
  items.forEach((item, index) => {
    const element = list.children[index] ?? list.appendChild(build());
    update(element, item);
  });
  if (items.length === 0 && nothing !== "") {
    const element = document.createElement("li");
    element.className = "nothing";
    element.textContent = nothing;
    list.append(element);
  }
}

const buildShard = () => buildRow(["id", "cpu", "busy"], true, ["held", "rate", "owed"]);
const buildLine = () => buildRow(["id", "address", "state"], false, []);
const buildReason = () => buildRow(["id", "count"], true, []);

function buildRow(before, withBar, after) {
  const row = document.createElement("li");
  const spans = (names) =>
    names.map((name) => {
      const span = document.createElement("span");
      span.className = name;
      return span;
    });
  row.append(...spans(before));
  if (withBar) {
    const track = document.createElement("span");
    track.className = "bar";
    track.append(document.createElement("i"));
    row.append(track);
  }
  row.append(...spans(after));
  return row;
}

function part(row, name, text) {
  const element = row.getElementsByClassName(name)[0];
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function bar(row, percent) {
  row.querySelector(".bar > i").style.width = `${percent.toFixed(1)}%`;
}

/** A figure, with the exact value for scripts in `data-value`. */
function number(id, value, format) {
  write(id, format(value));
  byId(id).dataset.value = value === null ? "" : String(value);
}

function write(id, text) {
  const element = byId(id);
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function plural(count, noun) {
  return `${compact(count)} ${noun}${count === 1 ? "" : "s"}`;
}
