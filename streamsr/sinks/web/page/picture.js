// Pictures: reads the header, decodes JPEG or H.264, and gives them out in rising order.

const HEADER_BYTES = 40;
const SLATE = 1, ALARM = 2, KEY = 4, H264 = 8;

function readHeader(buffer) {
  const view = new DataView(buffer);
  if (view.getUint8(0) !== 1) throw new Error("a picture of another version: reload the page");
  const flags = view.getUint8(1);
  const ms = (at) => Number(view.getBigInt64(at, true)) / 1e6;
  const numPicture = view.getUint32(32, true), numOriginal = view.getUint32(36, true);
  return {
    isSlate: Boolean(flags & SLATE), isAlarm: Boolean(flags & ALARM), isKey: Boolean(flags & KEY),
    isH264: Boolean(flags & H264),
    rung: view.getUint8(2), number: view.getUint32(4, true),
    arrivedMs: ms(8), presentedMs: ms(16),
    width: view.getUint16(24, true), height: view.getUint16(26, true),
    originalWidth: view.getUint16(28, true), originalHeight: view.getUint16(30, true),
    picture: new Uint8Array(buffer, HEADER_BYTES, numPicture),
    original: numOriginal ? new Uint8Array(buffer, HEADER_BYTES + numPicture, numOriginal) : null,
  };
}

function decodeJpeg(bytes) {
  return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
}

// One H.264 track. Each picture in gives one out, in order, since none is ever reordered.
class Track {
  constructor() {
    this.waiting = [];
    this.codec = "";
    this.decoder = null;
  }

  async decode(bytes, isKey) {
    if (isKey) this.configure(bytes);
    if (this.decoder?.state !== "configured") throw new Error("no key picture yet");
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.decoder.decode(new EncodedVideoChunk({ type: isKey ? "key" : "delta", timestamp: 0, data: bytes }));
    });
  }

  configure(bytes) {
    const codec = codecOf(bytes);
    if (!codec || (codec === this.codec && this.decoder?.state === "configured")) return;
    this.close();
    this.codec = codec;
    this.decoder = new VideoDecoder({
      output: (frame) => { const first = this.waiting.shift(); first ? first.resolve(frame) : frame.close(); },
      error: (cause) => this.waiting.splice(0).forEach(({ reject }) => reject(cause)),
    });
    this.decoder.configure({ codec, optimizeForLatency: true });
  }

  close() {
    if (this.decoder && this.decoder.state !== "closed") this.decoder.close();
    this.waiting.splice(0).forEach(({ reject }) => reject(new Error("begun anew")));
    this.decoder = null;
    this.codec = "";
  }
}

// The codec string of RFC 6381, from the first three bytes of the sequence parameter set (NAL unit type 7).
function codecOf(bytes) {
  for (let at = 0; at + 6 < bytes.length; at++) {
    if (bytes[at] === 0 && bytes[at + 1] === 0 && bytes[at + 2] === 1 && (bytes[at + 3] & 31) === 7) {
      return "avc1." + [...bytes.subarray(at + 4, at + 7)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
  }
  return "";
}

export function canDecodeH264() {
  return typeof VideoDecoder === "function";
}

export class Decoder {
  // show: takes a decoded picture, which it owns; skip: takes the number of one that came to nothing, to be acknowledged
  // all the same; fault: called when not even a key picture can be decoded
  constructor({ show, skip, fault }) {
    this.show = show;
    this.skip = skip;
    this.fault = fault;
    this.tracks = [new Track(), new Track()];
    this.reset();
  }

  reset() {
    this.epoch = (this.epoch ?? 0) + 1;
    this.newest = -1;
    this.tracks.forEach((track) => track.close());
  }

  async take(buffer) {
    const epoch = this.epoch;
    const header = readHeader(buffer);
    const decode = header.isH264
      ? (bytes, track) => this.tracks[track].decode(bytes, header.isKey)
      : (bytes) => decodeJpeg(bytes);
    const both = await Promise.allSettled([decode(header.picture, 0), header.original ? decode(header.original, 1) : null]);
    const [picture, original] = both.map((one) => one.value ?? null);
    if (epoch !== this.epoch || !picture || header.number <= this.newest) {
      picture?.close();
      original?.close();
      if (epoch === this.epoch) this.skip(header.number);
      if (epoch === this.epoch && !picture && header.isH264 && header.isKey) this.fault();
      return;
    }
    this.newest = header.number;
    this.show({ ...header, picture, original });
  }
}
