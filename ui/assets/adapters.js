/* The grid asks for its pages itself: when it is first seen, and when a filter changes. */
const part = (name) => element.querySelector(`.finder-${name}`);
const group = (name) => element.querySelector(`[data-group="${name}"]`);
const cardsOf = (name) => group(name).querySelector(".adapter-cards");
const moreOf = (name) => element.querySelector(`[data-more="${name}"]`);
const offsets = { turbo: 0, base: 0 };
let author = "";
let turn = 0;
let visible = false;
let begun = false;

function query(base) {
  const values = { text: part("text").value, author, base, offset: offsets[base] };
  for (const control of element.querySelectorAll(".finder-bar [name]"))
    values[control.name] = control.type === "checkbox" ? control.checked : control.value;
  return values;
}

async function load(base = "turbo", more = false) {
  if (!part("text")) return;
  if (!more) offsets[base] = 0;
  const mine = ++turn;
  group(base).setAttribute("aria-busy", "true");
  const page = await server.find_adapters(query(base));
  if (mine !== turn) return; // a newer question is on its way
  group(base).removeAttribute("aria-busy");
  group(base).hidden = false;
  const cards = cardsOf(base);
  if (more) cards.insertAdjacentHTML("beforeend", page.html);
  else cards.innerHTML = page.html;
  offsets[base] += page.count;
  moreOf(base).hidden = !page.more;
  if (base === "turbo" && !page.more && group("base").hidden) moreOf("base").hidden = false;
  part("note").textContent = page.note;
  part("note").hidden = !page.note;
  mark();
}

function again() {
  group("base").hidden = true;
  moreOf("base").hidden = true;
  part("author").hidden = !author;
  part("author").textContent = author ? `${author} ×` : "";
  yours();
  load();
}

/* Starred first, then what was used last; only while nothing is searched for. */
async function yours() {
  const known = Object.entries(window.playground.adapters.memory());
  const repo = (key) => key.split("/").slice(0, 2).join("/");
  const order = known
    .filter(([key, facts]) => key.includes("/") && !key.includes(":") && (facts.star || facts.used))
    .sort(([, a], [, b]) => (b.star ? 1 : 0) - (a.star ? 1 : 0) || (b.used ?? 0) - (a.used ?? 0));
  const ids = [...new Set(order.map(([key]) => repo(key)))].slice(0, 12);
  const wanted = ids.length && !part("text").value && !author;
  group("yours").hidden = !wanted;
  if (!wanted) return;
  const { html } = await server.your_adapters({ ids });
  cardsOf("yours").innerHTML = html;
  group("yours").hidden = !html;
  mark();
}

/* Which cards are in a slot, and which are starred. */
function mark() {
  const used = new Set((window.playground.adapters?.paths() ?? []).map(repoOf));
  const known = window.playground.adapters?.memory() ?? {};
  for (const card of element.querySelectorAll(".adapter-card")) {
    card.dataset.used = String(used.has(card.dataset.id));
    const star = card.querySelector("[data-star]");
    star.setAttribute("aria-pressed", String(Boolean(known[card.dataset.id]?.star)));
  }
}

function repoOf(path) {
  const parts = path.replace(/^https:\/\/[^/]+\//, "").replace(/^http:\/\/127[^/]+\//, "").split("/");
  return parts.slice(0, 2).join("/");
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { take, star, author: name, more } = button.dataset;
  if (take) window.playground.adapters.add(take);
  else if (star) {
    const { memory, remember } = window.playground.adapters;
    remember(star, { star: !memory()[star]?.star });
    mark();
  } else if (name) filterAuthor(name);
  else if (more) load(more, !group(more).hidden);
  else if (button === part("author")) filterAuthor("");
});

function filterAuthor(name) {
  author = name;
  again();
}

/* A picture that can't be had leaves the adapter's first letters. */
element.addEventListener(
  "error",
  ({ target }) => {
    if (target.tagName !== "IMG") return;
    const blank = document.createElement("span");
    blank.className = "adapter-blank";
    blank.textContent = target.closest(".adapter-card").querySelector(".adapter-name").textContent.slice(0, 2);
    target.replaceWith(blank);
  },
  true,
);

let typing;
element.addEventListener("input", (event) => {
  clearTimeout(typing);
  if (event.target === part("text")) typing = setTimeout(again, 250);
});
element.addEventListener("change", (event) => {
  if (event.target.closest(".finder-bar") && event.target !== part("text")) again();
});

/* Arrows walk over the cards, as they lie on the page. */
element.addEventListener("keydown", (event) => {
  const at = event.target.closest(".adapter-take");
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: "row", ArrowUp: "-row" }[event.key];
  if (!at || step === undefined) return;
  event.preventDefault();
  const all = [...element.querySelectorAll(".finder-group:not([hidden]) .adapter-take")];
  const columns = getComputedStyle(at.closest(".adapter-cards")).gridTemplateColumns.split(" ").length;
  const by = { row: columns, "-row": -columns }[step] ?? step;
  all[Math.min(Math.max(all.indexOf(at) + by, 0), all.length - 1)].focus();
});

/* Once it is seen and its tools are there, whichever comes last. */
function begin() {
  if (begun || !visible || !part("text")) return;
  begun = true;
  yours();
  load();
}

new IntersectionObserver((entries) => {
  visible = entries.some((entry) => entry.isIntersecting);
  begin();
}).observe(element);
watch("value", () => setTimeout(begin)); // when it has been drawn
document.addEventListener("adapters-changed", mark);
