// The link to the server: reconnects by itself, and knows within a second that it is lost.

const SILENCE_MS = 1000; // the server says something four times a second
const SESSION_OVER = 1001; // a closing code
const RETRY_MS = [200, 400, 800, 1500];

export class Link {
  // on: {message(text object), picture(ArrayBuffer), open(), lost(whether the session is over)}
  constructor(on) {
    this.on = on;
    this.socket = null;
    this.tries = 0;
    this.heardAt = performance.now();
    this.isLive = false;
    this.connect();
    setInterval(() => this.watch(), 100);
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/watch`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.heardAt = performance.now(); };
    socket.onmessage = (event) => { if (socket === this.socket) this.hear(event.data); };
    socket.onclose = ({ code }) => { if (socket === this.socket) this.lose(code === SESSION_OVER); };
    this.socket = socket;
  }

  hear(data) {
    this.heardAt = performance.now();
    if (!this.isLive) {
      this.isLive = true;
      this.tries = 0;
      this.on.open();
    }
    if (typeof data === "string") this.on.message(JSON.parse(data));
    else this.on.picture(data);
  }

  watch() {
    const silent = performance.now() - this.heardAt > SILENCE_MS;
    if (this.isLive && silent) {
      this.isLive = false; // covered now; the socket may still wake up
      this.on.lost();
    }
    // A socket that stays silent is given up: what it might still bring is old.
    if (silent && this.socket && performance.now() - this.heardAt > 4 * SILENCE_MS) {
      const stale = this.socket;
      this.lose();
      stale.close();
    }
  }

  lose(isOver = false) {
    this.socket = null;
    this.isLive = false;
    this.on.lost(isOver);
    const wait = RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)];
    setTimeout(() => { this.heardAt = performance.now(); this.connect(); }, wait);
  }

  say(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }
}
