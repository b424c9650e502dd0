import { render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { toast } from "@/components/ui/toaster";
import { FakeGateway, makeSession } from "@/features/sessions/testing/fake-gateway";
import type { User } from "@/lib/api/types";
import { AppShell } from "./app-shell";
import { Providers } from "./providers";

const router = { push: vi.fn(), replace: vi.fn() };

vi.mock("next/navigation", () => ({
  usePathname: () => window.location.pathname,
  useSearchParams: () => new URLSearchParams(window.location.search),
  useRouter: () => router,
}));

let gateway: FakeGateway;
let isWide: boolean;
let me: User;

beforeEach(() => {
  isWide = true;
  gateway = new FakeGateway([makeSession(2, { name: "Käsespätzle" }), makeSession(1, { name: "Taxes" })]);
  me = {
    id: makeSession(1).user_id,
    email: "ada@example.com",
    display_name: "Ada",
    role: "user",
    created_at: null,
    updated_at: null,
    last_login_at: null,
    profile: {
      username: "",
      full_name: "",
      avatar_url: "",
      status_text: "on holiday",
      status_emoji: "🌴",
      status_expires_at: null,
    },
    settings: { theme: "light", notification_preferences: null },
  };
  gateway.other = async (request) => {
    if (request.url.endsWith("/auth/logout")) return new Response(null, { status: 204 });
    if (!request.url.endsWith("/auth/me")) return new Response(null, { status: 404 });
    if (request.method === "PATCH") {
      const changes = (await request.json()) as { settings: User["settings"] };
      me = { ...me, settings: { notification_preferences: null, ...changes.settings } as User["settings"] };
    }
    return Response.json(me);
  };
  vi.stubGlobal("fetch", (input: RequestInfo, init?: RequestInit) => gateway.fetch(input, init));
  vi.stubGlobal("matchMedia", (query: string) => ({
    matches: query.includes("min-width") && isWide,
    addEventListener: vi.fn(),
    removeEventListener: vi.fn(),
  }));
  vi.stubGlobal("IntersectionObserver", class {});
  vi.stubGlobal(
    "ResizeObserver",
    class {
      observe() {}
      unobserve() {}
      disconnect() {}
    },
  );
  HTMLElement.prototype.scrollIntoView = () => {};
  window.history.replaceState(null, "", "/archive/?from=test");
});

afterEach(() => {
  toast.dismiss();
  localStorage.clear();
  vi.clearAllMocks();
  vi.unstubAllGlobals();
});

function signIn() {
  localStorage.setItem(
    "concerto-auth",
    JSON.stringify({
      access_token: "a.b.c",
      refresh_token: "r",
      expires_at: Math.floor(Date.now() / 1000) + 3600,
      expires_in: 3600,
      user: { id: me.id, email: me.email },
    }),
  );
}

function show() {
  render(
    <Providers>
      <AppShell>
        <h1>The page</h1>
      </AppShell>
    </Providers>,
  );
  return userEvent.setup();
}

test("who is signed out is sent to the log-in and comes back to where they were", async () => {
  show();
  await waitFor(() => expect(router.replace).toHaveBeenCalledWith("/login/?next=%2Farchive%2F%3Ffrom%3Dtest"));
  expect(screen.queryByText("The page")).toBeNull();
  expect(gateway.requests).toEqual([]);
});

test("a link leads where it should, also for who has logged out here before", async () => {
  localStorage.setItem("concerto-auth-left", "chosen");
  show();
  await waitFor(() => expect(router.replace).toHaveBeenCalledWith("/login/?next=%2Farchive%2F%3Ffrom%3Dtest"));
});

test("the shell holds the chats, the account and the page; the first stop of the Tab key skips to it", async () => {
  signIn();
  const user = show();
  const nav = screen.getByRole("navigation", { name: "Chats" });
  expect(await within(nav).findByRole("link", { name: "Käsespätzle" })).toBeVisible();
  expect(within(screen.getByRole("main")).getByRole("heading", { name: "The page" })).toBeVisible();
  expect(await within(nav).findByText("🌴 on holiday")).toBeVisible();
  await user.tab();
  expect(screen.getByRole("link", { name: "Skip to content" })).toHaveFocus();
  expect(screen.getByRole("link", { name: "Skip to content" })).toHaveAttribute("href", "#content");
});

test("the filter asks the server once for what was typed", async () => {
  signIn();
  const user = show();
  await screen.findByRole("link", { name: "Taxes" });
  await user.type(screen.getByRole("searchbox", { name: "Filter chats" }), "käse");
  await waitFor(() => expect(screen.queryByRole("link", { name: "Taxes" })).toBeNull());
  expect(screen.getByRole("link", { name: "Käsespätzle" })).toBeVisible();
  expect(gateway.requests.filter((request) => request.includes("query="))).toHaveLength(1);
  await user.clear(screen.getByRole("searchbox", { name: "Filter chats" }));
  await user.type(screen.getByRole("searchbox", { name: "Filter chats" }), "xyz");
  expect(await screen.findByText("No chat is named like “xyz”")).toBeVisible();
});

test("the list of chats that cannot be loaded says so, and tries again when asked", async () => {
  signIn();
  const works = gateway.fetch;
  const fails = async (input: RequestInfo) =>
    String(input instanceof Request ? input.url : input).includes("/sessions")
      ? Response.json(
          { error: { code: 403, status: "PERMISSION_DENIED", message: "You may not do this.", details: [] } },
          { status: 403, headers: { "X-Request-Id": "request-7" } },
        )
      : works(input);
  vi.stubGlobal("fetch", fails);
  const user = show();
  const alert = await screen.findByRole("alert");
  expect(alert).toHaveTextContent("The chats could not be loaded.You may not do this.Request id: request-7");
  vi.stubGlobal("fetch", works);
  await user.click(within(alert).getByRole("button", { name: "Try again" }));
  expect(await screen.findByRole("link", { name: "Taxes" })).toBeVisible();
});

test("the theme changes at once from the account menu and is stored in the account", async () => {
  signIn();
  const user = show();
  await screen.findByText("Ada");
  await user.click(screen.getByRole("button", { name: "Account menu" }));
  await user.click(await screen.findByRole("menuitemradio", { name: "Dark" }));
  expect(document.documentElement).toHaveClass("dark");
  await waitFor(() => expect(me.settings?.theme).toBe("dark"));
  expect(localStorage.getItem("concerto-theme")).toBe("dark");
});

test("the theme of the account is shown wherever it was chosen", async () => {
  signIn();
  localStorage.setItem("concerto-theme", "dark");
  show();
  await waitFor(() => expect(localStorage.getItem("concerto-theme")).toBe("light"));
  expect(document.documentElement).not.toHaveClass("dark");
});

test("the palette opens by Ctrl+K and finds chats by name and commands", async () => {
  signIn();
  const user = show();
  await screen.findByText("Ada");
  await user.keyboard("{Control>}k{/Control}");
  const input = await screen.findByRole("combobox", { name: "Chat or command" }, { timeout: 3000 });
  await user.type(input, "TAX");
  const chat = await screen.findByRole("option", { name: "Taxes" });
  await waitFor(() => expect(screen.queryByRole("option", { name: "Käsespätzle" })).toBeNull());
  await user.click(chat);
  expect(router.push).toHaveBeenCalledWith(`/chat/?id=${makeSession(1).id}`);
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  await user.keyboard("{Control>}k{/Control}");
  await user.type(await screen.findByRole("combobox", { name: "Chat or command" }), "usage{Enter}");
  expect(router.push).toHaveBeenLastCalledWith("/settings/?section=usage");
});

test("? lists the shortcuts", async () => {
  signIn();
  const user = show();
  await screen.findByText("Ada");
  await user.keyboard("?");
  const dialog = await screen.findByRole("dialog", { name: "Keyboard shortcuts" }, { timeout: 5000 });
  expect(within(dialog).getByText("Open the command palette")).toBeVisible();
});

test("on a narrow screen the chats are in a sheet", async () => {
  isWide = false;
  signIn();
  const user = show();
  expect(screen.queryByRole("navigation", { name: "Chats" })).toBeNull();
  await user.click(screen.getByRole("button", { name: "Open chats" }));
  const sheet = await screen.findByRole("dialog");
  await user.click(await within(sheet).findByRole("link", { name: "Taxes" }));
  expect(router.push).toHaveBeenCalledWith(`/chat/?id=${makeSession(1).id}`);
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
});

test("logging out ends the sign-in and goes to the log-in page", async () => {
  signIn();
  const user = show();
  await screen.findByText("Ada");
  await user.click(screen.getByRole("button", { name: "Account menu" }));
  await user.click(await screen.findByRole("menuitem", { name: "Log out" }));
  await waitFor(() => expect(router.replace).toHaveBeenCalledWith("/login/"));
  expect(localStorage.getItem("concerto-auth")).toBeNull();
});
