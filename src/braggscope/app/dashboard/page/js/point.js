// The picked point: its values, its frame, the model of it and what is left; the curve of a detector pixel.

import * as api from "./api.js";
import { ImagePlot, palette, pooled } from "./image.js";
import { LinePlot } from "./lines.js";
import { sample, percentile } from "./scales.js";
import { plain, unit, withError } from "./format.js";

const $ = (id) => document.getElementById(id);
const plots = new Map();

export function row(cells, heads = 1) {
  const line = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = document.createElement(i < heads ? "th" : "td");
    if (i < heads) cell.scope = "row";
    cell.textContent = text;
    if (i >= heads && /^[\u2212\d]/.test(text)) cell.className = "n";
    line.append(cell);
  });
  return line;
}

export function say(text) {
  $("announce").textContent = text;
}

// Show everything about a flat position; `current` tells whether it is still the one that is picked.
export async function showPoint(state, position, current) {
  const point = await api.json(`points/${position}`, state.query);
  if (!current()) return;
  const where = point.axes.map((axis) => `${axis.name} ${plain(axis.value, 6)}${axis.unit ? ` ${unit(axis.unit)}` : ""}`).join(", ");
  $("head-point").textContent = `Point ${where}`;
  $("hint").hidden = true;
  const lines = Object.entries(point.values).map(([name, one]) => row([name, withError(one.value, one.std), unit(one.units)]));
  $("values").tBodies[0].replaceChildren(...lines);
  const flag = point.flag_words.length ? `flagged: ${point.flag_words.join(", ").replaceAll("_", " ")}` : "good";
  const lost = point.lost_because ? `; frame lost: ${point.lost_because}` : point.frame && point.frame !== "received" ? `; frame ${point.frame}` : "";
  $("point-note").textContent = flag + lost;
  const main = Object.entries(point.values)[0];
  say(`${where}: ${main ? `${main[0]} ${withError(main[1].value, main[1].std)} ${unit(main[1].units)}` : ""}, ${flag}`);
  if (state.overPixels) await showCurve(state, point, current);
  else await showFrame(state, position, current);
}

async function tried(path, query) {
  try {
    return { found: await api.numbers(path, query) };
  } catch (error) {
    if (error instanceof api.Missing) return { why: error.message };
    throw error;
  }
}

async function showFrame(state, position, current) {
  const { frames, frame_model: modelled } = state.status;
  const none = { why: frames ? "" : "no frames: the scan file was not given (view MAP --scan FILE)" };
  const frame = frames ? await tried(`frames/${position}`, state.query) : none;
  if (!current()) return;
  $("head-frames").textContent = `Frame at position ${position}`;
  const spotty = Boolean(state.status.spot_model); // a few bright spots on a large frame
  $("frame").parentElement.classList.toggle("large", spotty);
  const top = frame.found ? Math.max(1e-9, percentile(sample(frame.found.values, undefined, 300000), state.status.spot_model ? 0.9997 : 0.999)) : 1;
  if (spotty && frame.found) {
    const sorted = sample(frame.found.values, undefined, 300000);
    await draw("frame", frame.found, Math.max(1, percentile(sorted, 0.5)), Math.max(10, percentile(sorted, 0.9999)), "Greys256", true);
  } else await draw("frame", frame.found, 0, top, "Viridis256");
  window.braggscope.frame = frame.found ? { position, shape: frame.found.shape, values: Array.from(frame.found.values) } : { position, why: frame.why };
  const model = modelled && frame.found ? await tried(`model/${position}`, state.query) : {};
  if (!current()) return;
  await draw("model", model.found, 0, top, "Viridis256");
  let left = null;
  if (frame.found && model.found) {
    const values = frame.found.values.map((n, i) => (n - model.found.values[i]) / Math.sqrt(Math.max(model.found.values[i], 1e-3)));
    left = { values, shape: frame.found.shape };
  }
  await draw("residual", left, -4, 4, "RdBu11");
  if (state.status.spot_model && frame.found) await showSpots(state, position, current);
  $("frame-note").textContent = [frame.why, model.why].filter(Boolean).join("; ");
}

async function showSpots(state, position, current) {
  try {
    const spots = await api.json(`spots/${position}`, state.query);
    const { x, y } = plots.get("frame").options;
    if (current()) plots.get("frame").overlay(spots.map((s) => ({ row: (s.row - y.first) / y.step, column: (s.column - x.first) / x.step })));
  } catch (error) {
    if (!(error instanceof api.Missing)) throw error;
  }
}

async function draw(name, found, low, high, colours, log = false) {
  const element = $(name);
  element.parentElement.hidden = !found;
  if (!found) return;
  const { values, shape: [rows, columns], by } = pooled(found);
  let plot = plots.get(name);
  if (!plot || plot.options.y.count !== rows || plot.options.x.count !== columns) {
    const along = (count) => ({ first: (by - 1) / 2, step: by, count });
    plot = new ImagePlot(element, { x: along(columns), y: along(rows), down: true, xlabel: "column (px)", ylabel: "row (px)" });
    plots.set(name, plot);
    plot.draw(values, low, high, palette(colours), log);
    await plot.show();
  } else plot.draw(values, low, high, palette(colours), log);
}

// The counts of a detector pixel over the scan; over two motors an image of them.
async function showCurve(state, point, current) {
  const [r, c] = point.axes.slice(-2).map((axis) => axis.index);
  for (const name of ["frame", "model", "residual"]) $(name).parentElement.hidden = true;
  $("head-frames").textContent = `Curve of pixel ${r}, ${c}`;
  let curve;
  if (!state.status.frames) {
    $("frame-note").textContent = "no curves: the scan file was not given (view MAP --scan FILE)";
    $("curve-figure").hidden = true;
    return;
  }
  try {
    curve = await api.json(`curves/${r}/${c}`, state.query);
  } catch (error) {
    if (!(error instanceof api.Missing)) throw error;
    $("frame-note").textContent = error.message;
    $("curve-figure").hidden = true;
    return;
  }
  if (!current()) return;
  $("frame-note").textContent = "";
  $("curve-figure").hidden = false;
  const names = Object.keys(curve.motors), counts = curve.counts.map((v) => v ?? NaN);
  window.braggscope.curve = { row: r, column: c, counts, model: curve.model };
  const mean = names.map((name) => point.values[name]).filter(Boolean);
  $("curve-caption").textContent = mean.length ? `${curve.model ? "line: the peak that the values of the map stand for; " : ""}${names.filter((n) => point.values[n]).map((n) => `${n} ${withError(point.values[n].value, point.values[n].std)} ${unit(point.values[n].units)}`).join(", ")}` : "counts over the scan";
  const curves = names.map((name, i) => ({ ...along(name, i, names, curve, counts), points: true, bare: Boolean(curve.model) }));
  if (curve.model) {
    const known = curve.model.map((v, i) => (Number.isFinite(counts[i]) ? v : NaN)); // means over the same points
    curves.push(...names.map((name, i) => ({ ...along(name, i, names, curve, known), name: `${names.length > 1 ? `${name}, ` : ""}model`, colour: i })));
  }
  let plot = plots.get("curve");
  if (!plot) {
    plot = new LinePlot($("curve"), { xlabel: "", ylabel: "mean count" });
    plots.set("curve", plot);
    plot.draw(curves);
    await plot.show();
  } else plot.draw(curves);
  plot.label(names.map((n) => `${n} (${unit(curve.motors[n].unit) || "1"})`).join(", "), names.length > 1 ? "mean count" : "count");
}

function along(name, axis, names, curve, counts) {
  const size = curve.shape[axis], after = curve.shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const sum = new Array(size).fill(0), number = new Array(size).fill(0);
  counts.forEach((value, i) => { const k = Math.floor(i / after) % size; if (Number.isFinite(value)) { sum[k] += value; number[k] += 1; } });
  return { x: curve.motors[name].values, y: sum.map((s, k) => s / number[k]), name: names.length > 1 ? name : "counts" };
}
