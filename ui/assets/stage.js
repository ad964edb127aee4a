/* The stage listens by itself: it asks for changes, waits, and shows what comes. */
const stage = element.querySelector(".stage");
const strip = element.querySelector(".strip");
const zoom = element.querySelector(".zoom");
const jobs = new Map();
const visit = Date.now();
let current = null;
let since = 0;
let epoch = "";

const visible = () =>
  document.hidden
    ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }))
    : null;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function listen() {
  let misses = 0;
  while (element.isConnected) {
    await visible();
    try {
      take(await server.changes({ since, epoch, visit }));
      misses = 0;
      document.body.classList.remove("offline");
    } catch {
      misses += 1;
      if (misses > 1) document.body.classList.add("offline");
      await pause(Math.min(500 * 2 ** misses, 8000));
    }
  }
}

function take(news) {
  if (!news || !news.epoch) throw new Error("no answer");
  const first = since === 0;
  if (news.epoch !== epoch) jobs.clear();
  ({ since, epoch } = news);
  for (const job of news.jobs) {
    const known = jobs.get(job.id);
    jobs.set(job.id, job);
    if (!known) current = job.id;
    if (!known && !first) trigger("began", { job: job.id });
    if (known && !known.settled && job.settled) trigger("settled", { job: job.id });
    showThumb(job);
    if (job.id === current) show(job.id);
  }
  if (first && !jobs.size) stage.innerHTML = news.empty;
  const spent = document.querySelector("#spent");
  if (spent) spent.textContent = news.spent;
}

function show(id) {
  const job = jobs.get(id);
  if (!job) return;
  current = id;
  const sameJob = stage.firstElementChild?.dataset.job === id;
  const open = sameJob ? [...stage.querySelectorAll("details")].map((d) => d.open) : [];
  const focused = sameJob && document.activeElement?.dataset?.action;
  const scrolled = stage.scrollTop;
  stage.innerHTML = job.panel;
  stage.querySelectorAll("details").forEach((d, n) => (d.open = open[n] ?? false));
  if (focused) stage.querySelector(`[data-action="${focused}"]`)?.focus();
  if (sameJob) stage.scrollTop = scrolled;
  strip.querySelectorAll("[data-show]").forEach((thumb) =>
    thumb.setAttribute("aria-current", String(thumb.dataset.show === id)),
  );
  stamp();
}

function showThumb(job) {
  const holder = document.createElement("template");
  holder.innerHTML = job.thumb;
  const old = strip.querySelector(`[data-show="${job.id}"]`);
  if (old) old.replaceWith(holder.content);
  else strip.prepend(holder.content);
  while (strip.children.length > 24) strip.lastElementChild.remove();
  strip
    .querySelector(`[data-show="${job.id}"]`)
    .setAttribute("aria-current", String(job.id === current));
}

/* Times run here: the server says how old something was, never what time it is. */
function stamp() {
  const now = performance.now();
  for (const clock of stage.querySelectorAll("[data-elapsed]"))
    clock.dataset.from ??= String(now - 1000 * Number(clock.dataset.elapsed));
  for (const button of stage.querySelectorAll("[data-countdown]"))
    button.dataset.until ??= String(now + 1000 * Number(button.dataset.countdown));
  for (const clock of stage.querySelectorAll("[data-left]")) estimate(clock, now);
  tick();
}

/* When a job will be done, by its own pace: from the first step that was seen to the last one. */
let pace = { job: null };
function estimate(clock, now) {
  const { value, max } = clock.parentElement.querySelector("progress") ?? {};
  if (!(max > 1)) return;
  if (pace.job !== current || value < pace.value) pace = { job: current, value, from: now };
  else if (value > pace.value && value < max)
    clock.dataset.ends = String(now + ((now - pace.from) / (value - pace.value)) * (max - value));
}

function tick() {
  const now = performance.now();
  for (const clock of stage.querySelectorAll("[data-from]"))
    clock.textContent = [
      `${((now - Number(clock.dataset.from)) / 1000).toFixed(1)} s`,
      ...(Number(clock.dataset.ends) > now ? [left(clock, now)] : []),
    ].join(" · ");
  const price = document.querySelector("#generate")?.textContent.split("·")[1];
  for (const run of stage.querySelectorAll(".example-run")) {
    run.dataset.label ??= run.textContent;
    run.textContent = price ? `${run.dataset.label} · ${price.trim()}` : run.dataset.label;
  }
  for (const button of stage.querySelectorAll("[data-until]")) {
    const left = Math.ceil((Number(button.dataset.until) - now) / 1000);
    button.dataset.label ??= button.textContent;
    button.disabled = left > 0;
    button.textContent = left > 0 ? `${button.dataset.label} · ${left} s` : button.dataset.label;
  }
}

function left(clock, now) {
  return clock.dataset.left.replace("{}", Math.ceil((Number(clock.dataset.ends) - now) / 1000));
}
setInterval(tick, 100);

async function act(action, job) {
  const answer = await server.act({ action, job });
  if (answer?.cause) window.playground.toast(answer.cause, answer.hint);
}

element.addEventListener("click", (event) => {
  const target = event.target.closest("button, [data-copy]");
  if (!target) return;
  const { show: id, action, zoom: picture, prompt, copy } = target.dataset;
  if (id) show(id);
  else if (prompt) trigger("example", { prompt });
  else if (picture !== undefined) enlarge(Number(picture));
  else if (copy) navigator.clipboard?.writeText(copy);
  else if (target.classList.contains("copy"))
    navigator.clipboard?.writeText(target.parentElement.querySelector("pre").textContent);
  else if (action === "restore") trigger("restore", { job: current });
  else if (action === "key") window.playground.openKey();
  else if (action) {
    target.disabled = action === "stop";
    act(action, current);
  }
});

/* Enlarged: arrows walk through the images of the job, Esc closes (the dialog's own). */
function enlarge(index) {
  const pictures = [...stage.querySelectorAll("[data-zoom] img")];
  const at = (index + pictures.length) % pictures.length;
  const image = pictures[at].cloneNode();
  zoom.replaceChildren(image);
  zoom.dataset.at = String(at);
  if (!zoom.open) zoom.showModal();
}
zoom.addEventListener("click", () => zoom.close());
zoom.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) enlarge(Number(zoom.dataset.at) + step);
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
    event.preventDefault();
    document.querySelector("#generate")?.click();
  }
  if (event.key === "Escape" && !document.querySelector("dialog[open]"))
    stage.querySelector('[data-action="stop"]')?.click();
});

/* An image dropped anywhere gives back its recipe; an adapter goes into a slot. */
const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!holdsFile(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", async (event) => {
  document.body.classList.remove("dropping");
  if (!holdsFile(event)) return;
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file.name.toLowerCase().endsWith(".safetensors"))
    return window.playground.adapters.upload(file);
  const answer = await fetch("./recipe", { method: "POST", body: file });
  const found = await answer.text();
  const { cause, hint } = JSON.parse(found);
  if (cause) window.playground.toast(cause, hint);
  else trigger("dropped", { found }); // as text: Gradio takes any {path} for a file of its own
});

listen();
