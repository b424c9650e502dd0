// What the database raises is answered as a hosted project does: the auth server tells what a trigger refuses with a code
// that names an HTTP status; PostgREST tells every error, with its code, details and hint. Lite answers 500 to what it does
// not know, and hands the error to the log alone.
import { AsyncLocalStorage } from "node:async_hooks";

const REST = "/rest/v1/";
const OWN_STATUS = /^PT([2-5]\d\d)$/;
const REFUSAL = /^PT4\d\d$/;
const SQLSTATE = /^[0-9A-Z]{5}$/;
// The status of a code that begins so; the first that fits (https://docs.postgrest.org/en/stable/references/errors.html).
const STATUSES = [
  ["08", 503], ["09", 500], ["0L", 403], ["0P", 403], ["23503", 409], ["23505", 409], ["25006", 405], ["25", 500], ["28", 403],
  ["2D", 500], ["38", 500], ["39", 500], ["3B", 500], ["40", 500], ["53400", 500], ["53", 503], ["54", 500], ["55", 500],
  ["57", 500], ["58", 500], ["F0", 500], ["HV", 500], ["P0001", 400], ["P0", 500], ["XX", 500],
];
const answering = new AsyncLocalStorage();

/** Whether what is to be logged is such an error, which the answer under way then tells. */
export function noteError(parts) {
  const noted = answering.getStore();
  const raised = noted && parts.find((part) => part instanceof Error && noted.told.test(part.code ?? ""));
  if (!raised) return false;
  noted.error = raised;
  return statusOf(raised.code) < 500;
}

/** The answer to a request, or in its place the error that was noted while it was made. */
export async function tellErrors({ pathname }, answer) {
  const isRest = pathname.startsWith(REST);
  const noted = { told: isRest ? SQLSTATE : REFUSAL };
  const response = await answering.run(noted, answer);
  if (!noted.error || response.status !== 500) return response;
  const { code, message, detail = null, hint = null } = noted.error;
  const status = statusOf(code);
  return Response.json(isRest ? { code, details: detail, hint, message } : { code, message, detail, hint }, { status });
}

function statusOf(code) {
  const own = OWN_STATUS.exec(code);
  return own ? Number(own[1]) : (STATUSES.find(([beginning]) => code.startsWith(beginning))?.[1] ?? 400);
}
