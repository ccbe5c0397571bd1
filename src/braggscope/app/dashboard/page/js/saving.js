// What is shown, taken away: a picture, a table.

const $ = (id) => document.getElementById(id);

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const fileName = (state, name, ending) => `${(state.status.title || "map").replace(/[^\w.-]+/g, "_").slice(0, 60)}_${name}.${ending}`;

// Both maps side by side, with a line that says what they are.
export function savePicture(state, name, maps) {
  const pictures = [maps.a.picture(), maps.b.picture()], head = 44;
  const canvas = document.createElement("canvas");
  canvas.width = pictures[0].width + pictures[1].width;
  canvas.height = Math.max(...pictures.map((p) => p.height)) + head;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  pen.fillStyle = style.getPropertyValue("--panel");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = style.getPropertyValue("--ink");
  pen.font = "15px sans-serif";
  pen.fillText(`${state.status.title ?? ""}`, 8, 18);
  pen.fillText($("head-a").textContent, 8, 38);
  pen.fillText($("head-b").textContent, pictures[0].width + 8, 38);
  pen.drawImage(pictures[0], 0, head);
  pen.drawImage(pictures[1], pictures[0].width, head);
  canvas.toBlob((blob) => save(blob, fileName(state, name, "png")));
}

// The drawn layer as a table: axes, both variables, flag.
export function saveTable(state, name, names) {
  const [rows, columns] = state.shape, [ay, ax] = state.axes, lines = [];
  const head = (axis, fallback) => `${axis?.name || fallback}${axis?.unit ? ` (${axis.unit})` : ""}`;
  lines.push([head(ay, "row"), head(ax, "column"), ...names.map((n) => { const v = state.variable(n); return v.units && v.units !== "1" ? `${n} (${v.units})` : n; })].join(","));
  const layers = names.map((n) => state.layerOf(n));
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    lines.push([ay?.values[r] ?? r, ax?.values[c] ?? c, ...layers.map((v) => v[r * columns + c])].join(","));
  }
  save(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }), fileName(state, name, "csv"));
}
