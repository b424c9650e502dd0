/** What the app is called; no translation changes it. */
export const APP_NAME = "Concerto";

/** The title of a page, as the browser's tab shows it. */
export function pageTitle(title: string): string {
  return `${title} · ${APP_NAME}`;
}
