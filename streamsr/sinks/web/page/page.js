// The page: joins the link, the decoder, the stage and the panel, and heeds the hand.

import { Graph } from "./graph.js";
import { Link } from "./link.js";
import { seconds, tell } from "./panel.js";
import { Decoder, canDecodeH264 } from "./picture.js";
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const SESSION = new Set(["bypass", "record", "snapshot", "badge"]);
const KEYS = {
  b: "bypass", s: "side-by-side", v: "split", "[": "split-left", "]": "split-right", "+": "zoom-in", "=": "zoom-in",
  "-": "zoom-out", " ": "freeze", p: "snapshot", r: "record", g: "badge", i: "overlay", f: "full-screen", "?": "help",
  0: "whole", ArrowLeft: "pan-left", ArrowRight: "pan-right", ArrowUp: "pan-up", ArrowDown: "pan-down",
};
const DELAYED_MS = 500;

const stage = new Stage($("canvas"), {
  split: $("split"), labelOriginal: $("label-original"), labelPicture: $("label-picture"), zoom: $("zoom"),
});
const latencyGraph = new Graph($("graph-latency"), { most: 300, floor: 10 });
const rateGraph = new Graph($("graph-rate"), { most: 240, floor: 10, colour: "#8fb4d8" });

let codec = new URLSearchParams(location.search).get("codec") === "h264" ? "h264" : "jpeg";
let isFrozen = false, frozenAt = 0, overlayOn = false;
let newest = null; // the newest picture's times, even while the page is frozen
let offset = null; // what performance.now() is ahead of the server's clock, by the fastest message so far
let session = null, lastStatus = null;
let drawn = []; // when pictures were drawn, over the last two seconds

// The token has done its work: it leaves the address bar and the history.
history.replaceState(null, "", location.pathname + (codec === "h264" ? "?codec=h264" : ""));

const decoder = new Decoder({ show, skip: (number) => link.say({ ack: number }), fault: giveUpThin });
const link = new Link({ message: hear, picture: (buffer) => decoder.take(buffer), open: opened, lost });

function show(picture) {
  const now = performance.now();
  const sample = now - picture.presentedMs;
  // The clocks may drift, by far less than this a picture.
  offset = offset === null ? sample : Math.min(offset + 0.01, sample);
  newest = { arrivedMs: picture.arrivedMs, isSlate: picture.isSlate };
  latencyGraph.add(picture.presentedMs - picture.arrivedMs);
  drawn.push(now);
  while (drawn[0] < now - 2000) drawn.shift();
  if (isFrozen) {
    picture.picture.close();
    picture.original?.close();
  } else {
    stage.show(picture);
    uncover();
  }
  link.say({ ack: picture.number });
}

function hear(message) {
  if (message.kind === "answer") toast(message.text);
  if (message.kind !== "status") return;
  lastStatus = message;
  session = message.all.session;
  stage.rungs = session.rungs;
  stage.badge = session.badge;
  document.title = session.state === "live" ? "streamsr live" : `${session.state.toUpperCase()} · streamsr`;
  while (drawn[0] < performance.now() - 2000) drawn.shift();
  tell(message, drawn.length / 2);
  if (!$("veil").hidden) waits(); // no figure is of a picture that is seen here
  rateGraph.add(session.rate_shown);
  latencyGraph.draw({ limit: session.max_latency_ms, unit: "ms deadline" });
  rateGraph.draw();
  press("bypass", session.bypassed);
  press("record", session.recording.active);
  press("badge", session.badge);
  drawOverlay();
}

function opened() {
  decoder.reset();
  offset = null;
  newest = null;
  lastStatus = null;
  wish();
  $("veil-title").textContent = "WAITING FOR A PICTURE";
  waits();
  $("veil").classList.remove("lost");
  document.body.classList.remove("lost");
}

function waits() {
  $("state").textContent = "WAITING";
  $("state").dataset.kind = "wait";
  document.title = "waiting · streamsr";
}

function lost(isOver) {
  if (isOver || !$("veil").classList.contains("lost")) {
    $("veil-title").textContent = "NO CONNECTION";
    const ended = isOver ? "The session has ended. " : "";
    $("veil-help").textContent = `${ended}Trying again. If it was begun anew, open the address that streamsr printed.`;
  }
  $("veil").classList.add("lost");
  $("veil").hidden = false;
  document.body.classList.add("lost");
  $("alarm").textContent = "";
  $("state").textContent = "NO CONNECTION"; // what stood there, and all other figures, are of another time
  $("state").dataset.kind = "bad";
  document.title = "NO CONNECTION · streamsr";
  unfreeze();
}

function uncover() {
  // What still comes while the page is out of sight is old when it is back.
  if (!link.isLive || document.hidden || $("veil").hidden) return;
  $("veil").hidden = true;
  if (lastStatus) hear(lastStatus); // what it says of the source holds again
}

function wish() {
  link.say({ wish: { compare: stage.compares, codec, paused: document.hidden } });
}

function ageMs() {
  return newest && offset !== null ? performance.now() - newest.arrivedMs - offset : 0;
}

// Ages count up by themselves, whether or not anything comes.
setInterval(() => {
  $("veil-age").textContent = newest && !link.isLive ? `last picture ${seconds(ageMs() / 1000)} ago` : "";
  if (isFrozen) $("frozen-age").textContent = seconds((performance.now() - frozenAt) / 1000);
  const limit = Math.max(DELAYED_MS, 3 * (session?.period_ms ?? 0));
  const isLate = link.isLive && newest && !newest.isSlate && !isFrozen && ageMs() > limit;
  $("delayed").hidden = !isLate;
  if (isLate) $("delayed-age").textContent = seconds(ageMs() / 1000);
}, 100);

function press(command, isOn) {
  document.querySelector(`button[data-command="${command}"]`)?.setAttribute("aria-pressed", String(isOn));
}

let toastTimer = 0;
function toast(text) {
  $("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").textContent = ""; }, 5000);
}

function unfreeze() {
  isFrozen = false;
  $("frozen").hidden = true;
  $("view").classList.remove("is-frozen");
  press("freeze", false);
}

function freeze() {
  if (isFrozen) return unfreeze();
  if (!stage.shown || stage.shown.isSlate || !link.isLive) return toast("no picture to freeze");
  isFrozen = true;
  frozenAt = performance.now() - ageMs();
  $("frozen").hidden = false;
  $("view").classList.add("is-frozen");
  press("freeze", true);
}

function compare(mode) {
  if (isFrozen && !stage.shown?.original) return toast("frozen without the camera’s picture: unfreeze first");
  stage.setMode(mode);
  press("split", stage.mode === "split");
  press("side-by-side", stage.mode === "side-by-side");
  wish();
}

function thin() {
  if (codec === "jpeg" && !canDecodeH264()) {
    return toast("this browser decodes no H.264 here: it takes HTTPS or localhost, and a browser with WebCodecs");
  }
  codec = codec === "jpeg" ? "h264" : "jpeg";
  press("thin", codec === "h264");
  decoder.reset();
  wish();
}

function giveUpThin() {
  if (codec === "h264") thin();
  toast("this browser could not decode the H.264 pictures: back to JPEG");
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (!$("stage").requestFullscreen) toast("this browser shows no page in full screen");
  else $("stage").requestFullscreen().catch(() => toast("this browser refuses full screen"));
}

function drawOverlay() {
  $("overlay").hidden = !overlayOn || !lastStatus;
  if ($("overlay").hidden) return;
  const { added_latency: p, rung, rate_shown: rate, dropped, skipped } = session;
  const lostFrames = Object.values(dropped).reduce((sum, number) => sum + number, 0);
  $("overlay").textContent = [
    `${rung}  ${rate.toFixed(1)} fps`,
    `added p50 ${p.p50_ms.toFixed(1)}  p95 ${p.p95_ms.toFixed(1)}  p99 ${p.p99_ms.toFixed(1)}  max ${p.max_ms.toFixed(1)} ms`,
    `dropped ${lostFrames}  patches skipped ${(skipped * 100).toFixed(0)} %`,
  ].join("\n");
}

const STEP_PX = 60;
const ACTIONS = {
  "side-by-side": () => compare("side-by-side"),
  split: () => compare("split"),
  "split-left": () => stage.moveLine(stage.line - 0.05),
  "split-right": () => stage.moveLine(stage.line + 0.05),
  "zoom-in": () => stage.zoomBy(1.25),
  "zoom-out": () => stage.zoomBy(0.8),
  whole: () => stage.reset(),
  "pan-left": () => stage.panBy(STEP_PX, 0),
  "pan-right": () => stage.panBy(-STEP_PX, 0),
  "pan-up": () => stage.panBy(0, STEP_PX),
  "pan-down": () => stage.panBy(0, -STEP_PX),
  freeze,
  overlay: () => { overlayOn = !overlayOn; press("overlay", overlayOn); drawOverlay(); },
  "full-screen": fullScreen,
  thin,
  help: () => $("help").showModal(),
};

function act(command) {
  if (!SESSION.has(command)) return ACTIONS[command]();
  if (!link.say({ ask: command })) toast("no connection: nothing was asked");
}

for (const button of document.querySelectorAll("button[data-command]")) {
  const key = button.dataset.key;
  if (key) button.setAttribute("aria-keyshortcuts", { space: "Space", "+": "Plus" }[key] ?? key);
  button.addEventListener("click", () => act(button.dataset.command));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const onControl = event.target.closest?.("button, a, .scroll");
  // A focused control keeps the keys that work it.
  if (onControl && (event.key === " " || event.key.startsWith("Arrow"))) return;
  const command = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!command) return;
  const pans = command.startsWith("pan-");
  if (pans && stage.zoom === 1) return; // the arrows scroll the page
  event.preventDefault();
  if (!event.repeat || pans || command.startsWith("split-") || command.startsWith("zoom-")) act(command);
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) cover();
  wish();
});

// A page that comes back into sight begins with a new picture, never with the one it was left with.
function cover() {
  if (isFrozen || !link.isLive) return;
  $("veil-title").textContent = "WAITING FOR A PICTURE";
  $("veil-help").textContent = "";
  $("veil").hidden = false;
}

document.addEventListener("fullscreenchange", () => press("full-screen", Boolean(document.fullscreenElement)));
if (codec === "h264") {
  codec = "jpeg";
  thin();
}
