// The daemon's `/stats`, read defensively, and what follows from two readings: rates.
//
// It does not: fetch, draw, or know the time (`now` is an argument).

/** Readings kept for a sparkline: two minutes, at one a second. */
export const HISTORY = 120;

/** Rows shown of any list; a longer one is cut, and the page says so. */
const MAX_ROWS = 256;

const count = (value) => (Number.isFinite(value) && value >= 0 ? value : null);
const text = (value, fallback = "") => (typeof value === "string" ? value.slice(0, 120) : fallback);
const list = (value) => (Array.isArray(value) ? value.filter((item) => item !== null && typeof item === "object") : []);

/** Known fields only, each a number, a string, or null where the answer has none. Throws unless `json` is an object. */
export function readStats(json) {
  if (json === null || typeof json !== "object" || Array.isArray(json)) {
    throw new RangeError("/stats did not answer with a JSON object");
  }
  const trunk = json.trunk ?? {};
  return {
    version: text(json.version),
    node: text(json.node),
    uptimeS: count(json.uptime_s),
    wsPort: Number.isInteger(json.ws_port) && json.ws_port > 0 && json.ws_port < 65536 ? json.ws_port : null,
    connections: count(json.connections),
    connectionsTcp: count(json.connections_tcp),
    connectionsWs: count(json.connections_ws),
    rooms: count(json.rooms),
    accepted: count(json.accepted_total),
    closed: count(json.closed_total),
    messagesIn: count(json.messages_in_total),
    delivered: count(json.messages_delivered_total),
    bytes: count(json.bytes_delivered_total),
    dropped: count(json.dropped_total),
    closedByReason: readReasons(json.closed_by_reason),
    lines: list(trunk.lines).slice(0, MAX_ROWS).map((line) => ({
      name: text(line.name, "?"),
      address: text(line.address),
      state: text(line.state, "unknown"),
    })),
    gaps: count(trunk.gaps_total),
    duplicates: count(trunk.duplicates_total),
    replays: count(trunk.replays_total),
    shards: list(json.shards).slice(0, MAX_ROWS).map((shard, index) => ({
      id: count(shard.id) ?? index,
      cpu: count(shard.cpu),
      connections: count(shard.connections),
      rooms: count(shard.rooms),
      delivered: count(shard.delivered_total),
      owedBytes: count(shard.owed_bytes),
      busyPermille: count(shard.loop_busy_permille),
    })),
    kernel: readKernel(json.kernel),
  };
}

function readKernel(kernel) {
  if (kernel === null || typeof kernel !== "object") {
    return null;
  }
  return {
    interface: text(kernel.interface, "?"),
    mode: text(kernel.mode, "unknown"),
    passed: count(kernel.passed_total),
    dropped: count(kernel.dropped_total),
    droppedByReason: readReasons(kernel.dropped_by_reason),
  };
}

/** `{reason: count}` as rows, the largest first. */
function readReasons(reasons) {
  if (reasons === null || typeof reasons !== "object") {
    return [];
  }
  return Object.entries(reasons)
    .filter(([, value]) => count(value) !== null)
    .map(([reason, value]) => ({ reason: reason.slice(0, 64), count: value }))
    .sort((a, b) => b.count - a.count || a.reason.localeCompare(b.reason))
    .slice(0, MAX_ROWS);
}

/** The last HISTORY values of one figure; a null is a moment without a reading. */
export class Series {
  values = [];

  push(value) {
    this.values.push(value);
    if (this.values.length > HISTORY) {
      this.values.shift();
    }
  }
}

/**
 * Per-second rates of running totals. A total that went down, or a younger daemon, is a restart:
 * that step has no rate, rather than a wrong one.
 */
export class Rates {
  #last = null;

  /** `totals`: {name: number|null}. Returns the same names with rates, null where there is none. */
  step(totals, uptimeS, now) {
    const last = this.#last;
    this.#last = { totals, uptimeS, now };
    const restarted = last !== null && uptimeS !== null && last.uptimeS !== null && uptimeS < last.uptimeS;
    const seconds = last === null ? 0 : (now - last.now) / 1000;
    return Object.fromEntries(
      Object.entries(totals).map(([name, total]) => {
        const before = last?.totals[name] ?? null;
        const known = !restarted && seconds > 0 && total !== null && before !== null && total >= before;
        return [name, known ? (total - before) / seconds : null];
      }),
    );
  }
}

/** 950, 1,234, 12.3 k, 4.56 M: three or four digits that fit a small figure. */
export function compact(value) {
  if (value === null) {
    return "–";
  }
  if (value < 10_000) {
    return value < 10 && !Number.isInteger(value) ? value.toFixed(1) : Math.round(value).toLocaleString("en");
  }
  const [scale, unit] = value < 1e6 ? [1e3, "k"] : value < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${digits3(value / scale)} ${unit}`;
}

/** 512 B, 1.50 kB, 3.20 MB. */
export function compactBytes(value) {
  if (value === null) {
    return "–";
  }
  if (value < 1000) {
    return `${Math.round(value)} B`;
  }
  const [scale, unit] = value < 1e6 ? [1e3, "kB"] : value < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  return `${digits3(value / scale)} ${unit}`;
}

function digits3(value) {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}

/** 42 s, 3 min, 5 h 12 min, 8 d 3 h. */
export function duration(seconds) {
  if (seconds === null) {
    return "–";
  }
  const whole = Math.floor(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min`;
  }
  if (whole < 86_400) {
    return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  }
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}
