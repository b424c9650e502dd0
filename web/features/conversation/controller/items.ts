import type { Message } from "@/lib/api/types";
import type { AnswerPart } from "../runs/run-reducer";
import { sentences } from "../sentences";
import { type Alternatives, activePath, alternativesOf, type MessageWindow } from "./message-window";

/** What the person said. */
export type UserItem = { kind: "user"; key: string; message: Message; alternatives: Alternatives | null };

/** A stored answer with the tools that were asked for it. */
export type AnswerItem = {
  kind: "answer";
  key: string;
  /** All its stored messages: calls, results, and last the answer. */
  messages: readonly Message[];
  /** The first one, which is what alternatives differ in. */
  head: Message;
  message: Message;
  /** The user's message that it answers; null when another one stands before it. */
  answers: string | null;
  parts: readonly AnswerPart[];
  notes: AnswerNotes;
  alternatives: Alternatives | null;
};

/** What an answer's metadata says about it. */
export type AnswerNotes = {
  isPartial: boolean;
  errorReason: string;
  /** Whether the model ran into the limit of an answer's length. */
  isCutOff: boolean;
  model: string;
  agent: string;
  promptTokens: number;
  completionTokens: number;
  isEstimated: boolean;
};

/** A message of the system, shown as a line between the others. */
export type NoteItem = { kind: "note"; key: string; text: string };

/** The user's message on its way to the server. */
export type PendingItem = {
  kind: "pending";
  key: string;
  content: string;
  status: "sending" | "failed";
  error: unknown;
};

/** The answer in the making; its text is in a store of its own, so that this item stays the same while it streams. */
export type LiveItem = { kind: "live"; key: string };

/** A run that ended with nothing said. */
export type FailureItem = {
  kind: "failure";
  key: string;
  sentence: string;
  requestId: string | null;
  /** The message to answer again; null when what was asked for never reached the server and is to be sent again. */
  userMessageId: string | null;
  /** Whether the person ended it, which is no error. */
  isCancelledByUser: boolean;
};

export type StoredItem = UserItem | AnswerItem | NoteItem;
export type ConversationItem = StoredItem | PendingItem | LiveItem | FailureItem;

// What providers call it when an answer ends at its limit.
const AT_LIMIT: ReadonlySet<string> = new Set(["length", "max_tokens", "max_output_tokens"]);

/** Makes the list's items of a window; an item that says the same as before is the same object, so it is not drawn again. */
export class ItemBuilder {
  private before = new Map<string, StoredItem>();

  /** aliases: keys of items that were on the page before they were stored, by the message that they follow. */
  constructor(private readonly aliases: ReadonlyMap<string, string>) {}

  /**
   * The key of what follows a message. Of all its versions only one is shown, so it is a key of its own, and it stays
   * when another version is: what has the focus keeps it.
   */
  keyAfter(messageId: string): string {
    return this.aliases.get(messageId) ?? `after:${messageId}`;
  }

  /** Returns the items of the shown branch. */
  build(window: MessageWindow): StoredItem[] {
    const items: StoredItem[] = [];
    const now = new Map<string, StoredItem>();
    const add = (item: StoredItem) => {
      const kept = this.keep(item);
      now.set(item.key, kept);
      items.push(kept);
    };
    let group: Message[] = [];
    let asked: string | null = null;
    const flush = () => {
      if (group.length > 0) add(this.answerItem(window, group, asked));
      if (group.length > 0) asked = null;
      group = [];
    };
    for (const message of activePath(window)) {
      if (message.role === "user" || message.role === "system") {
        flush();
        if (message.role === "user") {
          add({
            kind: "user",
            key: this.keyAfter(message.parent_id),
            message,
            alternatives: alternativesOf(window, message),
          });
          asked = message.id;
        } else add({ kind: "note", key: this.keyAfter(message.parent_id), text: noteText(message) });
      } else {
        group.push(message);
        if (message.role === "assistant" && toolCallsOf(message).length === 0) flush();
      }
    }
    flush();
    this.before = now;
    return items;
  }

  private answerItem(window: MessageWindow, messages: readonly Message[], answers: string | null): AnswerItem {
    const head = messages[0] as Message;
    const message = messages.at(-1) as Message;
    const key = this.keyAfter(head.parent_id);
    const alternatives = alternativesOf(window, head);
    const before = this.before.get(key);
    // The parts are made anew only when a message is another one.
    const isSame = before?.kind === "answer" && sameElements(before.messages, messages);
    return {
      kind: "answer",
      key,
      messages,
      head,
      message,
      answers,
      parts: isSame ? before.parts : partsOf(messages),
      notes: isSame ? before.notes : notesOf(message),
      alternatives,
    };
  }

  private keep(item: StoredItem): StoredItem {
    const before = this.before.get(item.key);
    if (before === undefined || before.kind !== item.kind) return item;
    if (item.kind === "user" && before.kind === "user") {
      return before.message === item.message && sameAlternatives(before.alternatives, item.alternatives)
        ? before
        : item;
    }
    if (item.kind === "answer" && before.kind === "answer") {
      const isSame =
        before.parts === item.parts &&
        before.answers === item.answers &&
        sameAlternatives(before.alternatives, item.alternatives);
      return isSame ? before : item;
    }
    return item.kind === "note" && before.kind === "note" && before.text === item.text ? before : item;
  }
}

/** Returns what an answer's stored messages say, in order; a tool's result stands with its call. */
export function partsOf(messages: readonly Message[]): AnswerPart[] {
  const parts: AnswerPart[] = [];
  for (const message of messages) {
    if (message.role === "tool") {
      addResult(parts, message);
      continue;
    }
    if (message.reasoning !== "") {
      parts.push({ kind: "thought", text: message.reasoning, since: 0, milliseconds: message.reasoning_milliseconds });
    }
    if (message.content !== "") parts.push({ kind: "text", text: message.content });
    for (const call of toolCallsOf(message)) {
      parts.push({ kind: "tool", call: { ...call, output: null, isError: false } });
    }
  }
  return parts;
}

function addResult(parts: AnswerPart[], message: Message): void {
  const id = textIn(message.metadata, "tool_call_id");
  const extras = objectIn(message.metadata, "langchain");
  const isError = textIn(extras, "status") === "error";
  const place = parts.findIndex((part) => part.kind === "tool" && part.call.id === id && part.call.output === null);
  const asked = parts[place];
  const call =
    asked?.kind === "tool"
      ? asked.call
      : { id: id || message.id, name: textIn(message.metadata, "name") || textIn(extras, "name"), arguments: null };
  const part: AnswerPart = { kind: "tool", call: { ...call, output: message.content, isError } };
  if (place < 0) parts.push(part);
  else parts[place] = part;
}

function toolCallsOf(message: Message): { id: string; name: string; arguments: Record<string, unknown> | null }[] {
  const calls = message.metadata?.tool_calls;
  if (!Array.isArray(calls)) return [];
  return calls.filter(isObject).map((call, place) => ({
    id: textIn(call, "id") || `${message.id}/${place}`,
    name: textIn(call, "name"),
    arguments: objectIn(call, "args") ?? objectIn(call, "arguments"),
  }));
}

/** Returns what an answer's metadata says; anybody may write metadata, so nothing about its shape is believed. */
export function notesOf(message: Message): AnswerNotes {
  const usage = objectIn(message.metadata, "usage");
  return {
    isPartial: message.metadata?.partial === true,
    errorReason: textIn(message.metadata, "error_reason"),
    isCutOff: AT_LIMIT.has(textIn(message.metadata, "finish_reason").toLowerCase()),
    model: textIn(message.metadata, "model"),
    agent: textIn(message.metadata, "agent"),
    promptTokens: countIn(usage, "prompt_tokens"),
    completionTokens: countIn(usage, "completion_tokens"),
    isEstimated: usage?.estimated === true,
  };
}

function noteText(message: Message): string {
  if (message.metadata?.history_cleared === true) return sentences.message.historyCleared;
  return message.content === "" ? sentences.message.note : sentences.message.instructions(message.content);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectIn(holder: Record<string, unknown> | null, name: string): Record<string, unknown> | null {
  const value = holder?.[name];
  return isObject(value) ? value : null;
}

function textIn(holder: Record<string, unknown> | null, name: string): string {
  const value = holder?.[name];
  return typeof value === "string" ? value : "";
}

function countIn(holder: Record<string, unknown> | null, name: string): number {
  const value = holder?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function sameElements(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((value, place) => value === b[place]);
}

function sameAlternatives(a: Alternatives | null, b: Alternatives | null): boolean {
  if (a === null || b === null) return a === b;
  return a.index === b.index && sameElements(a.ids, b.ids);
}
