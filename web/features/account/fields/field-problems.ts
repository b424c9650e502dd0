const EMAIL = /^[^\s@]+@[^\s@]+$/;
export const SHORTEST_PASSWORD = 8;
export const PASSWORD_RULE = `At least ${SHORTEST_PASSWORD} characters. Longer is better; a few words make a good password.`;
const LONGEST_PASSWORD_BYTES = 72;

/** What is wrong with an email address, as far as that shows without the server. */
export function emailProblem(email: string): string | undefined {
  if (!email.trim()) return "Enter your email address.";
  return EMAIL.test(email.trim()) ? undefined : "This is not an email address.";
}

/** What is wrong with a new password, as far as that shows without the server. */
export function passwordProblem(password: string): string | undefined {
  if (!password) return "Enter a password.";
  if (Array.from(password).length < SHORTEST_PASSWORD)
    return `The password needs at least ${SHORTEST_PASSWORD} characters.`;
  const bytes = new TextEncoder().encode(password).length;
  return bytes > LONGEST_PASSWORD_BYTES ? "The password is too long: at most 72 letters of plain Latin." : undefined;
}
