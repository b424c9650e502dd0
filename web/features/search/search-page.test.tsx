import { QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useSyncExternalStore } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { MessageHit } from "@/lib/api/types";
import { createQueryClient } from "@/lib/query-client";
import { SearchPage } from "./search-page";

/** Next's hooks, as they follow the address without a Next around them. */
const address = vi.hoisted(() => ({ listeners: new Set<() => void>() }));

vi.mock("next/navigation", () => ({
  useSearchParams: () => {
    const search = useSyncExternalStore(
      (listener) => {
        address.listeners.add(listener);
        return () => address.listeners.delete(listener);
      },
      () => window.location.search,
    );
    return new URLSearchParams(search);
  },
  usePathname: () => window.location.pathname,
  useRouter: () => ({ push: () => undefined, replace: () => undefined, prefetch: () => undefined }),
}));

const SESSION = "00000000-0000-4000-8000-000000000001";

function hit(number: number, fields: Partial<MessageHit> = {}): MessageHit {
  return {
    message_id: `00000000-0000-4000-8000-1${String(number).padStart(11, "0")}`,
    session_id: SESSION,
    session_name: `Chat ${number}`,
    role: number % 2 === 0 ? "assistant" : "user",
    order: number,
    timestamp: "2020-02-03T10:00:00Z",
    excerpt: `🎻 the violin number ${number}`,
    matches: [{ start: 6, end: 12 }],
    ...fields,
  };
}

/** What the gateway answers to a search; requests are kept. */
let answer: (url: URL) => unknown;
let requests: string[];

beforeEach(() => {
  requests = [];
  window.history.replaceState(null, "", "/search/");
  for (const name of ["pushState", "replaceState"] as const) {
    const real = window.history[name].bind(window.history);
    vi.spyOn(window.history, name).mockImplementation((...parameters) => {
      real(...parameters);
      for (const listener of address.listeners) listener();
    });
  }
  vi.stubGlobal("fetch", async (input: RequestInfo | URL, init?: RequestInit) => {
    const request = new Request(input, init);
    const url = new URL(request.url);
    requests.push(url.pathname + url.search);
    if (url.pathname !== "/messages/search") return Response.json({ id: SESSION, name: "Music" });
    const body = answer(url);
    return body instanceof Response ? body : Response.json(body);
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

function show(): void {
  render(
    <QueryClientProvider client={createQueryClient()}>
      <SearchPage />
    </QueryClientProvider>,
  );
}

const box = () => screen.getByRole("searchbox", { name: "Search messages" });

describe("the search page", () => {
  it("says what to do, and asks for nothing", () => {
    show();
    expect(screen.getByRole("heading", { level: 1, name: "Search" })).toBeInTheDocument();
    expect(screen.getByText("Find a message")).toBeInTheDocument();
    expect(requests).toEqual([]);
  });

  it("searches once for what is typed, and puts it into the address", async () => {
    answer = () => ({ hits: [hit(1), hit(2)], next_page_token: "" });
    show();
    await userEvent.type(box(), "violin");
    const link = await screen.findByRole("link", { name: "Chat 1" });
    expect(requests).toEqual(["/messages/search?query=violin&page_size=20"]);
    expect(window.location.search).toBe("?q=violin");
    expect(link).toHaveAttribute("href", `/chat/?id=${SESSION}&message=${hit(1).message_id}&order=1`);
    const item = link.closest("li");
    expect(item && within(item).getByText("violin").tagName).toBe("MARK");
    expect(item).toHaveTextContent(/You · .*2020/);
    expect(screen.getByRole("status")).toHaveTextContent("2 messages");
  });

  it("goes through the hits with the arrow keys, and back to the box", async () => {
    window.history.replaceState(null, "", "/search/?q=violin");
    answer = () => ({ hits: [hit(1), hit(2), hit(3)], next_page_token: "" });
    show();
    const first = await screen.findByRole("link", { name: "Chat 1" });
    expect(box()).toHaveValue("violin");
    await userEvent.click(box());
    await userEvent.keyboard("{ArrowDown}");
    expect(first).toHaveFocus();
    await userEvent.keyboard("{ArrowDown}{ArrowDown}{ArrowDown}");
    expect(screen.getByRole("link", { name: "Chat 3" })).toHaveFocus();
    await userEvent.keyboard("{Home}{ArrowUp}");
    expect(box()).toHaveFocus();
  });

  it("follows the address when the person goes back", async () => {
    answer = (url) => ({ hits: url.searchParams.get("query") === "violin" ? [hit(1)] : [], next_page_token: "" });
    show();
    await userEvent.type(box(), "violin");
    await screen.findByRole("link", { name: "Chat 1" });
    window.history.replaceState(null, "", "/search/");
    await waitFor(() => expect(box()).toHaveValue(""));
    expect(screen.getByText("Find a message")).toBeInTheDocument();
  });

  it("shows more, each message once", async () => {
    window.history.replaceState(null, "", "/search/?q=violin");
    answer = (url) =>
      url.searchParams.get("page_token") === "2"
        ? { hits: [hit(2), hit(3)], next_page_token: "" }
        : { hits: [hit(1), hit(2)], next_page_token: "2" };
    show();
    expect(await screen.findByText("The best 2 matches")).toBeInTheDocument();
    await userEvent.click(screen.getByRole("button", { name: "Show more" }));
    await screen.findByRole("link", { name: "Chat 3" });
    expect(screen.getAllByRole("link")).toHaveLength(3);
    expect(screen.queryByRole("button", { name: "Show more" })).not.toBeInTheDocument();
  });

  it("says that nothing was found, and what may help", async () => {
    window.history.replaceState(null, "", "/search/?q=xyzzy");
    answer = () => ({ hits: [], next_page_token: "" });
    show();
    expect(await screen.findByText("No messages with “xyzzy”")).toBeInTheDocument();
    expect(screen.getByText(/Try fewer words/)).toBeInTheDocument();
  });

  it("says what went wrong, with the request's id and a way to try again", async () => {
    window.history.replaceState(null, "", "/search/?q=violin");
    const refusal = { error: { code: 403, status: "PERMISSION_DENIED", message: "Not for you.", details: [] } };
    answer = () => Response.json(refusal, { status: 403, headers: { "X-Request-Id": "request-7" } });
    show();
    expect(await screen.findByRole("alert")).toHaveTextContent("Not for you.");
    expect(screen.getByText("request-7")).toBeInTheDocument();
    answer = () => ({ hits: [hit(1)], next_page_token: "" });
    await userEvent.click(screen.getByRole("button", { name: "Try again" }));
    expect(await screen.findByRole("link", { name: "Chat 1" })).toBeInTheDocument();
  });

  it("searches within one chat, until asked to search all", async () => {
    window.history.replaceState(null, "", `/search/?q=violin&session=${SESSION}`);
    answer = () => ({ hits: [hit(1)], next_page_token: "" });
    show();
    expect(await screen.findByText("Only in “Music”")).toBeInTheDocument();
    expect(requests).toContain(`/messages/search?query=violin&page_size=20&session_id=${SESSION}`);
    await userEvent.click(screen.getByRole("button", { name: "Search all chats" }));
    await waitFor(() => expect(requests).toContain("/messages/search?query=violin&page_size=20"));
    expect(window.location.search).toBe("?q=violin");
  });
});
