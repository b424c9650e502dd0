import type { Session } from "@/lib/api/types";

/** What a row can ask of its list. The functions stay the same from render to render. */
export type RowActions = {
  open: (session: Session) => void;
  focus: (id: string) => void;
  startRename: (id: string) => void;
  endRename: (id: string, byKeyboard: boolean) => void;
  rename: (session: Session, name: string) => void;
  archive: (session: Session) => void;
  remove: (session: Session) => void;
};
