import assert from "node:assert/strict";
import { test } from "node:test";

import { MAX_BODY_BYTES, Operation, decode, encode } from "./packet.js";
import { Room, backoffMs } from "./room.js";

const text = new TextDecoder();

/** A clock that the test moves, sockets that the test answers for, and a record of what was reported. */
function stage() {
  let now = 0;
  let timers = [];
  const sockets = [];
  const seen = { states: [], online: [], pushes: [], answers: [], moved: [], moveFailed: [], malformed: [], lost: 0 };
  const env = {
    now: () => now,
    random: () => 0.5,
    address: () => "ws://test/sub",
    after(ms, run) {
      const timer = { at: now + ms, run };
      timers.push(timer);
      return () => (timers = timers.filter((other) => other !== timer));
    },
    open() {
      const socket = { sent: [], closed: false, bufferedAmount: 0 };
      socket.send = (bytes) => socket.sent.push(...decode(bytes).packets);
      socket.close = () => (socket.closed = true);
      sockets.push(socket);
      return socket;
    },
  };
  const on = {
    state: (state) => seen.states.push(state),
    online: (count) => seen.online.push(count),
    push: (operation, body) => seen.pushes.push([operation, text.decode(body)]),
    answered: (sequence, refusal) => seen.answers.push([sequence, refusal]),
    moved: (room) => seen.moved.push(room),
    moveFailed: (reason) => seen.moveFailed.push(reason),
    lost: () => (seen.lost += 1),
    malformed: (why) => seen.malformed.push(why),
  };
  const room = new Room(env, on, 42, "live://1000");
  const socket = () => sockets.at(-1);
  return {
    room,
    seen,
    sockets,
    socket,
    state: () => seen.states.at(-1),
    advance(ms) {
      const end = now + ms;
      for (;;) {
        const due = timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
        if (due === undefined) break;
        timers = timers.filter((timer) => timer !== due);
        now = due.at;
        due.run();
      }
      now = end;
    },
    receive: (...bytes) => bytes.forEach((data) => socket().onmessage({ data })),
    reply: (operation, body, sequence = socket().sent.at(-1).sequence) =>
      socket().onmessage({ data: encode(operation, sequence, body) }),
    join() {
      room.enter();
      socket().onopen({});
      socket().onmessage({ data: encode(Operation.AUTH_REPLY, socket().sent.at(-1).sequence) });
    },
  };
}

test("joining authenticates, then sends a heartbeat and reports who is there", () => {
  const s = stage();
  s.join();
  const [auth, heartbeat] = s.socket().sent;
  assert.equal(auth.operation, Operation.AUTH);
  assert.deepEqual(JSON.parse(text.decode(auth.body)), {
    mid: 42,
    room_id: "live://1000",
    platform: "web",
    accepts: [1000, 1001, 1002],
  });
  assert.equal(heartbeat.operation, Operation.HEARTBEAT);
  s.reply(Operation.HEARTBEAT_REPLY, new Uint8Array([0, 1, 0, 2]));
  assert.deepEqual(s.seen.online, [65538]);
  assert.equal(s.state().phase, "joined");
});

test("a heartbeat repeats once we are counted, then every 30 s; an unanswered one ends the connection", () => {
  const s = stage();
  const heartbeats = () => s.socket().sent.filter((packet) => packet.operation === Operation.HEARTBEAT).length;
  s.join();
  for (const [pauseMs, soFar] of [[3_000, 2], [30_000, 3]]) {
    s.reply(Operation.HEARTBEAT_REPLY, new Uint8Array(4));
    s.advance(pauseMs - 1);
    assert.equal(heartbeats(), soFar - 1);
    s.advance(1);
    assert.equal(heartbeats(), soFar);
  }
  s.advance(10_000);
  assert.equal(s.state().phase, "waiting");
  assert.match(s.state().reason, /silent/);
  assert.equal(s.sockets[0].closed, true);
});

test("a refusal shows its reason and is not retried", () => {
  const s = stage();
  s.room.enter();
  s.socket().onopen({});
  s.reply(Operation.AUTH_REPLY, '{"code":-101,"message":"token expired"}');
  assert.equal(s.state().phase, "refused");
  assert.match(s.state().reason, /token expired/);
  s.advance(3_600_000);
  assert.equal(s.sockets.length, 1);
  s.room.enter();
  assert.equal(s.sockets.length, 2);
});

test("a server error at auth is retried", () => {
  const s = stage();
  s.room.enter();
  s.socket().onopen({});
  s.reply(Operation.AUTH_REPLY, '{"code":-503,"message":"no trunk line"}');
  assert.equal(s.state().phase, "waiting");
  assert.match(s.state().reason, /no trunk line/);
});

test("a goodbye shows its reason and the room is entered again", () => {
  const s = stage();
  s.join();
  s.reply(Operation.GOODBYE, '{"code":-1,"message":"draining"}');
  assert.equal(s.state().phase, "waiting");
  assert.match(s.state().reason, /draining/);
  assert.equal(s.seen.lost, 1);
  s.advance(1_000);
  assert.equal(s.sockets.length, 2);
});

test("delays grow to a limit, spread, and start again after a good stay", () => {
  assert.deepEqual([0, 1, 2].map((attempt) => backoffMs(attempt, 0.5)), [1000, 1600, 2560]);
  assert.equal(backoffMs(50, 0.5), 30_000);
  assert.ok(backoffMs(3, 0) < backoffMs(3, 0.99));

  const s = stage();
  const delay = () => s.state().retryAt;
  s.room.enter();
  s.socket().onclose({ code: 1006, reason: "" });
  assert.equal(delay(), 1000);
  s.advance(1000);
  s.socket().onclose({ code: 1006, reason: "" });
  assert.equal(delay(), 1000 + 1600);
  s.advance(1600);
  s.socket().onopen({});
  s.reply(Operation.AUTH_REPLY, "");
  s.reply(Operation.HEARTBEAT_REPLY, new Uint8Array(4));
  s.advance(10_000);
  s.socket().onclose({ code: 1006, reason: "" });
  assert.equal(delay(), 12_600 + 1000);
});

test("no connection and no auth reply are both bounded", () => {
  const s = stage();
  s.room.enter();
  s.advance(10_000);
  assert.equal(s.state().phase, "waiting");
  s.advance(1_000);
  s.socket().onopen({});
  s.advance(8_000);
  assert.equal(s.state().phase, "waiting");
  assert.match(s.state().reason, /auth/);
});

test("a send is answered by its sequence, accepted or refused", () => {
  const s = stage();
  s.join();
  const first = s.room.send("a").sequence;
  const second = s.room.send("b").sequence;
  s.reply(Operation.SEND_REPLY, '{"code":-403,"message":"too fast"}', second);
  s.reply(Operation.SEND_REPLY, "", first);
  s.reply(Operation.SEND_REPLY, "", first);
  assert.deepEqual(s.seen.answers, [[second, { code: -403, message: "too fast" }], [first, null]]);
});

test("sends without an answer are bounded", () => {
  const s = stage();
  s.join();
  const results = Array.from({ length: 70 }, () => s.room.send("x"));
  assert.equal(results.filter((result) => result.sequence !== undefined).length, 64);
  assert.match(results.at(-1).error, /behind/);
});

test("nothing is sent outside the room", () => {
  const s = stage();
  assert.match(s.room.send("x").error, /not in the room/);
});

test("a change of room counts when it is confirmed", () => {
  const s = stage();
  s.join();
  s.room.changeRoom("live://2000");
  assert.equal(text.decode(s.socket().sent.at(-1).body), "live://2000");
  assert.deepEqual([s.state().room, s.state().movingTo], ["live://1000", "live://2000"]);
  s.reply(Operation.CHANGE_ROOM_REPLY, "");
  assert.deepEqual([s.state().room, s.state().movingTo], ["live://2000", null]);
  assert.deepEqual(s.seen.moved, ["live://2000"]);
});

test("a refused or unanswered change leaves us where we are", () => {
  const s = stage();
  s.join();
  s.reply(Operation.HEARTBEAT_REPLY, new Uint8Array(4));
  s.room.changeRoom("live://2000");
  s.reply(Operation.CHANGE_ROOM_REPLY, '{"code":-400,"message":"no such room"}');
  s.room.changeRoom("live://3000");
  s.advance(5_000);
  assert.equal(s.state().room, "live://1000");
  assert.equal(s.seen.moveFailed.length, 2);
  assert.equal(s.state().phase, "joined");
});

test("pushes arrive alone, in a row and in raw batches", () => {
  const s = stage();
  s.join();
  const two = new Uint8Array([...new Uint8Array(encode(1001, 0, "b")), ...new Uint8Array(encode(1002, 0, "c"))]);
  s.receive(encode(1000, 0, "a"), encode(Operation.RAW, 0, two), two.buffer);
  assert.deepEqual(s.seen.pushes.map((push) => push[1]), ["a", "b", "c", "b", "c"]);
});

test("bad data is counted and disturbs nothing", () => {
  const s = stage();
  s.join();
  s.receive("text", new ArrayBuffer(3), encode(77, 0), encode(Operation.HEARTBEAT_REPLY, 0, "x"));
  assert.equal(s.seen.malformed.length, 4);
  s.receive(encode(1000, 0, "still here"));
  assert.deepEqual(s.seen.pushes, [[1000, "still here"]]);
});

test("leaving is final, and a dead socket's events are nobody's", () => {
  const s = stage();
  s.join();
  const old = s.socket();
  s.room.leave();
  old.onmessage({ data: encode(1000, 0, "late") });
  old.onclose({ code: 1000, reason: "" });
  s.advance(3_600_000);
  assert.equal(s.state().phase, "closed");
  assert.equal(s.sockets.length, 1);
  assert.deepEqual(s.seen.pushes, []);
});

test("the longest message that fits is sent whole", () => {
  const s = stage();
  s.join();
  s.room.send("x".repeat(MAX_BODY_BYTES));
  assert.equal(s.socket().sent.at(-1).body.byteLength, MAX_BODY_BYTES);
});
