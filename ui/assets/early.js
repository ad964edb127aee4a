/* Runs before Gradio: the chosen language and theme, and what the other scripts share. */
window.playground = (() => {
  const cookie = (name) =>
    document.cookie.split("; ").find((c) => c.startsWith(`${name}=`))?.split("=")[1];
  const chosen = cookie("playground_language");
  if (chosen) {
    const tag = chosen === "zh" ? "zh-CN" : "en";
    Object.defineProperty(navigator, "language", { get: () => tag });
    Object.defineProperty(navigator, "languages", { get: () => [tag] });
  }
  const language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";

  function switchLanguage() {
    const other = language === "zh" ? "en" : "zh";
    document.cookie = `playground_language=${other}; Path=/; Max-Age=31536000; SameSite=Lax`;
    location.reload();
  }

  const saved = () => localStorage.getItem("playground-theme");
  const applyTheme = (theme) => document.body.classList.toggle("dark", theme === "dark");
  function switchTheme() {
    const theme = document.body.classList.contains("dark") ? "light" : "dark";
    localStorage.setItem("playground-theme", theme);
    applyTheme(theme);
  }
  if (saved()) {
    /* Gradio follows the system when it mounts; the person's choice comes after. */
    const keep = new MutationObserver(() => {
      const dark = document.body.classList.contains("dark");
      if (saved() && dark !== (saved() === "dark")) applyTheme(saved());
    });
    document.addEventListener("DOMContentLoaded", () => {
      applyTheme(saved());
      keep.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    });
  }

  function toast(cause, hint) {
    const note = document.createElement("div");
    note.className = "note-toast";
    note.setAttribute("role", "alert");
    const strong = document.createElement("strong");
    strong.textContent = cause;
    const text = document.createElement("span");
    text.textContent = hint ?? "";
    note.append(strong, text);
    note.addEventListener("click", () => note.remove());
    document.body.append(note);
    setTimeout(() => note.remove(), 9000);
  }

  return { language, switchLanguage, switchTheme, toast };
})();
