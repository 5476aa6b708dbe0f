// The measurements: what the session says of itself, in words and figures.

const $ = (id) => document.getElementById(id);
const KINDS = { live: "good", opening: "wait", "no signal": "bad", reconnecting: "bad", ended: "wait" };

const whole = (number) => Math.round(number).toLocaleString("en");
const tenth = (number) => number.toFixed(1);
const percent = (part) => `${(part * 100).toFixed(1)} %`;

export function seconds(number) {
  if (number < 60) return `${number.toFixed(1)} s`;
  const minutes = Math.floor(number / 60);
  return `${minutes} min ${Math.floor(number % 60)} s`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function pill(id, text, kind) {
  const element = $(id);
  element.hidden = !text;
  setText(element, text);
  element.dataset.kind = kind;
}

// rows: [name, value, whether it is wrong]; elements are kept where their names are, so that nothing flickers.
function facts(id, rows) {
  const list = $(id);
  const names = rows.map(([name]) => name).join("\n");
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    list.replaceChildren(...rows.map(([name]) => {
      const row = document.createElement("div"), term = document.createElement("dt");
      term.textContent = name;
      row.append(term, document.createElement("dd"));
      return row;
    }));
  }
  rows.forEach(([, value, isWrong], place) => {
    const row = list.children[place];
    setText(row.lastChild, value);
    row.classList.toggle("wrong", Boolean(isWrong));
  });
}

function latencyRow(name, figures) {
  const row = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  row.append(head, ...figures.map((figure) => {
    const cell = document.createElement("td");
    cell.textContent = figure;
    return cell;
  }));
  return row;
}

function latencies(session, you) {
  const measured = [["added", session.added_latency], ...Object.entries(session.stages)];
  const rows = measured.map(([name, p]) => latencyRow(name, [p.p50_ms, p.p95_ms, p.p99_ms, p.max_ms].map(tenth)));
  const way = you.screen_ms;
  if (way.p50 !== undefined) rows.push(latencyRow("to this screen", [tenth(way.p50), "", tenth(way.p99), ""]));
  $("latency").replaceChildren(...rows);
}

function states(session, shown) {
  setText($("source"), session.source);
  const lost = session.state === "no signal" || session.state === "reconnecting";
  const age = lost ? ` ${seconds(session.signal_age_s)}` : "";
  pill("state", session.state.toUpperCase() + age, KINDS[session.state] ?? "wait");
  const rung = shown.rung ?? session.rung;
  const reason = shown.reason ?? session.reason;
  const isBest = rung === session.rungs[0];
  if (session.bypassed) pill("rung", `BYPASS · ${rung}`, "warn");
  else pill("rung", rung + (reason ? ` · ${reason}` : ""), isBest ? "good" : "warn");
  const { recording } = session;
  pill("recording", recording.active ? `REC ${seconds(recording.seconds)}` : "", "record");
  setText($("alarm"), shown.alarm || session.alarm);
}

function figures(session, viewers) {
  const dropped = Object.values(session.dropped).reduce((sum, number) => sum + number, 0);
  setText($("brief-p50"), `${tenth(session.added_latency.p50_ms)} ms`);
  setText($("brief-p99"), `${tenth(session.added_latency.p99_ms)} ms`);
  setText($("brief-rate"), `${tenth(session.rate_shown)} fps`);
  setText($("brief-dropped"), whole(dropped));
  setText($("brief-viewers"), String(viewers));
  return dropped;
}

function pictures(session, you, dropped, drawnRate) {
  const causes = Object.entries(session.dropped).map(([cause, number]) => [`dropped: ${cause}`, whole(number)]);
  const rungs = Object.entries(session.by_rung).map(([rung, number]) => [`by ${rung}`, whole(number)]);
  facts("frames", [
    ["came in", whole(session.frames_in)], ["shown", whole(session.frames_shown)], ...rungs,
    ["late, shown through bicubic", whole(session.late)],
    ["dropped", whole(dropped)], ...causes,
    ["patches skipped", percent(session.skipped)],
    ["sent to this page", whole(you.sent)], ["this page was too slow for", whole(you.dropped)],
    ["drawn here", `${tenth(drawnRate)} fps`],
  ]);
}

function source(session) {
  const size = ([width, height]) => (width ? `${width} × ${height}` : "–");
  facts("facts", [
    ["picture", `${size(session.size_in)} → ${size(session.size_out)}`],
    ["best generator", session.engine || "–"], ["runs on", session.runtime || "–"],
    ["deadline", `${tenth(session.max_latency_ms)} ms`],
    ["comes at", `${tenth(session.rate_in)} fps`],
    ["last signal", `${seconds(session.signal_age_s)} ago`, session.state === "no signal"],
    ["reconnects", whole(session.reconnects)],
    ["badge", session.badge ? "on" : "off"],
    ["running for", seconds(session.uptime_s)],
  ]);
}

function recording({ active, folder, seconds: length, files, name, dropped, trouble }) {
  const rows = [["state", active ? "recording" : "off"]];
  if (folder) rows.push(["folder", folder]);
  if (name) rows.push(["file", name]);
  if (folder) rows.push(["length", seconds(length)], ["files", whole(files)], ["dropped", whole(dropped)]);
  if (trouble) rows.push(["stopped", trouble, true]);
  facts("recording-facts", rows);
}

let events = "";

function log(lines) {
  const newest = lines.slice(-12).reverse();
  if (events === newest.join("\n")) return;
  events = newest.join("\n");
  $("events").replaceChildren(...newest.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
}

export function tell({ all, you }, drawnRate) {
  const { session, shown, viewers } = all;
  states(session, shown);
  const dropped = figures(session, viewers);
  latencies(session, you);
  pictures(session, you, dropped, drawnRate);
  source(session);
  recording(session.recording);
  log(session.events);
  setText($("rate-now"), `${tenth(session.rate_in)} in, ${tenth(session.rate_shown)} shown`);
}
