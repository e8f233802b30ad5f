import assert from "node:assert/strict";
import { test } from "node:test";

import { curlLine, readRoom } from "./publish.js";

test("the line is the one the documentation shows", () => {
  assert.equal(
    curlLine("127.0.0.1", 1000, "live://1000"),
    "curl -d 'hello' 'http://127.0.0.1:3111/goim/push/room?operation=1000&type=live&room=1000'",
  );
});

test("a room's name cannot leave the shell's quotes or the query", () => {
  const line = curlLine("127.0.0.1", 1000, "live://a'&b=$(id)");
  assert.equal(line.split("'").length - 1, 4);
  assert.ok(line.endsWith("&room=a%27%26b%3D%24(id)'"));
});

const rows = [
  ["1000", "live://1000"],
  [" live://7 ", "live://7"],
  ["video://a-b", "video://a-b"],
  ["", null],
  ["live://", null],
  ["://7", null],
  ["live://a b", null],
  [`live://${"x".repeat(97)}`, null],
];
for (const [typed, room] of rows) {
  test(`typed ${JSON.stringify(typed.slice(0, 20))} means ${room}`, () => assert.equal(readRoom(typed), room));
}
