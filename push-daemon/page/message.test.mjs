import assert from "node:assert/strict";
import { test } from "node:test";

import { readMessage, readRefusal } from "./message.js";

const utf8 = new TextEncoder();
const read = (operation, body) => readMessage(operation, typeof body === "string" ? utf8.encode(body) : body);

const rows = [
  ["our JSON is chat", 1000, '{"user":"ada","text":"hi","id":"x"}', { kind: "chat", user: "ada", text: "hi", id: "x" }],
  ["operation 1001 is a gift", 1001, '{"user":"ada","text":"rocket"}', { kind: "gift", user: "ada", text: "rocket", id: null }],
  ["operation 1002 is a notice", 1002, '{"user":"ops","text":"soon"}', { kind: "notice", user: "ops", text: "soon", id: null }],
  ["plain text is the publisher's notice", 1000, "hello", { kind: "notice", user: "publisher", text: "hello", id: null }],
  ["a number is plain text too", 1000, "42", { kind: "notice", user: "publisher", text: "42", id: null }],
  ["JSON without text is shown as it is", 1000, '{"a":1}', { kind: "notice", user: "publisher", text: '{"a":1}', id: null }],
  ["fields of the wrong type are ignored", 1000, '{"user":7,"text":"hi","id":{}}', { kind: "chat", user: "someone", text: "hi", id: null }],
  ["markup stays text", 1000, '{"user":"<b>","text":"<img src=x>"}', { kind: "chat", user: "<b>", text: "<img src=x>", id: null }],
  ["controls and overrides do not survive", 1000, '{"user":"a\\u202eb","text":"x\\n\\u0000y"}', { kind: "chat", user: "ab", text: "x y", id: null }],
  ["an empty body says so", 1000, "", { kind: "notice", user: "publisher", text: "(empty)", id: null }],
];
for (const [name, operation, body, expected] of rows) {
  test(name, () => assert.deepEqual(read(operation, body), expected));
}

test("bytes that are not UTF-8 are named, not shown", () => {
  assert.match(read(1000, new Uint8Array([0xff, 0xfe])).text, /2 bytes that are not text/);
});

test("long text is cut between characters", () => {
  const { text } = read(1000, JSON.stringify({ text: "🎉".repeat(2000) }));
  assert.equal(Array.from(text).length, 600);
  assert.ok(text.endsWith("🎉…"));
});

test("a refusal has a reason even when the server gave none", () => {
  assert.equal(readRefusal(new Uint8Array()), null);
  assert.deepEqual(readRefusal(utf8.encode('{"code":-101,"message":"no"}')), { code: -101, message: "no" });
  assert.deepEqual(readRefusal(utf8.encode('{"code":-7}')), { code: -7, message: "code -7" });
  assert.deepEqual(readRefusal(utf8.encode("go away")), { code: null, message: "go away" });
  assert.deepEqual(readRefusal(utf8.encode("[]")), { code: null, message: "[]" });
  assert.equal(readRefusal(new Uint8Array([0xff])).code, null);
});
