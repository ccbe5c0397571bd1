// Images over a grid, by BokehJS: maps of a scan, maps over detector pixels, frames.

const { ndarray } = Bokeh.require("core/util/ndarray");

export const LOST = "#e0a3a8"; // a point whose frame was lost

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function dressed(figure) {
  const ink = colour("ink"), line = colour("line"), panel = colour("panel");
  figure.background_fill_color = panel;
  figure.border_fill_color = panel;
  figure.outline_line_color = line;
  figure.toolbar.logo = null;
  for (const axis of [...figure.xaxis, ...figure.yaxis]) {
    Object.assign(axis, { axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null, major_label_text_color: ink,
      axis_label_text_color: ink, axis_label_text_font_style: "normal", axis_label_text_font_size: "12px" });
  }
  for (const grid of [...figure.xgrid, ...figure.ygrid]) grid.grid_line_color = null;
  return figure;
}

export function named(figure, x, y) {
  for (const axis of figure.xaxis) axis.axis_label = x;
  for (const axis of figure.yaxis) axis.axis_label = y;
}

export function palette(name) {
  if (name === "RdBu11") return [...Bokeh.Palettes.RdBu11];
  const colours = [...Bokeh.Palettes[name]];
  return name === "Greys256" ? colours.reverse() : colours;
}

// The largest of each block of pixels, so that no side is longer than `most`: small spots of a large frame are not lost.
export function pooled({ values, shape: [rows, columns] }, most = 640) {
  const by = Math.ceil(Math.max(rows, columns) / most);
  if (by <= 1) return { values, shape: [rows, columns], by: 1 };
  const [r2, c2] = [Math.ceil(rows / by), Math.ceil(columns / by)], found = new Float32Array(r2 * c2).fill(-Infinity);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const at = Math.floor(r / by) * c2 + Math.floor(c / by), value = values[r * columns + c];
    if (value > found[at]) found[at] = value;
  }
  return { values: found.map((v) => (v === -Infinity ? NaN : v)), shape: [r2, c2], by };
}

// Places of pixels along one axis: the middle of the first, the step, how many; counted where the values are not even.
export function places(axis, count) {
  const values = axis?.values ?? [];
  const step = values.length > 1 ? (values[values.length - 1] - values[0]) / (values.length - 1) : 1;
  const even = values.length === count && step !== 0 && values.every((v, i) => Math.abs(v - values[0] - i * step) < 0.02 * Math.abs(step));
  return even ? { first: values[0], step, count } : { first: 0, step: 1, count, counted: true };
}

// A colour "#rrggbb" (or "#rgb") as a pixel has it in memory: alpha, blue, green, red.
function pixelOf(text) {
  const hex = text.length === 4 ? [...text.slice(1)].map((c) => c + c).join("") : text.slice(1, 7);
  const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

// Pixels of values between low and high, with x and y growing, as Bokeh wants them. lost: whether a place has none for good.
function coloured(values, x, y, low, high, colours, log, lost) {
  const table = Uint32Array.from(colours, (c) => pixelOf(typeof c === "number" ? `#${(c >>> 8).toString(16).padStart(6, "0")}` : c));
  const none = pixelOf(colour("line")), gone = pixelOf(LOST), last = table.length - 1, painted = new Uint32Array(values.length);
  const from = log ? Math.log(low) : low, factor = table.length / ((log ? Math.log(high) : high) - from);
  const turnY = y.step < 0, turnX = x.step < 0;
  for (let r = 0, to = 0; r < y.count; r++) {
    const row = (turnY ? y.count - 1 - r : r) * x.count;
    for (let c = 0; c < x.count; c++, to++) {
      const place = row + (turnX ? x.count - 1 - c : c), value = values[place];
      const at = Math.floor(((log ? Math.log(value) : value) - from) * factor);
      painted[to] = at >= 0 ? table[at < last ? at : last] : value === value ? table[0] : lost?.[place] ? gone : none;
    }
  }
  return painted;
}

export class ImagePlot {
  // options: x, y (places), xlabel, ylabel, down (first row at the top), bar (colour bar), pick(row, column), select(rows, columns), height
  constructor(element, options) {
    this.element = element;
    this.options = options;
    const { x, y } = options;
    const edge = (p, end) => p.first + (end ? p.count - 0.5 : -0.5) * p.step;
    const figure = Bokeh.Plotting.figure({
      sizing_mode: "stretch_both", tools: options.select ? "pan,wheel_zoom,box_select,reset" : "pan,wheel_zoom,reset",
      x_range: new Bokeh.DataRange1d({ range_padding: 0 }), y_range: new Bokeh.DataRange1d({ range_padding: 0, flipped: Boolean(options.down) }),
      toolbar_location: "above", match_aspect: options.square !== false, min_border: 4, lod_threshold: null,
    });
    this.figure = dressed(figure);
    named(figure, options.xlabel ?? "", options.ylabel ?? "");
    this.mapper = new Bokeh.LinearColorMapper({ palette: palette("Viridis256"), low: 0, high: 1 });
    this.log = false;
    this.source = new Bokeh.ColumnDataSource({ data: { image: [] } });
    const [left, right] = [edge(x, x.step < 0), edge(x, x.step > 0)];
    const [bottom, top] = [edge(y, y.step < 0), edge(y, y.step > 0)];
    this.renderer = figure.image_rgba({
      image: { field: "image" }, x: left, y: bottom, dw: right - left, dh: top - bottom, source: this.source,
    });
    for (const range of [figure.x_range, figure.y_range]) range.renderers = [this.renderer];
    this.cross = new Bokeh.ColumnDataSource({ data: { x: [], y: [] } });
    this.spots = new Bokeh.ColumnDataSource({ data: { x: [], y: [] } });
    figure.scatter({ x: { field: "x" }, y: { field: "y" }, source: this.spots, marker: "circle", size: 11, fill_color: null, line_color: "#ff9d2e", line_width: 1.3 });
    figure.scatter({ x: { field: "x" }, y: { field: "y" }, source: this.cross, marker: "square", size: 12, fill_color: null, line_color: "#ff2d95", line_width: 2 });
    if (options.bar !== false) {
      this.bar = new Bokeh.ColorBar({ color_mapper: this.mapper, width: 12, padding: 4, background_fill_color: colour("panel"),
        major_label_text_color: colour("ink"), title_text_color: colour("ink"),
        formatter: new Bokeh.BasicTickFormatter({ power_limit_low: -3, power_limit_high: 5, precision: "auto" }) });
      figure.add_layout(this.bar, "right");
    }
    if (options.pick) figure.on_event("tap", (event) => { const at = this.pixel(event.x, event.y); if (at) options.pick(...at); });
    if (options.select) figure.on_event("selectiongeometry", (event) => { if (event.final) this.selected(event.geometry); });
  }

  async show() {
    this.element.replaceChildren();
    this.view = await Bokeh.Plotting.show(this.figure, this.element);
  }

  pixel(atX, atY) {
    const { x, y } = this.options;
    const column = Math.round((atX - x.first) / x.step), row = Math.round((atY - y.first) / y.step);
    return row >= 0 && row < y.count && column >= 0 && column < x.count ? [row, column] : null;
  }

  selected(geometry) {
    const { x, y, select } = this.options;
    const between = (p, a, b) => {
      const ends = [(a - p.first) / p.step, (b - p.first) / p.step].sort((m, n) => m - n);
      return [Math.max(0, Math.ceil(ends[0])), Math.min(p.count, Math.floor(ends[1]) + 1)];
    };
    const rows = between(y, geometry.y0, geometry.y1), columns = between(x, geometry.x0, geometry.x1);
    if (rows[1] > rows[0] && columns[1] > columns[0]) select(rows, columns);
  }

  // values: Float32Array, row by row from the first row of `y`. Pixels are coloured here, many times faster than by Bokeh; the
  // mapper is that of the colour bar.
  draw(values, low, high, colours, log = false, lost = null) {
    const { x, y } = this.options;
    const painted = coloured(values, x, y, low, high, colours, log, lost);
    this.source.data = { image: [ndarray(painted.buffer, { shape: [y.count, x.count], dtype: "uint32" })] };
    this.values = values;
    if (!this.bar) return;
    if (log !== this.log) this.bar.color_mapper = this.mapper = new (log ? Bokeh.LogColorMapper : Bokeh.LinearColorMapper)({ palette: colours, low, high });
    else this.mapper.setv({ low, high, palette: colours });
    if (this.view && (low !== this.low || high !== this.high)) this.view.invalidate_layout(); // room for the numbers of the bar
    [this.low, this.high, this.log] = [low, high, log];
  }

  // Nothing yet.
  empty() {
    this.source.data = { image: [ndarray(new Uint32Array(1).buffer, { shape: [1, 1], dtype: "uint32" })] };
  }

  mark(row, column) {
    const { x, y } = this.options;
    this.cross.data = row === null ? { x: [], y: [] } : { x: [x.first + column * x.step], y: [y.first + row * y.step] };
  }

  // places: [{row, column}], fractions allowed.
  overlay(places) {
    const { x, y } = this.options;
    this.spots.data = { x: places.map((s) => x.first + s.column * x.step), y: places.map((s) => y.first + s.row * y.step) };
  }

  picture() {
    return this.view.export("png", true).canvas;
  }
}
