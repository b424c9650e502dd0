"use client";

import { Sheet, SheetContent, SheetTitle } from "./overlays/sheet";
import { sentences } from "./sentences";
import { Sidebar } from "./sidebar";

type SidebarSheetProps = {
  open: boolean;
  onOpenChange: (open: boolean) => void;
  onShowShortcuts: () => void;
  /** Where the focus goes back to. */
  onClosed: () => void;
};

/** The sidebar of narrow screens. */
export default function SidebarSheet({ open, onOpenChange, onShowShortcuts, onClosed }: SidebarSheetProps) {
  return (
    <Sheet open={open} onOpenChange={onOpenChange}>
      <SheetContent
        onCloseAutoFocus={(event) => {
          event.preventDefault();
          // Unless something else has been opened from here.
          if (!document.querySelector('[role="dialog"][data-state="open"]')) onClosed();
        }}
      >
        <SheetTitle className="sr-only">{sentences.sheet}</SheetTitle>
        <Sidebar
          onNavigate={() => onOpenChange(false)}
          onShowShortcuts={() => {
            onOpenChange(false);
            onShowShortcuts();
          }}
        />
      </SheetContent>
    </Sheet>
  );
}
