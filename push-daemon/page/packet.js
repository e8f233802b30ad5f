// The goim packet, as bytes: encode one, decode a whole WebSocket message.
//
// Big-endian, 16-byte header: packet length i32 (header included), header length i16, version i16,
// operation i32, sequence i32; then the body. Several packets may stand one after another, and a
// raw packet (operation 9) is an outer header around such a run.
//
// It does not: open a socket, read a body, or throw on what a peer sent.

export const HEADER_BYTES = 16;

/** goim refuses a client packet whose body is longer. */
export const MAX_BODY_BYTES = 4096;

const VERSION = 1;

export const Operation = Object.freeze({
  HEARTBEAT: 2,
  HEARTBEAT_REPLY: 3,
  SEND: 4,
  SEND_REPLY: 5,
  GOODBYE: 6,
  AUTH: 7,
  AUTH_REPLY: 8,
  RAW: 9,
  CHANGE_ROOM: 12,
  CHANGE_ROOM_REPLY: 13,
  /** From here on operations belong to the application. */
  FIRST_PUSH: 1000,
});

const utf8 = new TextEncoder();

/** One packet as an ArrayBuffer. `body` is a string or a Uint8Array; a long one is the caller's bug. */
export function encode(operation, sequence, body = "") {
  const bytes = typeof body === "string" ? utf8.encode(body) : body;
  if (bytes.byteLength > MAX_BODY_BYTES) {
    throw new RangeError(`a packet body holds at most ${MAX_BODY_BYTES} bytes, got ${bytes.byteLength}`);
  }
  const packet = new Uint8Array(HEADER_BYTES + bytes.byteLength);
  const view = new DataView(packet.buffer);
  view.setInt32(0, packet.byteLength);
  view.setInt16(4, HEADER_BYTES);
  view.setInt16(6, VERSION);
  view.setInt32(8, operation);
  view.setInt32(12, sequence);
  packet.set(bytes, HEADER_BYTES);
  return packet.buffer;
}

/**
 * Every packet of one WebSocket message, raw batches opened.
 *
 * A malformed packet ends the walk, because its length cannot be trusted to find the next one;
 * the packets before it are still good. `malformed` then says what was wrong, otherwise it is null.
 */
export function decode(message) {
  const packets = [];
  const malformed = walk(new Uint8Array(message), packets, true);
  return { packets, malformed };
}

function walk(bytes, packets, rawAllowed) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  while (offset < bytes.byteLength) {
    const rest = bytes.byteLength - offset;
    if (rest < HEADER_BYTES) {
      return `${rest} bytes where a ${HEADER_BYTES}-byte header should be`;
    }
    const length = view.getInt32(offset);
    const headerLength = view.getInt16(offset + 4);
    if (headerLength !== HEADER_BYTES) {
      return `header length ${headerLength}, not ${HEADER_BYTES}`;
    }
    if (length < HEADER_BYTES || length > rest) {
      return `packet length ${length} with ${rest} bytes left`;
    }
    const operation = view.getInt32(offset + 8);
    const body = bytes.subarray(offset + HEADER_BYTES, offset + length);
    if (operation === Operation.RAW) {
      // One level only: nobody sends a batch of batches, and recursion by a peer's choice has no bound.
      if (!rawAllowed) {
        return "a raw batch inside a raw batch";
      }
      const malformed = walk(body, packets, false);
      if (malformed !== null) {
        return `in a raw batch: ${malformed}`;
      }
    } else {
      packets.push({
        version: view.getInt16(offset + 6),
        operation,
        sequence: view.getInt32(offset + 12),
        body,
      });
    }
    offset += length;
  }
  return null;
}
