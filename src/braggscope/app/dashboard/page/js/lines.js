// Curves, by BokehJS: profiles, histograms, rocking curves, training.

import { colour, dressed, named } from "./image.js";

const COLOURS = ["#1f77b4", "#d95f02", "#1b9e77", "#7570b3"];

export class LinePlot {
  constructor(element, { xlabel = "", ylabel = "", log = false } = {}) {
    this.element = element;
    this.figure = dressed(Bokeh.Plotting.figure({
      sizing_mode: "stretch_both", tools: "pan,wheel_zoom,reset", toolbar_location: "above", min_border: 4,
      y_axis_type: log ? "log" : "linear",
    }));
    named(this.figure, xlabel, ylabel);
    this.sources = [];
    this.key = new Bokeh.Legend({ items: [], orientation: "horizontal", background_fill_alpha: 0, border_line_color: null, padding: 0, margin: 0,
      label_text_color: colour("ink"), label_text_font_size: "11px", glyph_height: 12 });
    this.figure.add_layout(this.key, "above");
  }

  async show() {
    this.element.replaceChildren();
    this.view = await Bokeh.Plotting.show(this.figure, this.element);
  }

  label(x, y) {
    named(this.figure, x, y);
  }

  // curves: [{x, y, std, name, steps, points, bare, colour}], drawn anew in place; bare: points without a line.
  draw(curves) {
    curves.forEach((curve, i) => {
      if (!this.sources[i]) this.sources[i] = this.made(i, Boolean(curve.name), curve);
      const y = Array.from(curve.y), std = curve.std ? Array.from(curve.std) : y.map(() => NaN);
      this.sources[i].data = { x: Array.from(curve.x), y, low: y.map((v, k) => v - std[k]), high: y.map((v, k) => v + std[k]) };
    });
    for (const source of this.sources.slice(curves.length)) source.data = { x: [], y: [], low: [], high: [] };
  }

  made(i, named, curve) {
    const source = new Bokeh.ColumnDataSource({ data: { x: [], y: [], low: [], high: [] } });
    const line = COLOURS[(curve.colour ?? i) % COLOURS.length];
    this.figure.segment({ x0: { field: "x" }, x1: { field: "x" }, y0: { field: "low" }, y1: { field: "high" }, source, line_color: line, line_alpha: 0.45 });
    const how = { x: { field: "x" }, y: { field: "y" }, source, line_color: line };
    const marks = curve.points ? this.figure.scatter({ x: { field: "x" }, y: { field: "y" }, source, size: 4, color: line }) : null;
    const drawn = curve.bare ? marks : curve.steps ? this.figure.step({ ...how, mode: "center" }) : this.figure.line({ ...how, line_width: 1.2 });
    if (named) this.key.items = [...this.key.items, new Bokeh.LegendItem({ label: { value: curve.name }, renderers: [drawn] })];
    return source;
  }
}
