import type { Catalogue } from "@/lib/catalogue";

/** What a chat says. Numbers are written here too, as languages write them in their own ways. */
export const sentences = {
  title: "Chat",
  retry: "Try again",
  edit: "Edit",
  page: {
    loading: "Loading the conversation…",
    loadFailed: "The conversation could not be loaded.",
    notFound: "This chat was not found",
    notFoundHint: "It may have been deleted, or it belongs to another account.",
    beginNew: "Begin a new chat",
    rename: "Rename chat",
    archived: "Archived",
  },
  newChat: {
    heading: "What would you like to talk about?",
    hint: "Write a message below, or begin with one of these.",
    explain: "Explain an idea",
    explainText: "Explain how a public key can be shared openly and still keep a message secret.",
    improve: "Improve a text",
    improveText: "Make this text clearer and shorter, and say what you changed:\n\n",
    plan: "Plan something",
    planText: "Help me plan a weekend trip by train for two people who like walking.",
  },
  turn: {
    reconnecting: "Connection lost. Reconnecting…",
    followFailed: "The answer can no longer be followed here.",
    isAnswering: "The assistant is answering.",
    hasEnded: "The answer has ended.",
    isReady: "An answer is ready",
    thinking: "Thinking…",
    isThinking: "The assistant is thinking.",
  },
  composer: {
    label: "Message",
    placeholder: "Write a message",
    model: "Model",
    agent: "Agent",
    send: "Send",
    sendHint: "Send (Enter)",
    stop: "Stop",
    stopHint: "Stop (Esc)",
    queued: "This is sent when the answer has ended.",
    unqueue: "Do not send it yet",
    tooLong: (mebibytes: string, most: string) =>
      `This message is too long: it has ${mebibytes} MiB, and at most ${most} MiB can be sent. Shorten it, or send it in parts.`,
  },
  list: {
    label: "Conversation",
    empty: "Nothing has been said here yet. Write the first message below.",
    jumpToLatest: "Jump to latest",
    loadingEarlier: "Loading earlier messages…",
    earlierFailed: "Earlier messages could not be loaded.",
  },
  message: {
    you: "You",
    assistant: "Assistant",
    showAll: "Show all",
    notSent: (reason: string) => `Not sent. ${reason}`,
    editLabel: "Edit message",
    cancel: "Cancel",
    saveAndSend: "Save and send",
    copy: "Copy",
    copied: "Copied",
    copyFailed: "The text could not be copied. The browser does not allow it here.",
    lastCopied: "The last answer is copied.",
    regenerate: "Regenerate",
    kept: "What was said by then is kept.",
    cutOff: "The answer was cut off at the limit of its length.",
    continue: "Continue",
    /** What is said to the model; it goes on in the language of its answer. */
    continueRequest: "Go on exactly where your last answer stopped, in its language.",
    /** How long the model thought; 0 when nobody knows. */
    thought: (milliseconds: number) => {
      if (milliseconds <= 0) return "Thought";
      if (milliseconds < 1000) return "Thought for a moment";
      const seconds = Math.round(milliseconds / 1000);
      if (seconds < 60) return `Thought for ${seconds} s`;
      return `Thought for ${Math.floor(seconds / 60).toLocaleString("en")} min ${seconds % 60} s`;
    },
    previousVersion: "Previous version",
    nextVersion: "Next version",
    version: (number: number, count: number) => `${number} of ${count}`,
    historyCleared: "The assistant does not see what was said above.",
    note: "Note",
    instructions: (text: string) => `Instructions: ${text}`,
  },
  usage: {
    tokens: (count: number, isEstimated: boolean) =>
      `${isEstimated ? "about " : ""}${count.toLocaleString("en")} ${count === 1 ? "token" : "tokens"}`,
    details: (prompt: number, answer: number) =>
      `${prompt.toLocaleString("en")} tokens of prompt, ${answer.toLocaleString("en")} of answer`,
    estimated: "estimated",
  },
  tool: {
    unnamed: "tool",
    working: "working…",
    noAnswer: "no answer",
    failed: "failed",
    done: "done",
    asked: "Asked",
    answered: "Answered",
    error: "Error",
    noArguments: "It was asked without arguments.",
    nothing: "(nothing)",
  },
  /** Why an answer is missing or ends early, where only the reason was kept. The names are those of docs/errors.md. */
  reasons: {
    CANCELLED: "You stopped this answer.",
    RUN_INTERRUPTED: "The answer was interrupted.",
    RUN_LIMIT_REACHED: "The answer reached the limit of steps or tokens.",
    MODEL_CREDENTIALS_REJECTED: "The model provider rejected the server's credentials.",
    MODEL_NOT_FOUND: "This model is not offered.",
    MODEL_RATE_LIMITED: "The model provider asks to slow down.",
    MODEL_QUOTA_EXHAUSTED: "The account at the model provider has no quota left.",
    MODEL_TIMEOUT: "The model did not answer in time.",
    MODEL_UNREACHABLE: "The model provider cannot be reached.",
    MODEL_CONNECTION_LOST: "The connection to the model broke.",
    MODEL_UNAVAILABLE: "The model provider has an error of its own.",
    MODEL_ANSWER_MALFORMED: "The model provider sent something unreadable.",
    MODEL_ANSWER_TOO_LARGE: "The model's answer is too large to come in one piece.",
    MODEL_ANSWER_CUT: "The model ended its answer before it was whole.",
    MODEL_ANSWER_EMPTY: "The model ended its answer without saying anything.",
    MODEL_REQUEST_REFUSED: "The model provider refused the request.",
    PROMPT_TOO_LONG: "The message does not fit the model's window.",
    CONTENT_FILTERED: "The model provider's content filter stopped the answer.",
  },
  otherReason: "The answer could not be finished.",
  failures: {
    newest: "The newest messages could not be loaded.",
    message: "The message could not be loaded.",
    version: "The version could not be shown.",
    notSent: "Your message was not sent. It is kept as a draft in its chat.",
    isBusy: "Another answer is being written.",
    stop: "The answer could not be stopped.",
  },
} as const satisfies Catalogue;
