import type { Catalogue } from "@/lib/catalogue";

/** What the pages for signing in say. Names in braces are places of elements: see RichText. */
export const sentences = {
  titles: {
    logIn: "Log in",
    signUp: "Sign up",
    createAccount: "Create your account",
    confirmEmail: "Confirm your email",
    forgotPassword: "Forgot your password?",
    resetPassword: "Choose a new password",
    callback: "Signing you in",
  },
  links: {
    logIn: "Log in",
    signUp: "Sign up",
    forgotPassword: "Forgot password?",
    sendNewLink: "Send a new link",
    backToLogIn: "Back to log in",
  },
  fields: {
    name: "Name",
    nameHint: "How others see you. You can leave it empty.",
    email: "Email",
    emailMissing: "Enter your email address.",
    emailMalformed: "This is not an email address.",
    password: "Password",
    newPassword: "New password",
    passwordRule: (shortest: number) =>
      `At least ${shortest} characters. Longer is better; a few words make a good password.`,
    passwordToEnter: "Enter your password.",
    passwordMissing: "Enter a password.",
    passwordTooShort: (shortest: number) => `The password needs at least ${shortest} characters.`,
    passwordTooLong: (longest: number) => `The password is too long: at most ${longest} letters of plain Latin.`,
    showCharacters: "Show characters",
    hideCharacters: "Hide characters",
  },
  logIn: {
    submit: "Log in",
    noAccountYet: "No account yet? {signUp}",
    ended: "Your sign-in has ended. Log in to go on where you were.",
    isSignedIn: "You are signed in. One moment…",
  },
  signUp: {
    submit: "Sign up",
    haveAccount: "Have an account? {logIn}",
    linkSent: "We have sent a link to {email}. Open it to finish your account; you can close this page.",
    noMail:
      "Nothing there after a few minutes? Look among unwanted mail, and check the address. If the address has an account already, no mail is sent: log in instead.",
    confirmed: "Confirmed? {logIn}",
  },
  forgotPassword: {
    hint: "We send a link with which you choose a new one.",
    submit: "Send link",
    linkSent: "If {email} has an account, a link is on its way there. Open it to choose a new password.",
  },
  useAnotherAddress: "Use another address",
  resetPassword: {
    needsLink: "To choose a new password, open the link of the mail, or ask for a new one.",
    account: "For {email}",
    submit: "Save password",
    changed: "Your password is changed.",
  },
  callback: {
    noLink: "This page belongs to a link, and there is none in its address.",
    unnamedAccount: "another account",
    otherAccount: "You are signed in as {current}. This link belongs to {linked}.",
    continueAs: (account: string) => `Continue as ${account}`,
    stay: (account: string) => `Stay ${account}`,
    oneMoment: "One moment…",
  },
  /** Why a sign-in by a link or a provider failed: our reasons, then the codes of Supabase's auth server. */
  linkReasons: {
    SOCIAL_LOGIN_FAILED: "The sign-in with the provider was not completed.",
    PROVIDER_DISABLED: "This way to sign in is not switched on.",
    otp_expired: "This link has expired or has been used before.",
    access_denied: "The sign-in was cancelled.",
    user_banned: "This account is blocked.",
    provider_email_needs_verification: "The provider has not confirmed your email address yet.",
    signup_disabled: "New accounts are not accepted.",
  },
  otherLinkReason: "The sign-in did not work.",
  mailHint:
    "This installation keeps its mails instead of sending them. Run {command} in a terminal to read the newest one.",
  social: {
    or: "or",
    continueWith: (provider: string) => `Continue with ${provider}`,
  },
} as const satisfies Catalogue;
