import { QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Toaster, toast } from "@/components/ui/toaster";
import { createQueryClient } from "@/lib/query-client";
import { flushDeletions, UNDO_MS } from "../data/delete";
import { FakeGateway, makeSession } from "../testing/fake-gateway";
import { SessionList } from "./session-list";

vi.mock("next/navigation", () => ({
  usePathname: () => "/chat/",
  useSearchParams: () => new URLSearchParams(window.location.search),
  useRouter: () => ({ push: vi.fn(), replace: vi.fn() }),
}));

let gateway: FakeGateway;
let seen: (() => void)[];

beforeEach(() => {
  gateway = new FakeGateway([]);
  seen = [];
  vi.stubGlobal("fetch", (input: RequestInfo, init?: RequestInit) => gateway.fetch(input, init));
  vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: vi.fn(), removeEventListener: vi.fn() }));
  vi.stubGlobal(
    "IntersectionObserver",
    class {
      constructor(callback: (entries: { isIntersecting: boolean }[]) => void) {
        seen.push(() => callback([{ isIntersecting: true }]));
      }
      observe() {}
      disconnect() {}
    },
  );
  window.history.replaceState(null, "", "/chat/");
});

afterEach(async () => {
  await act(flushDeletions);
  act(() => void toast.dismiss());
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function show(sessions = gateway.sessions, archived = false) {
  gateway.sessions = sessions;
  render(
    <QueryClientProvider client={createQueryClient()}>
      <SessionList />
      {archived ? (
        <div data-testid="archive">
          <SessionList archived />
        </div>
      ) : null}
      <Toaster />
    </QueryClientProvider>,
  );
}

const links = () => screen.queryAllByRole("link").map((link) => link.textContent);

async function choose(name: string, item: string) {
  const user = userEvent.setup();
  await user.click(await screen.findByRole("button", { name: `Options for ${name}` }));
  await user.click(await screen.findByRole("menuitem", { name: item }));
  return user;
}

test("renames inline: Enter saves, with umlauts, and the chat becomes the newest", async () => {
  show([makeSession(2), makeSession(1)]);
  const user = await choose("Chat 1", "Rename");
  const field = screen.getByRole("textbox", { name: "Chat name" });
  expect(field).toHaveFocus();
  await user.clear(field);
  await user.type(field, "  Gru\u0308ße aus Köln {Enter}");
  await waitFor(() => expect(links()).toEqual(["Grüße aus Köln", "Chat 2"]));
  expect(screen.getByRole("link", { name: "Grüße aus Köln" })).toHaveFocus();
  await waitFor(() => expect(gateway.sessions.map(({ name }) => name)).toContain("Grüße aus Köln"));
});

test("Esc leaves the name as it was and asks nothing of the server", async () => {
  show([makeSession(1)]);
  const user = await choose("Chat 1", "Rename");
  await user.keyboard("Something else{Escape}");
  expect(links()).toEqual(["Chat 1"]);
  expect(gateway.requests.filter((request) => !request.startsWith("GET"))).toEqual([]);
});

test("a rename that is refused is taken back, in words and with the request id", async () => {
  show([makeSession(2), makeSession(1)]);
  const user = await choose("Chat 1", "Rename");
  let open = () => {};
  gateway.gate = new Promise((resolve) => {
    open = resolve;
  });
  gateway.refuse = 503;
  // Also without the server's list, which would put it right as well.
  gateway.readGate = new Promise(() => {});
  await user.keyboard("Better{Enter}");
  await waitFor(() => expect(links()).toEqual(["Better", "Chat 2"]));
  open();
  await waitFor(() => expect(links()).toEqual(["Chat 2", "Chat 1"]));
  expect(await screen.findByText("The chat could not be renamed.")).toBeVisible();
  expect(screen.getByText(/Not now\. \(request id request-1\)/)).toBeVisible();
});

test("archiving moves a chat to the other list at once, and Undo brings it back", async () => {
  show([makeSession(2), makeSession(1)], true);
  await screen.findByText("The archive is empty");
  const user = await choose("Chat 2", "Archive");
  const archive = within(screen.getByTestId("archive"));
  expect(await archive.findByRole("link", { name: "Chat 2" })).toBeVisible();
  expect(screen.getAllByRole("link")).toHaveLength(2);
  await user.click(await screen.findByRole("button", { name: "Undo" }));
  await waitFor(() => expect(archive.queryByRole("link")).toBeNull());
  expect(links()).toEqual(["Chat 2", "Chat 1"]);
  await waitFor(() => expect(gateway.sessions.every((session) => !session.is_archived)).toBe(true));
});

test("deleting can be undone, and then nothing was asked of the server", async () => {
  show([makeSession(2), makeSession(1)]);
  const user = await choose("Chat 2", "Delete");
  expect(links()).toEqual(["Chat 1"]);
  await user.click(await screen.findByRole("button", { name: "Undo" }));
  expect(links()).toEqual(["Chat 2", "Chat 1"]);
  expect(gateway.requests.filter((request) => request.startsWith("DELETE"))).toEqual([]);
});

test("a deletion is sent when it can no longer be undone, and comes back when the server refuses", async () => {
  show([makeSession(2), makeSession(1)]);
  await screen.findByRole("link", { name: "Chat 2" });
  vi.useFakeTimers({ shouldAdvanceTime: true });
  act(() => screen.getByRole("link", { name: "Chat 2" }).focus());
  const user = userEvent.setup({ advanceTimers: vi.advanceTimersByTime });
  await user.keyboard("{Delete}");
  expect(links()).toEqual(["Chat 1"]);
  expect(screen.getByRole("link", { name: "Chat 1" })).toHaveFocus();
  await act(() => vi.advanceTimersByTimeAsync(UNDO_MS + 100));
  await waitFor(() => expect(gateway.sessions).toHaveLength(1));
  expect(links()).toEqual(["Chat 1"]);

  gateway.refuse = 503;
  await user.keyboard("{Delete}");
  await act(() => vi.advanceTimersByTimeAsync(UNDO_MS + 100));
  expect(await screen.findByText("“Chat 1” could not be deleted.")).toBeVisible();
  expect(links()).toEqual(["Chat 1"]);
});

test("leaving the page sends what still could be undone", async () => {
  localStorage.setItem(
    "concerto-auth",
    JSON.stringify({
      access_token: "a.b.c",
      refresh_token: "r",
      expires_at: Math.floor(Date.now() / 1000) + 3600,
      expires_in: 3600,
      user: { id: makeSession(1).user_id, email: "a@example.com" },
    }),
  );
  show([makeSession(1)]);
  await choose("Chat 1", "Delete");
  act(() => void window.dispatchEvent(new Event("pagehide")));
  await waitFor(() => expect(gateway.sessions).toEqual([]));
  localStorage.clear();
});

test("the arrow keys go from chat to chat, F2 renames, and one row is the stop of the Tab key", async () => {
  show([makeSession(3), makeSession(2), makeSession(1)]);
  await screen.findByRole("link", { name: "Chat 3" });
  const user = userEvent.setup();
  await user.tab();
  expect(screen.getByRole("link", { name: "Chat 3" })).toHaveFocus();
  await user.keyboard("{ArrowDown}{ArrowDown}");
  expect(screen.getByRole("link", { name: "Chat 1" })).toHaveFocus();
  expect(screen.getAllByRole("link").map((link) => link.tabIndex)).toEqual([-1, -1, 0]);
  await user.keyboard("{ArrowUp}{F2}");
  expect(screen.getByRole("textbox", { name: "Chat name" })).toHaveValue("Chat 2");
  await user.keyboard("{Escape}");
  await waitFor(() => expect(screen.getByRole("link", { name: "Chat 2" })).toHaveFocus());
});

test("more chats are loaded when the end comes into view", async () => {
  gateway.pageSize = 2;
  show([makeSession(5), makeSession(4), makeSession(3), makeSession(2), makeSession(1)]);
  await screen.findByRole("link", { name: "Chat 5" });
  expect(links()).toHaveLength(2);
  act(() => seen.at(-1)?.());
  await waitFor(() => expect(links()).toHaveLength(4));
  act(() => seen.at(-1)?.());
  await waitFor(() => expect(links()).toEqual(["Chat 5", "Chat 4", "Chat 3", "Chat 2", "Chat 1"]));
});

test("another tab's change is read", async () => {
  // The announcements are heard by the shell; here by a component beside the list.
  const { useSessionAnnouncements } = await import("../data/queries");
  function Announcements() {
    useSessionAnnouncements();
    return null;
  }
  gateway.sessions = [makeSession(1)];
  render(
    <QueryClientProvider client={createQueryClient()}>
      <Announcements />
      <SessionList />
    </QueryClientProvider>,
  );
  await screen.findByRole("link", { name: "Chat 1" });
  gateway.sessions = [makeSession(2), makeSession(1)];
  const otherTab = new BroadcastChannel("concerto");
  otherTab.postMessage({ kind: "sessions-changed" });
  await waitFor(() => expect(links()).toEqual(["Chat 2", "Chat 1"]));
  otherTab.close();
});
