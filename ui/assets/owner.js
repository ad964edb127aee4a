/* The theme that was chosen on the page, or the system's. */
document.body.classList.toggle(
  "dark",
  (localStorage.getItem("playground-theme") ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark",
);
