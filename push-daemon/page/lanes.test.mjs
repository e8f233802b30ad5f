import assert from "node:assert/strict";
import { test } from "node:test";

import { Lanes } from "./lanes.js";

const SPAN = 800;

test("two messages never overlap, whatever their widths and arrival", () => {
  const lanes = new Lanes(5, 110);
  const flights = [];
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let now = 0; now < 120_000; now += 40 + random() * 200) {
    const width = 30 + random() * 500;
    const taken = lanes.take(now, width, SPAN);
    if (taken !== null) {
      flights.push({ ...taken, width, start: now, speed: (width + SPAN) / taken.durationMs });
    }
  }
  assert.ok(flights.length > 100, `only ${flights.length} flew`);
  const left = (flight, now) => SPAN - flight.speed * (now - flight.start);
  for (const [index, flight] of flights.entries()) {
    const next = flights.slice(index + 1).find((other) => other.lane === flight.lane);
    // Both speeds are constant, so checking the two ends of the time both are up is enough.
    const end = flight.start + flight.durationMs;
    for (const now of next && next.start < end ? [next.start, end] : []) {
      assert.ok(left(flight, now) + flight.width < left(next, now), `overlap in lane ${flight.lane}`);
    }
  }
});

test("full is an answer, and a lane comes free again", () => {
  const lanes = new Lanes(2, 100);
  assert.equal(lanes.take(0, 100, SPAN).lane, 0);
  assert.equal(lanes.take(0, 100, SPAN).lane, 1);
  assert.equal(lanes.take(0, 100, SPAN), null);
  assert.equal(lanes.hasRoom(100), false);
  assert.equal(lanes.hasRoom(10_000), true);
});

test("the lane that has been free longest is next", () => {
  const lanes = new Lanes(3, 100);
  assert.deepEqual([300, 100, 200].map((hold) => lanes.hold(0, hold).lane), [0, 1, 2]);
  assert.equal(lanes.hold(1000, 1).lane, 1);
});

test("no lanes, no flight", () => {
  assert.equal(new Lanes(0, 100).take(0, 10, SPAN), null);
});
