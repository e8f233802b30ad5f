// What the browser remembers for the viewer: name, user id, rooms visited.
//
// Storage may be full, forbidden or edited by hand; then the page forgets, and works.

import { readRoom } from "./publish.js";

const PREFIX = "push-daemon.";
const MAX_ROOMS = 5;

export function recall(key) {
  try {
    return localStorage.getItem(PREFIX + key) || null;
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(PREFIX + key, value);
  } catch {
    // Nothing to do: the value holds for this visit.
  }
}

/** This browser's user id, made on the first visit. */
export function recallMid() {
  const known = Number(recall("mid"));
  if (Number.isInteger(known) && known > 0 && known < 2 ** 31) {
    return known;
  }
  const mid = (crypto.getRandomValues(new Uint32Array(1))[0] >>> 1) || 1;
  remember("mid", String(mid));
  return mid;
}

/** Rooms to offer, in an order that does not change under the user's finger: `defaults`, then those visited. */
export function recallRooms(defaults) {
  const known = (recall("rooms") ?? "").split(" ").filter((room) => room !== "" && readRoom(room) === room);
  return [...new Set([...defaults, ...known])];
}

/** Keeps `room` as the last one, and among the few visited ones, the oldest of which it may push out. */
export function rememberRoom(room) {
  remember("room", room);
  const visited = recallRooms([]);
  if (!visited.includes(room)) {
    remember("rooms", [...visited, room].slice(-MAX_ROOMS).join(" "));
  }
}
