// Keeps each e-mail as a JSON file that only its owner can read, in place of sending it.
import { AsyncLocalStorage } from "node:async_hooks";
import { mkdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";

/** The redirect_to of the request being answered: Lite forgets it when it writes the link of an e-mail. */
export const requestedRedirect = new AsyncLocalStorage();

const LINK = /https?:\/\/[^\s<>"')]+/g;
const CODE = /\b\d{6,10}\b/;

/** An e-mail driver for Lite. `siteUrl` is what Lite puts before /auth/v1, `apiUrl` is where that path is really served. */
export class FileMailDriver {
  #folder;
  #siteUrl;
  #apiUrl;
  #count = 0;

  constructor({ folder, siteUrl, apiUrl }) {
    this.#folder = folder;
    this.#siteUrl = siteUrl;
    this.#apiUrl = apiUrl;
  }

  async send({ to, subject, text = "" }) {
    const links = (text.match(LINK) ?? []).map((link) => this.#correct(link));
    const body = text.replace(LINK, (link) => this.#correct(link));
    const mail = {
      to,
      subject,
      sent_at: new Date().toISOString(),
      code: text.replace(LINK, "").match(CODE)?.[0] ?? null,
      links,
      text: body,
    };
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    this.#count += 1;
    const stamp = mail.sent_at.replace(/[:.]/g, "-");
    const name = `${stamp}-${process.pid}-${String(this.#count).padStart(4, "0")}.json`;
    const temporary = path.join(this.#folder, `.${name}`);
    await writeFile(temporary, `${JSON.stringify(mail, null, 2)}\n`, { mode: 0o600 });
    await rename(temporary, path.join(this.#folder, name));
  }

  #correct(link) {
    if (!link.startsWith(`${this.#siteUrl}/auth/v1/`)) return link;
    const url = new URL(this.#apiUrl + link.slice(this.#siteUrl.length));
    const redirect = requestedRedirect.getStore();
    if (redirect) url.searchParams.set("redirect_to", redirect); // checked against the allow-list when the link is used
    return url.toString();
  }
}
