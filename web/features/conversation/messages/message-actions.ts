/** What a message in the list can ask for. The functions stay the same from render to render. */
export type MessageActions = {
  /** Has a user's message answered again. */
  regenerate: (userMessageId: string) => void;
  /** Has the last answer go on where it was cut off. */
  continueAnswer: () => void;
  /** Says something else in place of a user's message; false while an answer is being written. */
  edit: (userMessageId: string, content: string) => boolean;
  /** Shows another version. */
  selectVersion: (messageId: string) => void;
  /** Tries again to send what could not be sent. */
  retry: () => void;
  /** Puts what could not be sent back into the message box. */
  takeBack: () => void;
  /** Loads the end of the conversation when it is not loaded. */
  jumpToLatest: () => Promise<void>;
};
