// How refusals look: those of the auth server and those of storage, each as on a hosted project.

/** A refusal of the auth server: {code, error_code, msg}. */
export function authRefusal(status, error_code, msg, headers = {}) {
  return Response.json({ code: status, error_code, msg }, { status, headers: { "x-sb-error-code": error_code, ...headers } });
}

/** A refusal of storage: HTTP 400, with the status that it means in the body; 501 for what does not run here. */
export function storageRefusal(status, error, code, message) {
  return Response.json({ statusCode: String(status), error, code, message }, { status: status === 501 ? 501 : 400 });
}
