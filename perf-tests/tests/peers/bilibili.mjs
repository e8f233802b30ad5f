// npm's tiny-bilibili-ws as a viewer of one room, for the end-to-end tests.
//
// Argument: one JSON object with transport ("ws" or "tcp"), host, port, path, room, protover. Each thing that the library
// reports goes to standard output as one JSON line. Each line of standard input is sent to the room as a client's
// message. The end of standard input ends the viewer.
//
// It does not: decode anything itself. What it prints is what an application of the library sees.

import https from "node:https";
import { createInterface } from "node:readline";
import { KeepLiveTCP, KeepLiveWS } from "tiny-bilibili-ws";

const SEND_MESSAGE = 4;

const { transport, host, port, path, room, protover } = JSON.parse(process.argv[2]);

function say(event, data) {
  process.stdout.write(`${JSON.stringify({ event, data })}\n`);
}

// Before it dials the library asks the public service for a token and a list of hosts, and goes on with the host and port
// that it was given when it gets no answer. A test speaks with nobody but the edge, so it gets none. The library logs
// that; a failure of ours would be a line on standard output, or the exit code.
https.get = https.request = () => {
  throw new Error("this viewer speaks to its edge only");
};
console.error = () => {};

// The library's handlers are async, so what goes wrong in one ends up here and nowhere else.
process.on("unhandledRejection", (reason) => {
  say("broken", String(reason?.stack ?? reason));
  process.exitCode = 1;
});

const options = { uid: 0, protover, key: "", keepalive: false, platform: "web" };
const live =
  transport === "tcp"
    ? new KeepLiveTCP(room, { ...options, url: { host, port } })
    : new KeepLiveWS(room, { ...options, ssl: false, host, port, path });

live.on("open", () => say("open"));
live.on("live", () => say("live"));
live.on("heartbeat", (online) => say("heartbeat", online));
live.on("msg", ({ meta, data }) => say("msg", { version: meta.ver, body: data }));
// The event that applications subscribe to by the message's own name.
live.on("DANMU_MSG", ({ data }) => say("DANMU_MSG", data));
live.on("deserialize:error", (error) => say("broken", String(error)));
live.on("error", (error) => say("error", String(error?.message ?? error)));
live.on("close", (event) => say("close", typeof event === "object" ? event.code : event));

const input = createInterface({ input: process.stdin });
input.on("line", (line) => live.send(SEND_MESSAGE, line));
input.on("close", () => {
  live.close();
  process.exit();
});
