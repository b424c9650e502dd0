"use client";

import { X } from "lucide-react";
import * as Primitive from "radix-ui/dialog";
import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";
import { sentences } from "../sentences";
import { DialogOverlay, keepForToasts } from "./dialog";

export const Sheet = Primitive.Root;
export const SheetTitle = Primitive.Title;

/** A dialog that slides in from the left and fills the height. Needs a SheetTitle inside. */
export function SheetContent({ className, children, ...props }: ComponentProps<typeof Primitive.Content>) {
  return (
    <Primitive.Portal>
      <DialogOverlay />
      <Primitive.Content
        aria-describedby={undefined}
        // The first field would open the keyboard of a phone.
        onOpenAutoFocus={(event) => {
          event.preventDefault();
          if (event.currentTarget instanceof HTMLElement) event.currentTarget.focus();
        }}
        onInteractOutside={keepForToasts}
        onEscapeKeyDown={(event) => {
          // A field inside has its own use for it.
          if (event.target instanceof Element && event.target.closest("[data-keeps-escape]")) event.preventDefault();
        }}
        className={cn(
          "fixed inset-y-0 start-0 z-50 flex w-[min(20rem,calc(100%-3rem))] flex-col bg-desk forced-colors:border text-ink shadow-3 data-[state=closed]:animate-out data-[state=closed]:slide-out-to-left data-[state=open]:animate-in data-[state=open]:slide-in-from-left",
          className,
        )}
        {...props}
      >
        {children}
        <Primitive.Close
          aria-label={sentences.close}
          className="absolute top-2 -end-10 inline-flex size-8 items-center justify-center rounded-md bg-raised text-ink hover:bg-hover"
        >
          <X className="size-4" aria-hidden />
        </Primitive.Close>
      </Primitive.Content>
    </Primitive.Portal>
  );
}
