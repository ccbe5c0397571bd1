// From a variable to colours: limits, palettes, flags as categories, grains as labels.

import { palette } from "./image.js";

export const FLAGS = ["#f0f0f0", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#1f78b4", "#b15928", "#6a3d9a"];
const SEVERAL = "#777777";
const LABELS = ["#4e79a7", "#f28e2b", "#76b7b2", "#e15759", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac", "#1b9e77", "#d95f02",
  "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#386cb0", "#f0027f"];
const WORDS = new Set(["grain", "second", "cluster", "domain", "model_version"]);

export function isLabel(name) {
  return WORDS.has(name);
}

export function percentile(sorted, share) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))] : NaN;
}

// Finite values of about `most` places spread evenly, sorted.
export function sample(values, used = () => true, most = 20000) {
  const step = Math.max(1, Math.floor(values.length / most)), found = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i]) && used(i)) found.push(values[i]);
  return Float64Array.from(found).sort();
}

export function limits(values, used, { low, high, signed }) {
  const sorted = sample(values, used);
  let a = Number.isFinite(low) ? low : percentile(sorted, 0.01), b = Number.isFinite(high) ? high : percentile(sorted, 0.99);
  if (!Number.isFinite(a)) [a, b] = [0, 1];
  if (signed && !Number.isFinite(low) && !Number.isFinite(high)) [a, b] = [-Math.max(Math.abs(a), Math.abs(b)), Math.max(Math.abs(a), Math.abs(b))];
  if (!(b > a)) [a, b] = [a - 0.5 * Math.max(Math.abs(a), 1e-12), a + 0.5 * Math.max(Math.abs(a), 1e-12)];
  return [a, b];
}

// The flags as numbers 0 (good), 1 ... (one flag), last (several); and a legend with counts.
export function flags(values, meaning) {
  const { masks, meanings } = meaning, counts = new Array(masks.length + 2).fill(0), shown = new Float32Array(values.length);
  const place = new Map(masks.map((mask, i) => [mask, i + 1]));
  for (let i = 0; i < values.length; i++) {
    const flag = values[i];
    const at = !(flag > 0) ? 0 : place.get(flag) ?? masks.length + 1;
    shown[i] = at;
    counts[at] += 1;
  }
  const colours = [...masks.map((_, i) => FLAGS[(i % (FLAGS.length - 1)) + 1])];
  const all = [FLAGS[0], ...colours, SEVERAL], words = ["good", ...meanings.map((w) => w.replaceAll("_", " ")), "several"];
  const legend = all.map((colour, i) => ({ colour, word: words[i], count: counts[i] })).filter((one, i) => i === 0 || one.count);
  return { shown, colours: all, low: -0.5, high: masks.length + 1.5, legend };
}

// Labels (grains) as colours that neighbours in number do not share; 0 and none are dark.
export function labels(values) {
  const shown = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) shown[i] = values[i] > 0 ? 1 + ((values[i] * 7) % LABELS.length) : values[i] === 0 ? 0 : NaN;
  return { shown, colours: ["#222222", ...LABELS], low: -0.5, high: LABELS.length + 0.5 };
}

export function ranged(values, used, choice) {
  const [low, high] = limits(values, used, choice);
  return { shown: values, colours: palette(choice.palette), low: choice.log ? Math.max(low, high * 1e-6) : low, high };
}
