/* The adapter slots. `rows` is the truth: the page is drawn from it, and the request is made of it. */
const MOST = 3;
const list = element.querySelector(".slots");
const adding = element.querySelector(".slot-add");
const shelf = "z-image-playground-adapters"; // what this browser knows: scale, star, last use
let rows = []; // {id, path, scale, on, key, html}
let made = 0;
let frame = null;
let told = null; // the value as this script wrote it last

const backend = () => document.querySelector("#backend input:checked")?.value ?? "demo";
const rowOf = (target) => rows.find((row) => row.id === target.closest(".slot")?.dataset.row);
const slotOf = (row) => list.querySelector(`[data-row="${row.id}"]`);
const say = (text, facts) => text.replace(/\{(\w+)\}/g, (all, name) => facts[name] ?? all);

/* -- the list ------------------------------------------------------------------ */

function commit() {
  told = JSON.stringify(rows.map(({ path, scale, on }) => ({ path, scale, on })));
  props.value = told;
  trigger("change");
  document.dispatchEvent(new CustomEvent("adapters-changed"));
}

function take(text) {
  if (text === told) return;
  told = text;
  rows = JSON.parse(text || "[]")
    .slice(0, MOST)
    .map((row) => newRow(row.path, row.scale, row.on));
  draw();
  rows.forEach(look);
  document.dispatchEvent(new CustomEvent("adapters-changed"));
}

const newRow = (path, scale = null, on = true) => ({
  id: String(++made),
  path,
  scale: scale ?? 1,
  on: on ?? true,
  fresh: scale === null,
  html: "",
});

function add(reference) {
  if (rows.length >= MOST) return refuse(frame.full);
  if (rows.some((row) => row.path === reference)) return refuse(frame.twice, reference);
  const row = newRow(reference);
  rows.push(row);
  draw();
  commit();
  look(row);
  return true;
}

function refuse(text, name = "") {
  window.playground.toast(say(text, { name }));
  return false;
}

function remove(row) {
  rows = rows.filter((other) => other !== row);
  draw();
  commit();
}

function move(row, by) {
  const from = rows.indexOf(row);
  const to = from + by;
  if (to < 0 || to >= rows.length) return;
  rows.splice(to, 0, ...rows.splice(from, 1));
  draw();
  commit();
}

/* What the adapter is; an answer for a row that has changed meanwhile is dropped. */
async function look(row) {
  const asked = row.path;
  const found = await server.look_at({ reference: asked, backend: backend() });
  if (!rows.includes(row) || row.path !== asked) return;
  if (found.cause) row.html = note("slot-problem", `${found.cause} ${found.hint}`);
  else if (rows.some((other) => other !== row && other.path === found.reference)) {
    refuse(frame.twice, found.name);
    return remove(row);
  } else {
    Object.assign(row, { path: found.reference, key: found.key, html: found.html });
    recall(row);
  }
  draw();
  commit();
}

function note(kind, text) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  return line.outerHTML;
}

/* -- what this browser remembers ------------------------------------------------ */

const memory = () => JSON.parse(localStorage.getItem(shelf) ?? "{}");
function remember(key, facts) {
  if (!key) return;
  const all = memory();
  all[key] = { ...all[key], ...facts };
  localStorage.setItem(shelf, JSON.stringify(all));
}

function recall(row) {
  const known = memory()[row.key];
  if (row.fresh && known?.scale !== undefined) row.scale = known.scale;
  row.fresh = false;
  remember(row.key, { used: Date.now() });
}

/* -- drawing --------------------------------------------------------------------- */

function draw() {
  if (!frame) return;
  const focus = document.activeElement;
  for (const slot of [...list.children])
    if (!rows.some((row) => row.id === slot.dataset.row)) slot.remove();
  rows.forEach((row, at) => {
    const slot = slotOf(row) ?? fresh(row);
    slot.id = `lora-${at}`;
    if (list.children[at] !== slot) list.insertBefore(slot, list.children[at] ?? null);
    fill(slot, row, at);
  });
  if (focus?.isConnected && focus !== document.activeElement) focus.focus();
  adding.hidden = rows.length >= MOST;
  mark();
}

function fresh(row) {
  const holder = document.createElement("template");
  holder.innerHTML = frame.slot;
  const slot = holder.content.firstElementChild;
  slot.dataset.row = row.id;
  return slot;
}

function fill(slot, row, at) {
  const part = (name) => slot.querySelector(`.slot-${name}`);
  slot.dataset.path = row.path;
  slot.dataset.on = String(row.on);
  part("on").checked = row.on;
  if (part("about").dataset.html !== row.html || !row.html) {
    part("about").innerHTML = row.html || note("slot-name", row.path);
    part("about").dataset.html = row.html;
  }
  for (const control of [part("range"), part("number")])
    if (control !== document.activeElement || Number(control.value) !== row.scale)
      control.value = row.scale;
  outOfRange(slot, row);
  slot.querySelector('[data-act="up"]').disabled = at === 0;
  slot.querySelector('[data-act="down"]').disabled = at === rows.length - 1;
}

function outOfRange(slot, row) {
  const wrong = row.scale < frame.low || row.scale > frame.high;
  const line = slot.querySelector(".slot-range-note");
  line.hidden = !wrong;
  line.textContent = wrong ? frame.out_of_range : "";
  slot.querySelector(".slot-number").setAttribute("aria-invalid", String(wrong));
}

/* -- what a person does ------------------------------------------------------------ */

list.addEventListener("input", (event) => {
  const row = rowOf(event.target);
  if (!row || event.target.type === "checkbox" || event.target.matches("select")) return;
  const scale = event.target.valueAsNumber;
  if (Number.isFinite(scale)) rescale(row, scale);
});

list.addEventListener("change", (event) => {
  const row = rowOf(event.target);
  if (event.target.matches(".slot-on")) {
    row.on = event.target.checked;
    draw();
    commit();
  } else if (event.target.matches(".slot-select")) {
    row.path = event.target.value;
    row.fresh = true;
    commit();
    look(row);
  } else draw(); // a number box that was left empty shows its value again
});

list.addEventListener("dblclick", (event) => {
  if (event.target.matches(".slot-range")) rescale(rowOf(event.target), 1);
});

function rescale(row, scale) {
  row.scale = Math.round(scale * 1000) / 1000;
  row.fresh = false;
  remember(row.key, { scale: row.scale });
  fill(slotOf(row), row, rows.indexOf(row));
  commit();
}

list.addEventListener("click", (event) => {
  const row = rowOf(event.target);
  const { act, trigger: word } = event.target.closest("button")?.dataset ?? {};
  if (word !== undefined) toggleWord(word);
  else if (act === "remove") remove(row);
  else if (act === "up") move(row, -1);
  else if (act === "down") move(row, 1);
});

list.addEventListener("error", ({ target }) => target.removeAttribute?.("src"), true);

/* -- adding ------------------------------------------------------------------------- */

let typing;
let asking = 0;
adding.addEventListener("input", (event) => {
  if (!event.target.matches(".slot-paste")) return;
  clearTimeout(typing);
  typing = setTimeout(() => preview(event.target.value.trim()), 250);
});

async function preview(reference) {
  const turn = ++asking;
  const line = adding.querySelector(".slot-found");
  const found = reference ? await server.look_at({ reference, backend: backend() }) : {};
  if (turn !== asking) return;
  line.dataset.bad = String(Boolean(found.cause));
  line.textContent = found.cause ? `${found.cause} ${found.hint}` : (found.name ?? "");
}

adding.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches(".slot-paste")) return;
  event.preventDefault();
  const reference = event.target.value.trim();
  if (!reference || adding.querySelector(".slot-found").dataset.bad === "true") return;
  if (add(reference)) clear();
});

function clear() {
  clearTimeout(typing);
  asking += 1;
  adding.querySelector(".slot-paste").value = "";
  adding.querySelector(".slot-found").textContent = "";
}

adding.addEventListener("click", (event) => {
  if (event.target.closest('[data-act="browse"]'))
    document.querySelectorAll("#tabs [role=tab]")[1]?.click();
});
adding.addEventListener("change", (event) => {
  if (event.target.matches(".slot-file") && event.target.files[0]) upload(event.target.files[0]);
});

function upload(file) {
  if (rows.length >= MOST) return refuse(frame.full);
  const line = adding.querySelector(".slot-found");
  const sending = new XMLHttpRequest();
  sending.upload.addEventListener("progress", ({ loaded, total }) => {
    const percent = Math.round((100 * loaded) / total);
    line.textContent = say(frame.uploading, { name: file.name, percent });
  });
  sending.addEventListener("loadend", () => {
    line.textContent = "";
    const { reference, cause, hint } = JSON.parse(sending.responseText || "{}");
    if (reference) add(reference);
    else window.playground.toast(cause ?? file.name, hint);
  });
  sending.open("POST", `./adapter?name=${encodeURIComponent(file.name)}`);
  sending.send(file);
}

/* -- trigger words: put in at the cursor, and only what was put in is taken out ------- */

const prompt = () => document.querySelector("#prompt textarea");
const inserted = new Map();
let marked = "";

function toggleWord(word) {
  const field = prompt();
  const put = inserted.get(word);
  const at = put ? field.value.lastIndexOf(put) : -1;
  if (at >= 0) {
    inserted.delete(word);
    write(field, field.value.slice(0, at), field.value.slice(at + put.length));
  } else if (!holds(field.value, word)) insert(field, word);
  mark();
}

function insert(field, word) {
  const [from, to] = [field.selectionStart, field.selectionEnd];
  const before = field.value.slice(0, from);
  const after = field.value.slice(to);
  const put = (/[^\s,]$/.test(before) ? ", " : "") + word + (comma(after) ?? "");
  inserted.set(word, put);
  write(field, before + put, after);
}

/* What separates a word from the text behind it: nothing at the end or before another comma. */
const comma = (after) =>
  /^[^\s,]/.test(after) ? ", " : /^\s+[^\s,]/.test(after) ? "," : null;

function write(field, before, after) {
  field.value = before + after;
  field.setSelectionRange(before.length, before.length);
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

const holds = (text, word) => text.toLowerCase().includes(word.toLowerCase());

function mark() {
  const text = prompt()?.value ?? "";
  for (const chip of list.querySelectorAll(".chip"))
    chip.setAttribute("aria-pressed", String(holds(text, chip.dataset.trigger)));
  marked = text;
}
setInterval(() => (prompt()?.value ?? "") !== marked && mark(), 250); // a restored prompt fires no event

/* -- start ------------------------------------------------------------------------------ */

async function measure() {
  frame = await server.slot_frame({ backend: backend() });
  if (!adding.childElementCount) adding.innerHTML = frame.add;
  for (const range of list.querySelectorAll(".slot-range"))
    Object.assign(range, { min: frame.low, max: frame.high });
  draw();
}

document.addEventListener("change", async (event) => {
  if (!event.target.closest("#backend")) return;
  await measure();
  rows.forEach(look);
});

watch("value", () => take(props.value));
window.playground.adapters = {
  add,
  upload,
  memory,
  remember,
  paths: () => rows.map((row) => row.path),
};
measure().then(() => take(props.value));
