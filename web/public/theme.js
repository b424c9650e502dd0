// Sets the theme before the first paint, so that nothing flashes. Kept in step with lib/theme.ts.
(() => {
  let theme = "system";
  try {
    theme = localStorage.getItem("concerto-theme") || theme;
  } catch {
    // No storage: the device decides.
  }
  const dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.classList.toggle("dark", dark);
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
})();
