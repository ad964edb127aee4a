/* Key dialog, language and theme. The key leaves the page once and is not kept here. */
const dialog = () => element.querySelector(".key-dialog");
const field = () => element.querySelector("#key");

async function useKey(key) {
  const answer = await server.set_key({ key });
  field().value = "";
  if (answer.error) {
    element.querySelector(".key-error").textContent = answer.error;
    return;
  }
  const spent = element.querySelector("#spent").textContent;
  dialog().close();
  props.value = answer.html;
  queueMicrotask(() => (element.querySelector("#spent").textContent = spent));
  trigger("changed");
}

function openKey() {
  dialog().showModal();
  field().focus();
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "open-key") openKey();
  else if (button.id === "close-key") dialog().close();
  else if (button.id === "use-key") useKey(field().value);
  else if (button.id === "forget-key") useKey("");
  else if (button.id === "language") trigger("language");
  else if (button.id === "theme") window.playground.switchTheme();
});

element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.id === "key") useKey(field().value);
});

/* The line that says why a backend isn't ready offers the same dialog. */
document.addEventListener("click", (event) => {
  if (event.target.closest(".open-key")) openKey();
});

window.playground.openKey = openKey;
