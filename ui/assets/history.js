/* The gallery asks for its pages itself, when it is seen and when something changed. */
let before = null;
let favourites = false;
let deleted = null;
let asked = 0;
const gone = new Set(); // an answer that was on its way when a card was deleted still has it

const part = (name) => element.querySelector(`.history-${name}`);
const cards = (job) => element.querySelectorAll(`.card[data-job="${CSS.escape(job)}"]`);

async function load(more = false) {
  if (!part("days")) return;
  const turn = ++asked;
  const query = part("search").value;
  const answer = await server.list_jobs({ query, favourites, before: more ? before : null });
  if (turn !== asked) return; // a newer question is on its way
  const days = part("days");
  if (more) append(days, answer.html);
  else days.innerHTML = answer.html;
  before = answer.before;
  gone.forEach(drop);
  part("more").hidden = !before;
}

function drop(job) {
  cards(job).forEach((card) => card.remove());
}

/* A day that continues on the next page stays one day. */
function append(days, html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const last = days.lastElementChild;
  const first = holder.content.firstElementChild;
  if (last && first && last.dataset.day === first.dataset.day) {
    last.querySelector(".cards").append(...first.querySelectorAll(".card"));
    first.remove();
  }
  days.append(holder.content);
}

let typing;
element.addEventListener("input", (event) => {
  if (!event.target.classList.contains("history-search")) return;
  clearTimeout(typing);
  typing = setTimeout(load, 200);
});

element.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("history-more")) return load(true);
  if (button.classList.contains("history-undo")) return undo();
  if (button.classList.contains("history-favourites")) {
    favourites = !favourites;
    button.setAttribute("aria-pressed", String(favourites));
    return load();
  }
  const card = button.closest(".card");
  if (card) act(button.dataset.action, card.dataset.job);
});

async function act(action, job) {
  if (action === "restore") return trigger("restore", { job });
  const answer = await server.act({ action, job });
  if (answer?.cause) return window.playground.toast(answer.cause, answer.hint);
  if (action === "favourite") cards(job).forEach(toggleStar);
  if (action === "delete") {
    gone.add(job);
    drop(job);
    deleted = job;
    part("deleted").hidden = false;
    part("undo").focus();
  }
}

function toggleStar(card) {
  const star = card.querySelector('[data-action="favourite"]');
  star.setAttribute("aria-pressed", String(star.getAttribute("aria-pressed") !== "true"));
}

async function undo() {
  await server.act({ action: "undelete", job: deleted });
  gone.delete(deleted);
  part("deleted").hidden = true;
  load();
}

new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) load();
}).observe(element);
watch("value", () => load());
