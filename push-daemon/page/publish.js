// The "publish from a shell" box: the exact curl line for the current room, and a copy button.
//
// It does not: publish. A browser page has no business with the publisher's API.

const PUBLISH_PORT = 3111;
const SAMPLE = { 1000: "hello", 1001: "a rocket", 1002: "back in five minutes" };

/** `room` is `type://id`; the line survives a shell whatever the room is called. */
export function curlLine(host, operation, room) {
  const [type, id] = splitRoom(room);
  const query = `operation=${operation}&type=${quoteUrl(type)}&room=${quoteUrl(id)}`;
  return `curl -d '${SAMPLE[operation]}' 'http://${host}:${PUBLISH_PORT}/goim/push/room?${query}'`;
}

/** "live://1000" → ["live", "1000"]. */
export function splitRoom(room) {
  const at = room.indexOf("://");
  return at === -1 ? ["live", room] : [room.slice(0, at), room.slice(at + 3)];
}

/** What a user typed as a room id, or null: "1000" means "live://1000". */
export function readRoom(typed) {
  const text = typed.trim();
  const room = text.includes("://") ? text : `live://${text}`;
  const [type, id] = splitRoom(room);
  return /^[\w.-]{1,32}$/.test(type) && /^\S{1,96}$/.test(id) ? room : null;
}

// encodeURIComponent leaves the single quote, which would end the shell's word.
const quoteUrl = (text) => encodeURIComponent(text).replace(/'/g, "%27");

export class PublishBox {
  #code;
  #copy;
  #radios;
  #host;
  #room = "";
  #timer = null;

  constructor({ code, copy, radios, host }) {
    this.#code = code;
    this.#copy = copy;
    this.#radios = radios;
    // "localhost" may mean ::1 first, where the tier does not listen.
    this.#host = host === "localhost" || host === "" ? "127.0.0.1" : host;
    copy.addEventListener("click", () => this.#copyLine());
    radios.forEach((radio) => radio.addEventListener("change", () => this.#draw()));
  }

  setRoom(room) {
    this.#room = room;
    this.#draw();
  }

  #draw() {
    const operation = this.#radios.find((radio) => radio.checked)?.value ?? "1000";
    const line = curlLine(this.#host, operation, this.#room);
    if (this.#code.textContent !== line) {
      this.#code.textContent = line;
    }
  }

  async #copyLine() {
    let copied = false;
    try {
      await navigator.clipboard.writeText(this.#code.textContent);
      copied = true;
    } catch {
      // No clipboard without permission or outside a secure context: select it, so Ctrl-C works.
      getSelection().selectAllChildren(this.#code);
    }
    this.#copy.textContent = copied ? "Copied" : "Selected";
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#copy.textContent = "Copy"), 2000);
  }
}
