// Numbers as a scientist writes them: 1.2345(67)e-3 for a value with its standard deviation.

const MINUS = "\u2212";

function signed(text) {
  return text.replace("-", MINUS);
}

export function plain(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return signed(String(value));
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(digits - 1) : Number(value.toPrecision(digits)).toString();
  return signed(text.replace("e+", "e"));
}

// The value to the second digit of its standard deviation, which stands in brackets in units of the last digit.
export function withError(value, std) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (!(std > 0) || !Number.isFinite(std)) return plain(value, 5);
  const size = Math.max(Math.abs(value), std);
  let power = Math.floor(Math.log10(size));
  if (power >= -3 && power < 5) power = 0;
  const scaled = value / 10 ** power, error = std / 10 ** power;
  const places = Math.max(0, 1 - Math.floor(Math.log10(error)));
  if (places > 12) return plain(value, 6);
  const digits = places === 0 ? Math.round(error) : Math.round(error * 10 ** places);
  return signed(`${scaled.toFixed(places)}(${digits})${power ? `e${power}` : ""}`);
}

export function unit(text) {
  return text === "" || text === "1" ? "" : text.replace("angstrom", "\u00c5").replace("deg", "\u00b0").replace(/^um$/, "\u00b5m");
}

export function labelled(variable) {
  const said = unit(variable.units);
  return said ? `${variable.name} (${said})` : variable.name;
}

export function seconds(ms) {
  if (ms === null || ms === undefined) return "\u2013";
  return ms < 1000 ? `${plain(ms, 3)} ms` : `${plain(ms / 1000, 3)} s`;
}
