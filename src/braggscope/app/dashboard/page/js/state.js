// What the page knows: the last status, the values of the variables that are shown, the point that is picked.

import * as api from "./api.js";

const LOST = 3; // in the ledger's words

export class MapState {
  constructor() {
    this.status = null;
    this.scan = null; // null: the last one
    this.values = new Map(); // name -> Float32Array of the whole map
    this.count = 0;
    this.position = null;
    this.layer = 0;
    this.lost = null; // booleans over the map: whose frame was lost
    this.lostCount = 0;
  }

  get query() {
    return this.scan === null ? {} : { scan: this.scan };
  }

  variable(name) {
    return this.status?.variables.find((one) => one.name === name);
  }

  // Rows and columns of what is drawn: the last two dimensions; a line has one row.
  get shape() {
    const shape = this.status?.grid?.shape ?? [];
    return shape.length > 1 ? shape.slice(-2) : [1, shape[0] ?? 0];
  }

  get axes() {
    const axes = this.status?.grid?.axes ?? [];
    return axes.length > 1 ? axes.slice(-2) : [{ name: "", values: [0], unit: "" }, axes[0]];
  }

  get layers() {
    const shape = this.status?.grid?.shape ?? [];
    return shape.slice(0, -2).reduce((product, n) => product * n, 1);
  }

  get overPixels() {
    return Boolean(this.status?.grid?.dims.includes("row"));
  }

  // The drawn layer of values of the whole map.
  drawn(values) {
    const [rows, columns] = this.shape;
    return values ? values.subarray(this.layer * rows * columns, (this.layer + 1) * rows * columns) : null;
  }

  layerOf(name) {
    return this.drawn(this.values.get(name));
  }

  flat(row, column) {
    const [rows, columns] = this.shape;
    return (this.layer * rows + row) * columns + column;
  }

  // Which frames were lost, where that changed; whether it did.
  async readLost() {
    const count = this.overPixels ? 0 : this.status.ledger?.lost ?? 0;
    if (count === this.lostCount && (!count || this.lost)) return false;
    this.lostCount = count;
    this.lost = count ? (await api.bytes("ledger/status", this.query)).map((status) => (status === LOST ? 1 : 0)) : null;
    return true;
  }

  async readStatus() {
    this.status = await api.json("status", this.query);
    return this.status;
  }

  async read(names, anew = false) {
    const missing = names.filter((name) => anew || !this.values.has(name));
    const found = await Promise.all(missing.map((name) => api.numbers(`map/${encodeURIComponent(name)}`, this.query)));
    missing.forEach((name, i) => this.values.set(name, found[i].values));
    const counts = found.map((one) => one.count); // what came since the earliest of them is asked for again
    if (counts.length) this.count = Math.min(...counts, ...(anew || !this.count ? [] : [this.count]));
  }

  // Take in what changed; whether anything did.
  async update(names) {
    const held = names.filter((name) => this.values.has(name));
    const news = await api.json("changes", { since: this.count, variables: held.join(","), ...this.query });
    if (news.whole) {
      this.values.clear();
      await this.read(names, true);
      this.count = news.count;
      return true;
    }
    for (const name of [...this.values.keys()]) if (!held.includes(name)) this.values.delete(name);
    for (const [name, values] of Object.entries(news.values)) {
      const into = this.values.get(name);
      news.positions.forEach((position, i) => { into[position] = values[i] ?? NaN; });
    }
    this.count = news.count;
    return news.positions.length > 0;
  }
}
