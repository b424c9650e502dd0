/**
 * What this browser has begun, and which links it has used up. Anybody can send a link that signs in to an account of
 * theirs; only a sign-in that was begun here is taken without asking. Where the browser keeps nothing, it asks.
 */

const MARK = "concerto-sign-in-mark";
const ASKED = "concerto-mails-asked";
const SPENT = "concerto-links-spent";
const MOST_KEPT = 10;
const ASKED_LIFE_MS = 24 * 3_600_000;
const SPENT_NAME_LENGTH = 24;

type Asked = { email: string; at: number };

/** Begins a sign-in with a provider. Returns a mark that comes back with its end, in the same tab. */
export function beginSignIn(): string {
  const mark = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
  write(() => window.sessionStorage, MARK, mark);
  return mark;
}

/** Whether a mark is the one of the sign-in that this tab has begun. It is forgotten by that. */
export function takeMark(mark: string | null): boolean {
  const kept = read(() => window.sessionStorage, MARK);
  if (mark === null || kept !== mark) return false;
  write(() => window.sessionStorage, MARK, null);
  return true;
}

/** Notes that a mail to an address, as the API has answered it, was asked for here, whose link or code therefore belongs here. */
export function noteMailAsked(email: string): void {
  keep<Asked>(ASKED, { email, at: Date.now() });
}

/** Whether a mail to the address was asked for here, within a day. */
export function hasAskedForMail(email: string): boolean {
  const since = Date.now() - ASKED_LIFE_MS;
  return kept<Asked>(ASKED).some((entry) => entry?.email === email && entry.at > since);
}

/** Notes that the link with this hash has done what it can. */
export function noteSpent(tokenHash: string): void {
  keep<string>(SPENT, nameOf(tokenHash));
}

/** Whether the link with this hash was used up here. */
export function isSpent(tokenHash: string): boolean {
  return kept<string>(SPENT).includes(nameOf(tokenHash));
}

/** Whether two addresses, each as the API, a token or a mail's link spells it, are one. */
export function isSameAddress(one: string | null | undefined, other: string | null | undefined): boolean {
  return Boolean(one) && one === other;
}

// The whole hash is nobody's business once the link is used.
const nameOf = (tokenHash: string) => tokenHash.slice(-SPENT_NAME_LENGTH);

function keep<T>(key: string, entry: T): void {
  const others = kept<T>(key).filter((each) => JSON.stringify(each) !== JSON.stringify(entry));
  write(() => window.localStorage, key, JSON.stringify([entry, ...others].slice(0, MOST_KEPT)));
}

function kept<T>(key: string): T[] {
  try {
    const entries: unknown = JSON.parse(read(() => window.localStorage, key) ?? "[]");
    return Array.isArray(entries) ? entries : [];
  } catch {
    return [];
  }
}

function read(storage: () => Storage, key: string): string | null {
  try {
    return storage().getItem(key);
  } catch {
    return null;
  }
}

function write(storage: () => Storage, key: string, value: string | null): void {
  try {
    if (value === null) storage().removeItem(key);
    else storage().setItem(key, value);
  } catch {
    // Then the person is asked.
  }
}
