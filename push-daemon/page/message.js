// What a push says: operation and body in, something to show out.
//
// Bodies come from strangers. A body is our JSON, or plain text from a publisher's curl, or
// anything else; each becomes a bounded, plain message. The page shows it with textContent only.
//
// It does not: decide where a message is shown, or trust any field to be there.

export const CHAT = 1000;
export const GIFT = 1001;
export const NOTICE = 1002;

/** The operations this page accepts, as sent in the auth body. */
export const ACCEPTS = [CHAT, GIFT, NOTICE];

const MAX_TEXT_CHARS = 600;
const MAX_USER_CHARS = 32;

const strict = new TextDecoder("utf-8", { fatal: true });

/** `{kind, user, text, id}`; kind is "chat", "gift" or "notice", id is null unless the body has one. */
export function readMessage(operation, body) {
  let raw;
  try {
    raw = strict.decode(body);
  } catch {
    return { kind: "notice", user: "publisher", text: `${body.byteLength} bytes that are not text`, id: null };
  }
  const json = parseObject(raw);
  if (json === null || typeof json.text !== "string") {
    const kind = operation === GIFT ? "gift" : "notice";
    return { kind, user: "publisher", text: clip(raw, MAX_TEXT_CHARS) || "(empty)", id: null };
  }
  return {
    kind: operation === GIFT ? "gift" : operation === NOTICE ? "notice" : "chat",
    user: clip(typeof json.user === "string" ? json.user : "", MAX_USER_CHARS) || "someone",
    text: clip(json.text, MAX_TEXT_CHARS) || "(empty)",
    id: typeof json.id === "string" ? json.id : null,
  };
}

/** The reason in a refusal's body, `{"code":-101,"message":"..."}`; null when there is none. */
export function readRefusal(body) {
  if (body.byteLength === 0) {
    return null;
  }
  let raw = "";
  try {
    raw = strict.decode(body);
  } catch {
    return { code: null, message: "the server gave a reason that is not text" };
  }
  const json = parseObject(raw);
  if (json === null) {
    return { code: null, message: clip(raw, MAX_TEXT_CHARS) || "no reason given" };
  }
  const code = Number.isInteger(json.code) ? json.code : null;
  const message = clip(typeof json.message === "string" ? json.message : "", MAX_TEXT_CHARS);
  return { code, message: message || (code === null ? "no reason given" : `code ${code}`) };
}

function parseObject(raw) {
  try {
    const value = JSON.parse(raw);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** One line of at most `limit` characters, without the controls that could reorder the text around it. */
function clip(text, limit) {
  const line = text
    .slice(0, limit * 2 + 2)
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ")
    .replace(/[\u202a-\u202e\u2066-\u2069]/g, "")
    .trim();
  const chars = Array.from(line);
  return chars.length > limit ? `${chars.slice(0, limit - 1).join("")}…` : line;
}
