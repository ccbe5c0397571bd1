// Talking to the server: values as Float32Array, everything else as JSON; a WebSocket that comes back when the server does.

const BASE = "/api/v1";

export class Missing extends Error {}

async function answered(response) {
  if (response.ok) return response;
  let detail = response.statusText;
  try { detail = (await response.json()).detail; } catch { /* no JSON: the status says it */ }
  throw new Missing(typeof detail === "string" ? detail : JSON.stringify(detail));
}

function address(path, query = {}) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined) words.set(name, value);
  const text = words.toString();
  return `${BASE}/${path}${text ? `?${text}` : ""}`;
}

export async function json(path, query) {
  return (await answered(await fetch(address(path, query)))).json();
}

export async function numbers(path, query) {
  const response = await answered(await fetch(address(path, query)));
  const shape = response.headers.get("X-Shape").split(",").map(Number);
  return { values: new Float32Array(await response.arrayBuffer()), shape, count: Number(response.headers.get("X-Count")) };
}

export async function bytes(path, query) {
  return new Uint8Array(await (await answered(await fetch(address(path, query)))).arrayBuffer());
}

export async function blob(path, query) {
  return (await answered(await fetch(address(path, query)))).blob();
}

export async function post(path, document) {
  const response = await fetch(address(path), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(document) });
  return (await answered(response)).json();
}

// Calls news(message) for each update and connected(bool) when that changes; tries again for ever, at most every two seconds.
export function follow(news, connected) {
  let wait = 250;
  function open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${BASE}/updates`);
    socket.onopen = () => { wait = 250; connected(true); };
    socket.onmessage = (event) => news(JSON.parse(event.data));
    socket.onclose = () => { connected(false); setTimeout(open, wait); wait = Math.min(2000, wait * 1.5); };
  }
  open();
}
