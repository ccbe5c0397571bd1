// Pictures that the modality draws of its maps, and the rows of a map that is a table (grains, dislocations, peaks).

import * as api from "./api.js";
import { labelled, plain, withError } from "./format.js";
import { row } from "./point.js";

const $ = (id) => document.getElementById(id);
const MOST_ROWS = 500;
let listed = null; // for which scan the pictures are listed

export function wirePictures(state) {
  $("pictures").ontoggle = () => $("pictures").open && listPictures(state);
  $("picture").onchange = () => showPicture(state);
}

// A map of another scan, or one that is finished now: what is listed may be different.
export async function renewPictures(state) {
  listed = null;
  if ($("pictures").open) await listPictures(state);
}

async function listPictures(state) {
  if (listed !== null) return;
  listed = state.scan ?? 0;
  $("picture-note").textContent = "drawing \u2026";
  try {
    const found = await api.json("pictures", state.query), before = $("picture").value;
    $("picture").replaceChildren(...found.map((one) => {
      const option = new Option(one.name.replaceAll("_", " "), one.name);
      option.dataset.caption = one.caption;
      return option;
    }));
    if (found.some((one) => one.name === before)) $("picture").value = before;
    await showPicture(state);
  } catch (error) {
    listed = null;
    if (!(error instanceof api.Missing)) throw error;
    $("picture-note").textContent = error.message;
  }
}

async function showPicture(state) {
  const name = $("picture").value, image = $("picture-shown");
  $("picture-note").textContent = "drawing \u2026";
  try {
    const blob = await api.blob(`pictures/${encodeURIComponent(name)}`, state.query);
    if (name !== $("picture").value) return;
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(blob);
    image.alt = $("picture-caption").textContent = $("picture").selectedOptions[0].dataset.caption;
    $("picture-note").textContent = "";
    image.hidden = false;
  } catch (error) {
    if (!(error instanceof api.Missing)) throw error;
    image.hidden = true;
    $("picture-caption").textContent = "";
    $("picture-note").textContent = error.message;
  }
}

// The rows of a map over one dimension; pick(index) is called for the row that is clicked.
export async function showTable(state, pick) {
  const one = state.status.grid?.shape.length === 1;
  $("panel-table").hidden = !one;
  if (!one || !$("table-details").open) return;
  const variables = state.status.variables, [, axis] = state.axes, count = axis.values.length;
  const held = new Map();
  for (const v of variables) held.set(v.name, (await api.numbers(`map/${encodeURIComponent(v.name)}`, state.query)).values);
  const shown = variables.filter((v) => v.kind !== "std");
  const head = document.createElement("tr");
  for (const text of [axis.name, ...shown.map(labelled)]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  $("table").tHead.replaceChildren(head);
  const lines = Array.from({ length: Math.min(count, MOST_ROWS) }, (_, i) => {
    const line = row([plain(axis.values[i], 6), ...shown.map((v) => withError(held.get(v.name)[i], held.get(`${v.name}_std`)?.[i]))]);
    line.onclick = () => pick(0, i);
    return line;
  });
  $("table").tBodies[0].replaceChildren(...lines);
  $("table-note").textContent = count > MOST_ROWS ? `the first ${MOST_ROWS} of ${count} rows; the button CSV saves them all` : "";
}
