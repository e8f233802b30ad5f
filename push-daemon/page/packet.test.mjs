import assert from "node:assert/strict";
import { test } from "node:test";

import { MAX_BODY_BYTES, Operation, decode, encode } from "./packet.js";

const text = new TextDecoder();

function join(...buffers) {
  const parts = buffers.map((buffer) => new Uint8Array(buffer));
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.byteLength;
  }
  return whole.buffer;
}

/** A copy of `buffer` with one field overwritten. */
function with32(buffer, offset, value) {
  const copy = buffer.slice(0);
  new DataView(copy).setInt32(offset, value);
  return copy;
}

function with16(buffer, offset, value) {
  const copy = buffer.slice(0);
  new DataView(copy).setInt16(offset, value);
  return copy;
}

const bodies = ({ packets }) => packets.map((packet) => text.decode(packet.body));

test("a packet is laid out as goim lays it out", () => {
  assert.deepEqual(
    [...new Uint8Array(encode(Operation.AUTH, 258, "hi"))],
    [0, 0, 0, 18, 0, 16, 0, 1, 0, 0, 0, 7, 0, 0, 1, 2, 0x68, 0x69],
  );
});

test("what is encoded decodes to the same", () => {
  const { packets, malformed } = decode(encode(1000, 7, "弹幕 🎉"));
  assert.equal(malformed, null);
  assert.equal(packets.length, 1);
  assert.equal(packets[0].operation, 1000);
  assert.equal(packets[0].sequence, 7);
  assert.equal(packets[0].version, 1);
  assert.equal(text.decode(packets[0].body), "弹幕 🎉");
});

test("an empty body and an empty message are both fine", () => {
  assert.deepEqual(bodies(decode(encode(Operation.AUTH_REPLY, 1))), [""]);
  assert.deepEqual(decode(new ArrayBuffer(0)), { packets: [], malformed: null });
});

test("a body over the limit is refused before it is sent", () => {
  assert.doesNotThrow(() => encode(4, 1, new Uint8Array(MAX_BODY_BYTES)));
  assert.throws(() => encode(4, 1, new Uint8Array(MAX_BODY_BYTES + 1)), RangeError);
});

test("packets may stand one after another, raw batches among them", () => {
  const batch = encode(Operation.RAW, 0, new Uint8Array(join(encode(1000, 0, "b"), encode(1001, 0, "c"))));
  const result = decode(join(encode(1000, 0, "a"), batch, encode(1002, 0, "d")));
  assert.equal(result.malformed, null);
  assert.deepEqual(bodies(result), ["a", "b", "c", "d"]);
  assert.deepEqual(result.packets.map((packet) => packet.operation), [1000, 1000, 1001, 1002]);
});

test("an empty raw batch is nothing, not an error", () => {
  assert.deepEqual(decode(encode(Operation.RAW, 0)), { packets: [], malformed: null });
});

test("a view into a larger buffer decodes at its own offset", () => {
  const padded = new Uint8Array(join(new ArrayBuffer(5), encode(1000, 3, "x"))).subarray(5);
  assert.deepEqual(bodies(decode(padded)), ["x"]);
});

const good = encode(1000, 1, "good");
const rows = [
  ["a message cut inside the header", good.slice(0, 15), 0],
  ["a message cut inside the body", good.slice(0, 18), 0],
  ["a good packet, then a cut one", join(good, good.slice(0, 9)), 1],
  ["length 0", with32(good, 0, 0), 0],
  ["length 15", with32(good, 0, 15), 0],
  ["length -1", with32(good, 0, -1), 0],
  ["length 2^31-1", with32(good, 0, 0x7fffffff), 0],
  ["length one past the end", with32(good, 0, good.byteLength + 1), 0],
  ["header length 15", with16(good, 4, 15), 0],
  ["header length 17", with16(good, 4, 17), 0],
  ["a raw batch with a cut packet inside", encode(9, 0, new Uint8Array(join(good, good.slice(0, 17)))), 1],
  ["a raw batch inside a raw batch", encode(9, 0, new Uint8Array(encode(9, 0, new Uint8Array(good)))), 0],
];
for (const [name, bytes, survivors] of rows) {
  test(`${name} is malformed, and what stood before it survives`, () => {
    const { packets, malformed } = decode(bytes);
    assert.equal(typeof malformed, "string");
    assert.equal(packets.length, survivors);
  });
}

test("no bytes at all make it throw", () => {
  let seed = 1;
  const next = () => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 24;
  for (let round = 0; round < 2000; round += 1) {
    const bytes = Uint8Array.from({ length: next() % 64 }, next);
    // A plausible header now and then, so that the walk goes past its first checks.
    if (bytes.length >= 16 && round % 2 === 0) {
      bytes.set([0, 0, 0, 16 + (next() % 8), 0, 16, 0, 1, 0, 0, 0, round % 3 === 0 ? 9 : 8]);
    }
    assert.doesNotThrow(() => decode(bytes));
  }
});
