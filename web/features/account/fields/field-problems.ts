import { sentences } from "../sentences";

const EMAIL = /^[^\s@]+@[^\s@]+$/;
export const SHORTEST_PASSWORD = 8;
export const PASSWORD_RULE = sentences.fields.passwordRule(SHORTEST_PASSWORD);
const LONGEST_PASSWORD_BYTES = 72;
// Projects can choose longer ones than six digits.
const CODE = /^\d{6,10}$/;

/** What is wrong with an e-mail address, as far as that shows without the server. */
export function emailProblem(email: string): string | undefined {
  if (!email.trim()) return sentences.fields.emailMissing;
  return EMAIL.test(email.trim()) ? undefined : sentences.fields.emailMalformed;
}

/** What is wrong with a new password, as far as that shows without the server. */
export function passwordProblem(password: string): string | undefined {
  if (!password) return sentences.fields.passwordMissing;
  if (Array.from(password).length < SHORTEST_PASSWORD) return sentences.fields.passwordTooShort(SHORTEST_PASSWORD);
  const bytes = new TextEncoder().encode(password).length;
  return bytes > LONGEST_PASSWORD_BYTES ? sentences.fields.passwordTooLong(LONGEST_PASSWORD_BYTES) : undefined;
}

/** A mail's code without what people put between its digits. */
export function plainCode(code: string): string {
  return code.replace(/[\s-]/g, "");
}

/** What is wrong with a mail's code, as far as that shows without the server. */
export function codeProblem(code: string): string | undefined {
  if (!plainCode(code)) return sentences.fields.codeMissing;
  return CODE.test(plainCode(code)) ? undefined : sentences.fields.codeMalformed;
}
