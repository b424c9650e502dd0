import { sessionTitle } from "@/features/sessions/title";
import type { Message } from "@/lib/api/types";
import { sentences } from "../sentences";
import type { WholeChat } from "./read-chat";

/** What one side has said before the other one speaks. */
export type Speech = { role: "user" | "assistant"; id: string; texts: readonly string[] };

/** What was said, without instructions, tools and what the model thought; an answer in several messages is one. */
export function speechesOf(messages: readonly Message[]): Speech[] {
  const speeches: { role: Speech["role"]; id: string; texts: string[] }[] = [];
  for (const { role, content, id } of messages) {
    if ((role !== "user" && role !== "assistant") || content.trim() === "") continue;
    const last = speeches.at(-1);
    if (role === "assistant" && last?.role === "assistant") last.texts.push(content);
    else speeches.push({ role, id, texts: [content] });
  }
  return speeches;
}

/** The chat as a Markdown document. */
export function chatAsMarkdown({ session, messages }: WholeChat): string {
  const parts = speechesOf(messages).map(({ role, texts }) => {
    const who = role === "user" ? sentences.message.you : sentences.message.assistant;
    return `## ${who}\n\n${texts.join("\n\n")}`;
  });
  return `${[`# ${sessionTitle(session)}`, ...parts].join("\n\n")}\n`;
}

/** The chat as the API gives it: its session and its messages, with all that they hold. */
export function chatAsJson({ session, messages }: WholeChat): string {
  return `${JSON.stringify({ session, messages }, null, 2)}\n`;
}

/** A file's name for a chat: its title without what file systems refuse. */
export function fileNameOf({ session }: WholeChat, ending: string): string {
  const plain = sessionTitle(session)
    .replace(/[\s\p{Cc}\\/:*?"<>|]+/gu, " ")
    .replace(/^[.\s]+|[.\s]+$/g, "");
  const short = Array.from(plain).slice(0, 80).join("").trim();
  return `${short || "chat"}.${ending}`;
}
