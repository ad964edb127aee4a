/* Characters of the prompt against its limit. Asked by time: a restored prompt fires no event. */
const output = element.querySelector("output");
const limit = Number(output.dataset.limit);

setInterval(() => {
  const length = [...(document.querySelector("#prompt textarea")?.value ?? "")].length;
  const text = length ? `${length.toLocaleString()} / ${limit.toLocaleString()}` : "";
  if (output.textContent === text) return;
  output.textContent = text;
  output.dataset.over = String(length > limit);
}, 250);
