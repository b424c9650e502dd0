// What a hosted project has and the embedded Supabase has not: each says so in JSON, which the clients can read. Where a
// hosted project can have it switched off, with the code that a hosted project answers with then. Never with 501 for accounts:
// Supabase's clients take it for a passing fault and try again.
import { authRefusal } from "./refusals.mjs";

const AUTH = "/auth/v1/";
const WORDS = "is not part of the embedded Supabase.";
// Whole parts of the address: the first that fits answers.
const PARTS = [
  [/^\/realtime\/v1(\/|$)/, "Realtime"],
  [/^\/functions\/v1(\/|$)/, "Edge Functions"],
  [/^\/graphql\/v1(\/|$)/, "GraphQL"],
];
const ROUTES = [
  [/^\w+ factors$/, 422, "mfa_totp_enroll_not_enabled", "Multi-factor authentication"],
  [/^\w+ factors\/[^/]+(\/\w+)?$/, 422, "mfa_totp_verify_not_enabled", "Multi-factor authentication"],
  [/^\w+ passkeys(\/|$)/, 404, "passkey_disabled", "Sign-in with passkeys"],
  [/^\w+ (sso|saml|scim)(\/|$)/, 404, "saml_provider_disabled", "Single sign-on (SAML 2.0)"],
  [/^\w+ user\/(identities|oauth)(\/|$)/, 404, "manual_linking_disabled", "Linking of identities by hand"],
  [/^\w+ oauth(\/|$)/, 404, "oauth_server_disabled", "The OAuth server"],
  [/^\w+ (admin|invite)(\/|$)/, 404, "not_implemented", "The admin API"],
];
const OTHERS = ["/rest/v1/", "/storage/v1/"];
// Whatever else is asked for below auth, Lite would answer with a page.
const KNOWN = new Set([
  "authorize", "callback", "health", "logout", "magiclink", "otp", "reauthenticate", "recover", "resend", "settings", "signup",
  "token", "user", "verify", ".well-known/jwks.json", ".well-known/openid-configuration",
]);
const GRANTS = new Set(["password", "refresh_token", "pkce"]);

/** The answer to a request for a part that does not run here; null for any other. */
export async function refuseMissing(request, { pathname, searchParams }) {
  const part = PARTS.find(([address]) => address.test(pathname));
  if (part) return Response.json({ code: "not_implemented", message: `${part[1]}: this ${WORDS}` }, { status: 501 });
  if (!pathname.startsWith(AUTH)) return OTHERS.some((each) => pathname.startsWith(each)) ? null : noSuchPath();
  const route = `${request.method} ${pathname.slice(AUTH.length)}`;
  const known = ROUTES.find(([address]) => address.test(route));
  if (known) return refusal(known[1], known[2], known[3]);
  if (!KNOWN.has(pathname.slice(AUTH.length))) return authRefusal(404, "not_found", "There is no such route.");
  switch (route) {
    case "POST token":
      return refuseGrant(searchParams.getAll("grant_type"));
    case "POST signup":
    case "POST otp":
    case "POST resend":
      return refuseAddressless(route, await request.clone().json().catch(() => null));
    case "PUT user": {
      const { phone } = (await request.clone().json().catch(() => null)) ?? {};
      return phone ? refusal(400, "phone_provider_disabled", "Sign-in by phone") : null;
    }
    default:
      return null;
  }
}

// Of several grants Lite takes one, and of none it says so itself.
function refuseGrant([grant, ...others]) {
  if (others.length > 0 || grant === undefined || GRANTS.has(grant)) return null;
  if (grant === "id_token") return refusal(400, "provider_disabled", "Sign-in with an ID token");
  return grant === "web3" ? refusal(422, "web3_provider_disabled", "Sign-in with a wallet") : null;
}

function refuseAddressless(route, body) {
  if (typeof body !== "object" || body === null || body.email || body.token_hash) return null;
  if (body.phone) return refusal(400, "phone_provider_disabled", "Sign-in by phone");
  if (route !== "POST signup" || body.password) return null;
  return refusal(422, "anonymous_provider_disabled", "Sign-in of anonymous users");
}

const noSuchPath = () => Response.json({ error: "requested path is invalid" }, { status: 404 });

function refusal(status, error_code, what) {
  return authRefusal(status, error_code, `${what}: this ${WORDS}`);
}
