// @vitest-environment node
import { describe, expect, it } from "vitest";
import type { Message, Session } from "@/lib/api/types";
import { chatAsJson, chatAsMarkdown, fileNameOf, speechesOf } from "./chat-text";
import { readChat } from "./read-chat";

const message = (role: Message["role"], content: string, id = content) =>
  ({ id, role, content, reasoning: role === "assistant" ? "hidden" : "", metadata: {} }) as Message;
const session = (name: string) => ({ id: "s1", name }) as Session;

const MESSAGES = [
  message("system", "Be brief."),
  message("user", "Grüße?"),
  message("assistant", "", "asks"),
  message("tool", "found"),
  message("assistant", "First."),
  message("assistant", "Second."),
  message("user", "Danke"),
];

describe("a chat as text", () => {
  it("holds what was said and nothing else", () => {
    expect(speechesOf(MESSAGES).map(({ role, texts }) => [role, ...texts])).toEqual([
      ["user", "Grüße?"],
      ["assistant", "First.", "Second."],
      ["user", "Danke"],
    ]);
    expect(chatAsMarkdown({ session: session("Über Grüße"), messages: MESSAGES })).toBe(
      "# Über Grüße\n\n## You\n\nGrüße?\n\n## Assistant\n\nFirst.\n\nSecond.\n\n## You\n\nDanke\n",
    );
  });

  it("as JSON holds everything", () => {
    const read = JSON.parse(chatAsJson({ session: session("x"), messages: MESSAGES }));
    expect(read).toEqual({ session: session("x"), messages: MESSAGES });
  });

  it("has a name that every file system takes", () => {
    const name = (title: string) => fileNameOf({ session: session(title), messages: [] }, "md");
    expect(name("Über: a/b\\c?")).toBe("Über a b c.md");
    expect(name("..\n..")).toBe("chat.md");
    expect(name("🎻".repeat(100))).toBe(`${"🎻".repeat(80)}.md`);
  });
});

it("a chat is read to its end, page by page", async () => {
  const asked: unknown[] = [];
  const read = await readChat(
    {
      session: async () => session("x"),
      messages: async (_id, query) => {
        asked.push(query);
        const page = asked.length;
        return {
          messages: [message("user", `m${page}`)],
          next_page_token: page < 3 ? `t${page}` : "",
          answer_under_way: null,
        };
      },
    },
    "s1",
  );
  expect(read.messages.map(({ content }) => content)).toEqual(["m1", "m2", "m3"]);
  expect(asked).toEqual([
    { page_size: 100 },
    { page_size: 100, page_token: "t1" },
    { page_size: 100, page_token: "t2" },
  ]);
});
