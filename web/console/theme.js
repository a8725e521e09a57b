// Light, dark, or as the system has it: set before the first paint. A classic script, so that it runs before the styles are drawn.
(() => {
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem("evermesh-theme");
    } catch {
      return null; // storage is switched off: the system decides
    }
  };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
    window.dispatchEvent(new Event("themechange"));
  };
  show(kept());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("themechange")));
  window.theme = {
    /** "light", "dark" or "system". */
    get: () => root.dataset.theme ?? "system",
    set(theme) {
      try {
        localStorage.setItem("evermesh-theme", theme);
      } catch {
        // It holds for this page then.
      }
      show(theme);
    },
  };
})();
