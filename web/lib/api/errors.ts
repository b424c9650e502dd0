/** What a request's failure is to the rest of the app: one class, whose message is a sentence for people. */

import { sentences } from "./sentences";

type ErrorFields = {
  code: number;
  status: string;
  reason: string;
  requestId?: string | null;
  metadata?: Record<string, string>;
  retryAfterSeconds?: number | null;
};

export class ApiError extends Error {
  override readonly name = "ApiError";
  /** HTTP status; 0 when no answer came. */
  readonly code: number;
  /** Canonical status, as NOT_FOUND. */
  readonly status: string;
  /** What went wrong, from docs/errors.md; NETWORK when no answer came, UNKNOWN when the answer was none of ours. */
  readonly reason: string;
  /** With which operators find the request in their logs. */
  readonly requestId: string | null;
  /** Values of the error, such as the `field` it is about. */
  readonly metadata: Record<string, string>;
  /** How long to wait before another try. */
  readonly retryAfterSeconds: number | null;

  constructor(message: string, fields: ErrorFields, options?: ErrorOptions) {
    super(message, options);
    this.code = fields.code;
    this.status = fields.status;
    this.reason = fields.reason;
    this.requestId = fields.requestId ?? null;
    this.metadata = fields.metadata ?? {};
    this.retryAfterSeconds = fields.retryAfterSeconds ?? null;
  }

  /** The error for a request that got no answer. */
  static network(cause?: unknown): ApiError {
    return new ApiError(sentences.unreachable, { code: 0, status: "UNAVAILABLE", reason: "NETWORK" }, { cause });
  }

  /** The error that a body stands for; one of its own for bodies that are none of the contract's. */
  static fromBody(code: number, body: unknown, headers?: Headers): ApiError {
    const requestId = headers?.get("x-request-id") ?? null;
    const retryAfterSeconds = secondsOf(headers?.get("retry-after"));
    const error = isObject(body) && isObject(body.error) ? body.error : null;
    if (!error) {
      const message = code >= 500 || code === 429 ? sentences.broken : sentences.notUnderstood;
      return new ApiError(message, { code, status: "UNKNOWN", reason: "UNKNOWN", requestId, retryAfterSeconds });
    }
    const detail: unknown = Array.isArray(error.details) ? error.details[0] : null;
    const metadata = isObject(detail) ? textsOf(detail.metadata) : {};
    return new ApiError(textOf(error.message) ?? sentences.broken, {
      code,
      status: textOf(error.status) ?? "UNKNOWN",
      reason: (isObject(detail) && textOf(detail.reason)) || "UNKNOWN",
      requestId,
      metadata,
      retryAfterSeconds: retryAfterSeconds ?? secondsOf(metadata.retry_after_seconds),
    });
  }

  /** Whether no answer came at all. */
  get isNetwork(): boolean {
    return this.code === 0;
  }

  /** The field of the form that the error is about, without the message that holds it: `username`, not `profile.username`. */
  get field(): string | null {
    return this.metadata.field?.split(".").at(-1) ?? FIELD_OF_REASON[this.reason] ?? null;
  }

  /** Whether the same request may well succeed a little later. */
  get isRetryable(): boolean {
    return this.code === 0 || this.code === 429 || this.code === 502 || this.code === 503 || this.code === 504;
  }
}

// Reasons that speak of one field without naming it.
const FIELD_OF_REASON: Readonly<Record<string, string>> = {
  EMAIL_TAKEN: "email",
  EMAIL_REJECTED: "email",
  SIGN_UP_NOT_INVITED: "email",
  SIGN_UP_DOMAIN_REFUSED: "email",
  WEAK_PASSWORD: "password",
  SAME_PASSWORD: "password",
  OTP_INVALID: "token",
  USERNAME_TAKEN: "username",
  INVALID_USERNAME: "username",
};

/** The error that an answer stands for. Takes the body when it has been read already, else reads it. */
export async function errorOf(response: Response, body?: unknown): Promise<ApiError> {
  return ApiError.fromBody(response.status, body ?? (await response.json().catch(() => null)), response.headers);
}

/** Any failure as an ApiError; what is none of a request becomes one with a sentence that promises nothing. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  const fields = { code: -1, status: "UNKNOWN", reason: "UNKNOWN" };
  return new ApiError(sentences.pageFailed, fields, { cause: error });
}

/** Whether a request was given up on purpose, by whoever began it. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

function secondsOf(text: string | null | undefined): number | null {
  if (!text) return null;
  if (/^\d+$/.test(text)) return Number(text);
  const moment = Date.parse(text);
  return Number.isNaN(moment) ? null : Math.max(0, Math.ceil((moment - Date.now()) / 1000));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

function textsOf(value: unknown): Record<string, string> {
  if (!isObject(value)) return {};
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, String(each)]));
}
