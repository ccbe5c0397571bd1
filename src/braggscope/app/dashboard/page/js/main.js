// The page: chooses what is shown, keeps it up to date, and ties maps, point, region and profiles together.

import * as api from "./api.js";
import { MapState } from "./state.js";
import { ImagePlot, places } from "./image.js";
import { LinePlot } from "./lines.js";
import { flags, isLabel, labels, ranged, sample } from "./scales.js";
import { labelled, plain, unit, withError } from "./format.js";
import { row, say, showPoint } from "./point.js";
import { showBeyond, showNews, showStatus, showTraining, wireControl } from "./live.js";
import { renewPictures, showTable, wirePictures } from "./tables.js";
import { savePicture, saveTable } from "./saving.js";

const $ = (id) => document.getElementById(id);
const state = new MapState();
const maps = { a: null, b: null };
let region = null; // {rows: [a, b], columns: [a, b]}
let past = null; // number of results that the history slider shows, null: all
let profile = null, histogram = null;
let busy = false, again = false;
let lastNews = null;
window.braggscope = { state, maps, frame: null, curve: null, draws: 0 };

const chosen = () => $("variable").value;
const beside = () => $("beside").value;
const stdOf = (name) => (state.variable(`${name}_std`) ? `${name}_std` : null);
const wanted = () => [...new Set([chosen(), beside(), stdOf(chosen()), "flag"])].filter((name) => name && state.variable(name));

async function begin() {
  for (;;) {
    try {
      await state.readStatus();
      break;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
  wire();
  await anew();
  api.follow(take, (is) => {
    $("connection").textContent = is ? "" : "reconnecting \u2026";
    $("connection").className = is ? "figures" : "figures away";
    if (is) refresh();
  });
}

// Everything again: another scan, or the first values of one.
async function anew() {
  const status = state.status;
  showStatus(status);
  state.values.clear();
  state.count = 0;
  if (!status.variables.length) {
    $("head-a").textContent = status.live ? "Waiting for the first frames" : "The map has no variables over its points";
    if (status.live) await warm();
    return;
  }
  choices();
  $("threshold-name").textContent = chosen();
  await Promise.all([state.read(wanted()), build(), state.readLost()]);
  await show();
  showProvenance();
  await showTable(state, pick);
  await renewPictures(state);
  if (status.live) await showTraining();
}

// An empty plot while nothing has come: what Bokeh does for its first plot takes longer than for the next.
async function warm() {
  const one = { first: 0, step: 1, count: 1 }, plot = new ImagePlot($("map-a"), { x: one, y: one });
  plot.draw(new Float32Array([NaN]), 0, 1, ["#000000", "#ffffff"]);
  await plot.show();
}

function choices() {
  const names = state.status.variables, first = names.find((v) => v.kind === "quantity") ?? names.find((v) => v.kind === "other") ?? names[0];
  const fill = (select, list, value) => {
    const before = select.value;
    select.replaceChildren(...list.map((v) => new Option(labelled(v), v.name)));
    select.value = list.some((v) => v.name === before) ? before : value;
  };
  fill($("variable"), names, first.name);
  fill($("beside"), names, defaultBeside());
  $("layer-label").hidden = state.layers < 2;
  $("layer").max = state.layers - 1;
}

function defaultBeside() {
  return stdOf(chosen()) ?? (state.variable("reduced_deviance") ? "reduced_deviance" : "flag");
}

async function build() {
  const [rows, columns] = state.shape, [ay, ax] = state.axes;
  const x = places(ax, columns), y = places(ay, rows);
  const name = (axis, even) => (axis.unit && !even.counted ? `${axis.name} (${unit(axis.unit)})` : axis.name);
  for (const key of ["a", "b"]) {
    maps[key] = new ImagePlot($(`map-${key}`), {
      x, y, down: state.overPixels, xlabel: name(ax, x), ylabel: name(ay, y), pick, select: selected,
    });
    maps[key].empty();
    await maps[key].show();
  }
}

// Draw both maps with what belongs to them; reads what is missing.
async function show(read = false) {
  if (read) await state.read(wanted());
  paint("a", chosen());
  paint("b", beside());
  window.braggscope.draws += 1;
  paintHistory();
  await Promise.all([paintProfile(), paintHistogram()]);
  paintRegion();
}

function paint(key, name) {
  const variable = state.variable(name);
  let values = (key === "a" && past && state.drawn(past.values)) || state.layerOf(name);
  if (!variable || !values) return;
  const flag = state.layerOf("flag");
  if ($("hide").checked && flag && name !== "flag") values = values.map((v, i) => (flag[i] ? NaN : v));
  $(`head-${key}`).textContent = `${variable.long_name}${unit(variable.units) ? ` (${unit(variable.units)})` : ""}`;
  const log = $("scale").value === "log" && key === "a" && name !== "flag" && !isLabel(name);
  const look = name === "flag" ? flags(values, state.status.flag) : isLabel(name) ? labels(values) : ranged(values, () => true, choice(key, name, log));
  if (look.legend || key === "b") legend(key === "b" ? look.legend ?? [] : []);
  maps[key].bar.visible = !look.legend && !isLabel(name);
  maps[key].draw(look.shown, look.low, look.high, look.colours, log, state.drawn(state.lost));
}

function choice(key, name, log) {
  const colours = $("palette").value;
  const read = (id) => { const text = $(id).value.replace("\u2212", "-").trim(); return text === "" || key !== "a" ? NaN : Number(text); };
  return { palette: colours, log, low: read("low"), high: read("high"), signed: colours === "RdBu11" && !name.endsWith("_std") };
}

function legend(entries) {
  $("legend").replaceChildren(...entries.map((one) => {
    const item = document.createElement("span"), box = document.createElement("i");
    box.style.background = one.colour;
    item.append(box, `${one.word} ${one.count}`);
    return item;
  }));
}

function paintHistory() {
  const all = state.status.history ?? 0;
  $("history-label").hidden = !state.status.live || !all;
  $("history").max = all;
  if (past === null) $("history").value = all;
  $("history-at").textContent = past === null ? `all ${all}` : `first ${past.at} of ${all}`;
}

async function travel() {
  const at = Number($("history").value), all = Number($("history").max);
  if (at >= all) past = null;
  else {
    try {
      const found = await api.numbers(`history/${encodeURIComponent(chosen())}`, { at, ...state.query });
      past = { at, values: found.values };
    } catch (error) {
      say(error.message);
      past = null;
    }
  }
  await show();
}

async function pick(atRow, atColumn) {
  const position = state.flat(atRow, atColumn);
  state.position = position;
  state.picked = [atRow, atColumn];
  for (const map of Object.values(maps)) map.mark(atRow, atColumn);
  paintProfile();
  try {
    await showPoint(state, position, () => state.position === position);
  } catch (error) {
    $("point-note").textContent = error.message;
  }
}

function keys(event) {
  const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step && event.key !== "Enter") return;
  event.preventDefault();
  const [rows, columns] = state.shape, [r, c] = state.picked ?? [Math.floor(rows / 2), Math.floor(columns / 2)];
  const { x, y } = maps.a.options;
  const up = (state.overPixels ? -1 : 1) * Math.sign(y.step), right = Math.sign(x.step);
  const [dr, dc] = state.picked && step ? [step[0] * up, step[1] * right] : [0, 0];
  pick(Math.min(rows - 1, Math.max(0, r + dr)), Math.min(columns - 1, Math.max(0, c + dc)));
}

async function paintProfile() {
  const values = state.layerOf(chosen());
  if (!values) return;
  const [rows, columns] = state.shape, [r, c] = state.picked ?? somewhere(values, rows, columns);
  const std = stdOf(chosen()) ? state.layerOf(stdOf(chosen())) : null;
  const cut = (from, step, count) => (from ? Array.from({ length: count }, (_, i) => from[step.start + i * step.by]) : null);
  const [ay, ax] = state.axes;
  const across = { start: r * columns, by: 1 }, down = { start: c, by: columns };
  const curves = [{ x: ax.values, y: cut(values, across, columns), std: cut(std, across, columns), name: `along ${ax.name || "x"}`, points: columns < 200 }];
  if (rows > 1) curves.push({ x: ay.values, y: cut(values, down, rows), std: cut(std, down, rows), name: `along ${ay.name}`, points: rows < 200 });
  const variable = state.variable(chosen());
  if (!profile) {
    profile = new LinePlot($("profile"), {});
    profile.draw(curves);
    await profile.show();
  } else profile.draw(curves);
  profile.label([...new Set([ax, ay].filter((a) => a.name).map((a) => `${a.name}${a.unit ? ` (${unit(a.unit)})` : ""}`))].join(", "), labelled(variable));
}

// The middle of the map, or the first point that has a value while the middle has none.
function somewhere(values, rows, columns) {
  const middle = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const at = Number.isFinite(values[middle]) ? middle : Math.max(0, values.findIndex(Number.isFinite));
  return [Math.floor(at / columns), at % columns];
}

async function paintHistogram() {
  const values = state.layerOf(chosen()), flag = state.layerOf("flag");
  if (!values) return;
  const good = sample(values, (i) => !flag || flag[i] === 0 || chosen() === "flag");
  if (!good.length) return;
  const low = good[Math.floor(0.002 * good.length)], high = good[Math.floor(0.998 * (good.length - 1))], bins = 60;
  const width = (high - low) / bins || 1, counts = new Array(bins).fill(0);
  for (const v of good) counts[Math.min(bins - 1, Math.max(0, Math.floor((v - low) / width)))] += 1;
  const curve = { x: counts.map((_, i) => low + (i + 0.5) * width), y: counts, steps: true };
  if (!histogram) {
    histogram = new LinePlot($("histogram"), {});
    histogram.draw([curve]);
    await histogram.show();
  } else histogram.draw([curve]);
  const every = values.reduce((n, v) => n + (Number.isFinite(v) ? 1 : 0), 0), part = flag ? values.reduce((n, v, i) => n + (Number.isFinite(v) && flag[i] === 0 ? 1 : 0), 0) : every;
  histogram.label(labelled(state.variable(chosen())), part < every ? `good points (${part} of ${every})` : "points");
}

function selected(rows, columns) {
  region = { rows, columns };
  $("region-on").disabled = !state.status.live;
  paintRegion();
}

function paintRegion() {
  if (!region) return;
  const flag = state.layerOf("flag"), [, columns] = state.shape, lines = [];
  let points = 0, good = 0;
  for (let r = region.rows[0]; r < region.rows[1]; r++) for (let c = region.columns[0]; c < region.columns[1]; c++) {
    points += 1;
    if (!flag || flag[r * columns + c] === 0) good += 1;
  }
  lines.push(row(["rows, columns", `${region.rows[0]} to ${region.rows[1] - 1}, ${region.columns[0]} to ${region.columns[1] - 1}`]), row(["points", `${points}, good ${good}`]));
  for (const name of [...new Set([chosen(), beside()])]) {
    const values = state.layerOf(name);
    if (!values || name === "flag") continue;
    const inside = [];
    for (let r = region.rows[0]; r < region.rows[1]; r++) for (let c = region.columns[0]; c < region.columns[1]; c++) {
      const i = r * columns + c;
      if (Number.isFinite(values[i]) && (!flag || flag[i] === 0)) inside.push(values[i]);
    }
    if (!inside.length) continue;
    const mean = inside.reduce((a, b) => a + b, 0) / inside.length;
    const spread = Math.sqrt(inside.reduce((a, b) => a + (b - mean) ** 2, 0) / Math.max(1, inside.length - 1));
    const sorted = Float64Array.from(inside).sort(), said = unit(state.variable(name).units);
    lines.push(row([`${name}: mean`, `${withError(mean, spread / Math.sqrt(inside.length))} ${said}`]),
      row([`${name}: spread`, `${plain(spread)} ${said}`]), row([`${name}: median`, `${plain(sorted[Math.floor(sorted.length / 2)])} ${said}`]));
  }
  $("region-hint").hidden = true;
  $("region").tBodies[0].replaceChildren(...lines);
}

function showProvenance() {
  const lines = Object.entries(state.status.provenance ?? {}).map(([name, value]) => row([name.replaceAll("_", " "), String(value)]));
  $("provenance").tBodies[0].replaceChildren(...lines);
}

// An update from the server: show what it says, then read what changed; one reading at a time.
function take(news) {
  const before = lastNews;
  lastNews = news;
  if (state.scan === null || state.scan === news.scan) {
    Object.assign(state.status, { state: news.state, control: news.control, history: news.history, model_version: news.model_version });
    $("state").textContent = news.state;
    $("state").className = `badge ${news.state}`;
    showNews(news);
  }
  const other = before && (before.scan !== news.scan || before.scans !== news.scans || before.model_version !== news.model_version || before.state !== news.state);
  if (news.count !== state.count || other || !state.status.variables.length) refresh(Boolean(other));
}

async function refresh(whole = false) {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const empty = !state.status.variables.length, scan = state.status.scan, shape = String(state.status.grid?.shape), count = state.status.variables.length;
    await state.readStatus();
    showStatus(state.status);
    if (state.status.variables.length && (empty || scan !== state.status.scan || shape !== String(state.status.grid?.shape) || count !== state.status.variables.length)) await anew();
    else if (state.status.variables.length && (await state.update(wanted()))) { await state.read(wanted()); await show(); await showTable(state, pick); }
    if (maps.a) await showBeyond(state, maps.a);
    if (await state.readLost() && maps.a) await show();
    if (whole) { await showTraining(); showProvenance(); await renewPictures(state); }
  } catch (error) {
    if (error instanceof TypeError) $("connection").textContent = "reconnecting \u2026";
    else say(error.message);
  } finally {
    busy = false;
    if (again) { again = false; setTimeout(refresh, 50); }
  }
}

function wire() {
  $("variable").onchange = async () => { past = null; $("low").value = $("high").value = ""; $("beside").value = defaultBeside(); $("threshold-name").textContent = chosen(); await show(true); };
  $("beside").onchange = () => show(true);
  for (const id of ["palette", "scale", "hide"]) $(id).onchange = () => show();
  for (const id of ["low", "high"]) $(id).onchange = () => show();
  $("layer").onchange = () => { state.layer = Math.min(state.layers - 1, Math.max(0, Number($("layer").value) || 0)); show(); };
  $("history").oninput = travel;
  $("scan").onchange = () => { state.scan = Number($("scan").value); past = null; refresh(true); };
  for (const key of ["a", "b"]) $(`map-${key}`).onkeydown = keys;
  $("png").onclick = () => savePicture(state, chosen(), maps);
  $("csv").onclick = async () => {
    const names = state.status.grid.shape.length === 1 ? state.status.variables.map((v) => v.name) : wanted(); // a table: all of it
    await state.read(names);
    saveTable(state, chosen(), names);
  };
  $("table-details").ontoggle = () => showTable(state, pick);
  wirePictures(state);
  wireControl(state, () => region && [...region.rows, ...region.columns], chosen, () => maps.a);
}

begin();
