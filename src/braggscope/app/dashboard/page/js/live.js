// What there is only while a run goes on: rates, latency, ledger, training, control.

import * as api from "./api.js";
import { plain, seconds } from "./format.js";
import { LinePlot } from "./lines.js";
import { row } from "./point.js";

const $ = (id) => document.getElementById(id);
let training = null;

export function showStatus(status) {
  $("title").textContent = status.title || "braggscope";
  document.title = `${status.state === "running" ? "\u25cf " : ""}${status.title || "braggscope"}`;
  const badge = $("state");
  badge.textContent = status.state;
  badge.className = `badge ${status.state}`;
  $("about").textContent = [status.modality, status.method].filter(Boolean).join(", ") + (status.model_version ? `, model version ${status.model_version}` : "");
  $("panel-control").hidden = !status.live;
  for (const [name, part] of Object.entries(status.parts ?? {})) if (part.state === "failed") {
    badge.textContent = `${name} failed: ${part.error}`;
    badge.className = "badge failed";
  }
  showScans(status);
  showNews(status);
}

function showScans(status) {
  const scans = status.scans ?? [];
  $("scan-label").hidden = scans.length < 2;
  const chooser = $("scan");
  if (chooser.options.length !== scans.length) {
    chooser.replaceChildren(...scans.map((one) => new Option(`${one.number}: ${one.name}`, one.number)));
    chooser.value = status.scan;
  }
}

// What every update brings.
export function showNews(news) {
  const rates = news.rates, latency = news.latency_ms, ledger = news.ledger;
  const parts = [];
  if (rates && (rates.received_hz || rates.mapped_hz)) parts.push(`received ${plain(rates.received_hz, 3)}/s, mapped ${plain(rates.mapped_hz, 3)}/s`);
  if (latency?.p50 !== null && latency?.p50 !== undefined) parts.push(`latency ${seconds(latency.p50)} (99 %: ${seconds(latency.p99)})`);
  if (ledger) parts.push(`${ledger.received} of ${ledger.expected} frames${ledger.lost ? `, ${ledger.lost} lost` : ""}`);
  $("rates").textContent = parts.join(" \u00b7 ");
  $("panel-ledger").hidden = !ledger;
  if (ledger) showLedger(ledger);
  if (news.control) showControl(news);
}

function showLedger(ledger) {
  const lines = ["expected", "received", "waiting", "lost", "late", "duplicates", "outside", "refused"]
    .filter((name) => ledger[name] !== undefined).map((name) => row([name === "waiting" ? "still expected" : name, plain(ledger[name])]));
  for (const [reason, count] of Object.entries(ledger.lost_by_reason ?? {})) lines.push(row([`lost, ${reason}`, plain(count)]));
  for (const [kind, count] of Object.entries(ledger.refused_by_kind ?? {})) lines.push(row([`refused, ${kind}`, plain(count)]));
  $("ledger").tBodies[0].replaceChildren(...lines);
}

function showControl(news) {
  $("pause").textContent = news.control.paused ? "go on mapping" : "pause mapping";
  $("region-off").disabled = !news.control.region;
  const over = news.state === "done" || news.state === "ended";
  for (const id of ["pause", "remap", "end-scan"]) $(id).disabled = over;
}

// How many points are beyond the thresholds and, where that is asked for, which ones, marked on a map.
export async function showBeyond(state, map) {
  const asked = Object.keys(state.status.control?.thresholds ?? {}).length;
  const found = asked ? Object.entries(await api.json("beyond", state.query)) : [];
  $("beyond").textContent = found.map(([name, one]) => `${one.count} point${one.count === 1 ? "" : "s"} of ${name} ${limits(one)}`).join(", ");
  $("beyond-show").hidden = !asked;
  const marked = asked && $("beyond-show").getAttribute("aria-pressed") === "true", [rows, columns] = state.shape, layer = rows * columns;
  const at = marked ? found.flatMap(([, one]) => one.positions).map((p) => p - state.layer * layer).filter((p) => p >= 0 && p < layer) : [];
  map.overlay(at.map((p) => ({ row: Math.floor(p / columns), column: p % columns })));
}

const limits = ({ limits: [low, high] }) => [low === null ? "" : `below ${plain(low)}`, high === null ? "" : `above ${plain(high)}`].filter(Boolean).join(" or ");

async function ask(path, document, said) {
  try {
    const now = await api.post(path, document);
    $("control-note").textContent = said;
    return now;
  } catch (error) {
    $("control-note").textContent = error.message;
    return null;
  }
}

const number = (id) => { const text = $(id).value.replace("\u2212", "-").trim(); return text === "" ? null : Number(text); };

export function wireControl(state, region, shownVariable, map) {
  const mark = $("beyond-show");
  mark.onclick = () => {
    mark.setAttribute("aria-pressed", String(mark.getAttribute("aria-pressed") !== "true"));
    showBeyond(state, map());
  };
  $("pause").onclick = () => ask("control", { paused: !state.status.control?.paused }, "asked for");
  $("region-on").onclick = () => region() && ask("control", { region: region() }, "the region is mapped first; the rest is recorded");
  $("region-off").onclick = () => ask("control", { region: null }, "the whole scan is mapped");
  $("remap").onclick = () => ask("control", { remap: state.status.model_version ?? 0 }, "points of earlier models are mapped again when nothing else is to do");
  $("end-scan").onclick = () => window.confirm("End this scan now? Frames that have not come are lost.") && ask("scans/end", {}, "the scan is ended");
  $("threshold-set").onclick = () => {
    const limits = [number("threshold-low"), number("threshold-high")];
    if (limits.some((v) => Number.isNaN(v))) { $("control-note").textContent = "thresholds must be numbers"; return; }
    const all = { ...state.status.control?.thresholds, [shownVariable()]: limits };
    if (limits.every((v) => v === null)) delete all[shownVariable()];
    ask("control", { thresholds: all }, "thresholds are set");
  };
}

export async function showTraining() {
  const versions = await api.json("training");
  $("panel-training").hidden = versions.length === 0;
  if (!versions.length) return;
  const x = versions.map((one) => one.frames);
  const curves = ["loss", "validation"].map((name) => ({ x, y: versions.map((one) => one[name] ?? NaN), name, points: true }));
  if (!training) {
    training = new LinePlot($("training"), { xlabel: "frames seen", ylabel: "loss" });
    training.draw(curves);
    await training.show();
  } else training.draw(curves);
}
