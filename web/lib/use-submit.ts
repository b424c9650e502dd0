"use client";

import { type FormEvent, useCallback, useEffect, useRef, useState } from "react";
import { type ApiError, asApiError } from "@/lib/api/errors";

/** What is wrong with a form before it is sent: a sentence per field. */
export type FieldErrors = Readonly<Record<string, string | undefined>>;

export type Submission = {
  onSubmit: (event: FormEvent<HTMLFormElement>) => void;
  pending: boolean;
  /** What is wrong with the form as a whole; errors of its fields are with these. */
  error: ApiError | null;
  fieldErrors: FieldErrors;
  /** Seconds until the server takes another try; 0 when it does now. */
  waitSeconds: number;
};

type Options = {
  /** Names of the fields; an error about one of them is shown beside it. */
  fields: readonly string[];
  /** Looks at the values before anything is sent. */
  check?: () => FieldErrors;
  submit: () => Promise<void>;
};

/** The state of a form that is sent to the server. */
export function useSubmit({ fields, check, submit }: Options): Submission {
  const [pending, setPending] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const [fieldErrors, setFieldErrors] = useState<FieldErrors>({});
  const [waitSeconds, setWaitSeconds] = useCountdown();
  const form = useRef<HTMLFormElement | null>(null);
  const hasFieldError = Object.values(fieldErrors).some(Boolean);

  // Takes the person to the first field that needs them; the error itself is announced by its role.
  useEffect(() => {
    if (hasFieldError && fieldErrors) form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
  }, [hasFieldError, fieldErrors]);

  const send = async () => {
    const problems = check?.() ?? {};
    setError(null);
    setFieldErrors(problems);
    if (Object.values(problems).some(Boolean)) return;
    setPending(true);
    try {
      await submit();
    } catch (failure) {
      const apiError = asApiError(failure);
      if (apiError.code === 429 && apiError.retryAfterSeconds) setWaitSeconds(apiError.retryAfterSeconds);
      const { field } = apiError;
      if (field && fields.includes(field)) setFieldErrors({ [field]: apiError.message });
      else setError(apiError);
    } finally {
      setPending(false);
    }
  };

  const onSubmit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    form.current = event.currentTarget;
    if (!pending && waitSeconds === 0) void send();
  };
  return { onSubmit, pending, error, fieldErrors, waitSeconds };
}

function useCountdown(): [number, (seconds: number) => void] {
  const [until, setUntil] = useState(0);
  const [left, setLeft] = useState(0);
  useEffect(() => {
    if (until === 0) return;
    const tick = () => setLeft(Math.max(0, Math.ceil((until - performance.now()) / 1000)));
    tick();
    const timer = setInterval(tick, 500);
    return () => clearInterval(timer);
  }, [until]);
  const start = useCallback((seconds: number) => {
    setLeft(Math.ceil(seconds));
    setUntil(performance.now() + seconds * 1000);
  }, []);
  return [left, start];
}
