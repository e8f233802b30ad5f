import assert from "node:assert/strict";
import { test } from "node:test";

import { HISTORY, Rates, Series, compact, compactBytes, duration, readStats } from "./stats.js";

test("an answer without any field reads as unknown, not as zero", () => {
  const stats = readStats({});
  assert.equal(stats.connections, null);
  assert.equal(stats.wsPort, null);
  assert.equal(stats.kernel, null);
  assert.deepEqual([stats.shards, stats.lines, stats.closedByReason], [[], [], []]);
});

test("fields of the wrong type read as unknown", () => {
  const stats = readStats({ connections: "3", ws_port: 99999, shards: { a: 1 }, trunk: { lines: [null, 4, {}] }, closed_by_reason: { a: "x", b: 2 } });
  assert.equal(stats.connections, null);
  assert.equal(stats.wsPort, null);
  assert.deepEqual(stats.shards, []);
  assert.deepEqual(stats.lines, [{ name: "?", address: "", state: "unknown" }]);
  assert.deepEqual(stats.closedByReason, [{ reason: "b", count: 2 }]);
});

for (const bad of [null, 3, "x", []]) {
  test(`${JSON.stringify(bad)} is no answer`, () => {
    assert.throws(() => readStats(bad), /JSON object/);
  });
}

test("reasons come with the largest first", () => {
  const { kernel } = readStats({ kernel: { interface: "veth0", mode: "driver", dropped_by_reason: { a: 1, b: 9, c: 1 } } });
  assert.deepEqual(kernel.droppedByReason.map((row) => row.reason), ["b", "a", "c"]);
});

test("a rate needs two readings and the time between them", () => {
  const rates = new Rates();
  assert.deepEqual(rates.step({ n: 100 }, 1, 1000), { n: null });
  assert.deepEqual(rates.step({ n: 300 }, 3, 3000), { n: 100 });
  assert.deepEqual(rates.step({ n: null }, 4, 4000), { n: null });
});

test("a restart has no rate, not a negative or a huge one", () => {
  const down = new Rates();
  down.step({ n: 100 }, 10, 0);
  assert.deepEqual(down.step({ n: 5 }, 11, 1000), { n: null });
  const younger = new Rates();
  younger.step({ n: 100 }, 10, 0);
  assert.deepEqual(younger.step({ n: 500 }, 1, 1000), { n: null });
});

test("a series is bounded", () => {
  const series = new Series();
  for (let value = 0; value < HISTORY * 3; value += 1) {
    series.push(value);
  }
  assert.equal(series.values.length, HISTORY);
  assert.equal(series.values.at(-1), HISTORY * 3 - 1);
});

test("figures are short", () => {
  assert.deepEqual([null, 0, 2.5, 42.4, 1234, 12_345, 4_560_000].map(compact), ["–", "0", "2.5", "42", "1,234", "12.3 k", "4.56 M"]);
  assert.deepEqual([null, 512, 1500, 3.2e6].map(compactBytes), ["–", "512 B", "1.50 kB", "3.20 MB"]);
  assert.deepEqual([null, 42, 200, 18_720, 702_000].map(duration), ["–", "42 s", "3 min", "5 h 12 min", "8 d 3 h"]);
});
