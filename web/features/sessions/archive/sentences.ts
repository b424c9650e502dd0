import type { Catalogue } from "@/lib/catalogue";

/** What the page of archived chats says besides its list. */
export const sentences = {
  title: "Archive",
  description: "Chats that are out of the way. They can still be opened, continued and searched.",
  filter: "Filter archive",
} as const satisfies Catalogue;
