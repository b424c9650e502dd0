// The mails of the auth server: written from the templates that hosted projects use as well (supabase/templates), and
// kept as JSON files that only their owner can read, in place of being sent.
import { AsyncLocalStorage } from "node:async_hooks";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";

/** The redirect_to of the request being answered, once it is known to be allowed: Lite forgets it when it writes a mail. */
export const requestedRedirect = new AsyncLocalStorage();

const HREF = /href="([^"]*)"/g;
const VARIABLE = /\{\{ \.(\w+) \}\}/g;
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&" };

/**
 * Sends the mails that Lite asks for; it takes the place of Lite's own mailer.
 *
 * seal: makes of the hash of a code what stands in a link. onSent: is told the column whose code is new, and the address.
 */
export class Mailer {
  #folder;
  #templates;
  #siteUrl;
  #seal;
  #onSent;
  #count = 0;

  constructor({ folder, templates, siteUrl, seal, onSent }) {
    this.#folder = folder;
    this.#templates = templates;
    this.#siteUrl = siteUrl;
    this.#seal = seal;
    this.#onSent = onSent;
  }

  async sendConfirmation(email, hash, code) {
    await this.#send("confirmation", { to: email, hash, code, column: "confirmation_token" });
  }

  async sendRecovery(email, hash, code) {
    await this.#send("recovery", { to: email, hash, code, column: "recovery_token" });
  }

  async sendMagicLink(email, hash, code) {
    await this.#send("magic_link", { to: email, hash, code, column: "recovery_token" });
  }

  /** To the present address, and where both must agree (`tokenHashNew`) to the new one too, each with a code of its own. */
  async sendEmailChange(email, hash, code, { currentEmail, newEmail, tokenNew, tokenHashNew }) {
    const change = { email: currentEmail, newEmail };
    const column = tokenHashNew ? "email_change_token_current" : "email_change_token_new";
    await this.#send("email_change", { to: email, hash, code, column, ...change });
    if (!tokenHashNew) return;
    const second = { to: newEmail, hash: tokenHashNew, code: tokenNew, column: "email_change_token_new" };
    await this.#send("email_change", { ...second, ...change });
  }

  async sendReauthentication(email, code) {
    await this.#send("reauthentication", { to: email, hash: "", code, column: "reauthentication_token" });
  }

  /** A mail that cannot be kept is logged, and no request fails by it: only those for registered addresses would. */
  async #send(kind, mail) {
    try {
      await this.#write(kind, mail);
    } catch (error) {
      console.error(`The mail "${kind}" was not kept: ${error.code ?? error.name}. Is the disk full?`);
    }
  }

  async #write(kind, { to, hash, code, column, email = to, newEmail = to }) {
    const html = render(await readFile(path.join(this.#templates, `${kind}.html`), "utf8"), {
      SiteURL: this.#siteUrl,
      RedirectTo: requestedRedirect.getStore() ?? this.#siteUrl,
      Token: code,
      TokenHash: this.#seal(hash),
      Email: email,
      NewEmail: newEmail,
      SendingTo: to,
    });
    this.#onSent(column, to);
    await this.#keep({
      to,
      subject: unescapeHtml(/<title>(.*?)<\/title>/s.exec(html)[1].trim()),
      sent_at: new Date().toISOString(),
      code,
      links: [...html.matchAll(HREF)].map(([, address]) => unescapeHtml(address)),
      text: textOf(html),
    });
  }

  async #keep(mail) {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    this.#count += 1;
    const stamp = mail.sent_at.replace(/[:.]/g, "-");
    const name = `${stamp}-${process.pid}-${String(this.#count).padStart(4, "0")}.json`;
    const temporary = path.join(this.#folder, `.${name}`);
    await writeFile(temporary, `${JSON.stringify(mail, null, 2)}\n`, { mode: 0o600 });
    await rename(temporary, path.join(this.#folder, name));
  }
}

/** Fills a template in as the auth server of a hosted project does (Go's html/template), as far as ours go. */
function render(template, values) {
  const value = (name) => {
    if (!Object.hasOwn(values, name)) throw new Error(`The mail templates know no {{ .${name} }}.`);
    return values[name];
  };
  const addresses = template.replace(HREF, (_, address) => {
    const filled = address.replace(VARIABLE, (__, name, place) => {
      const isParameter = /[?#]/.test(address.slice(0, place));
      return escapeHtml(isParameter ? encodeURIComponent(value(name)) : value(name));
    });
    return `href="${filled}"`;
  });
  return addresses.replace(VARIABLE, (_, name) => escapeHtml(value(name)));
}

/** What a person reads in a terminal: paragraphs, and after each link's words its address. */
function textOf(html) {
  const body = html.slice(html.indexOf("<body"));
  const lines = body
    .replace(/<a href="([^"]*)">(.*?)<\/a>/gs, "$2: $1")
    .replace(/<[^>]*>/g, "")
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  return unescapeHtml(lines.join("\n\n"));
}

const escapeHtml = (text) => text.replace(/[&<>"']/g, (sign) => Object.keys(ENTITIES).find((key) => ENTITIES[key] === sign));
const unescapeHtml = (text) => text.replace(/&(lt|gt|quot|#39|amp);/g, (entity) => ENTITIES[entity]);
