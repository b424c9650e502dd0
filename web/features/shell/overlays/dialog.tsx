"use client";

import { X } from "lucide-react";
import * as Primitive from "radix-ui/dialog";
import type { ComponentProps } from "react";
import { cn } from "@/lib/utils";
import { sentences } from "../sentences";

export const Dialog = Primitive.Root;

/** Darkens what lies behind a dialog or a sheet. */
export function DialogOverlay({ className, ...props }: ComponentProps<typeof Primitive.Overlay>) {
  return (
    <Primitive.Overlay
      className={cn(
        "fixed inset-0 z-40 bg-overlay data-[state=closed]:animate-out data-[state=closed]:fade-out-0 data-[state=open]:animate-in data-[state=open]:fade-in-0",
        className,
      )}
      {...props}
    />
  );
}

/** Keeps a dialog open while a toast in front of it is used; the toast may be gone from the page by then. */
export function keepForToasts(event: Event): void {
  if (event.target instanceof Element && event.target.closest("[data-toast]")) event.preventDefault();
}

export type DialogContentProps = ComponentProps<typeof Primitive.Content> & {
  /** False leaves out the cross in the corner. */
  closable?: boolean;
};

/** Needs a DialogTitle inside, and a DialogDescription or `aria-describedby={undefined}`. */
export function DialogContent({ className, children, closable = true, ...props }: DialogContentProps) {
  return (
    <Primitive.Portal>
      <DialogOverlay />
      <Primitive.Content
        onInteractOutside={keepForToasts}
        className={cn(
          "fixed top-1/2 left-1/2 z-50 grid max-h-[calc(100dvh-2rem)] w-[calc(100%-2rem)] max-w-lg -translate-x-1/2 -translate-y-1/2 grid-cols-1 gap-4 overflow-y-auto rounded-2xl bg-raised forced-colors:border p-6 text-ink shadow-3 data-[state=closed]:animate-out data-[state=closed]:fade-out-0 data-[state=open]:animate-in data-[state=open]:fade-in-0 data-[state=open]:zoom-in-98",
          className,
        )}
        {...props}
      >
        {children}
        {closable ? (
          <Primitive.Close
            aria-label={sentences.close}
            className="absolute top-3 end-3 inline-flex size-8 items-center justify-center rounded-md text-ink-2 hover:bg-hover hover:text-ink"
          >
            <X className="size-4" aria-hidden />
          </Primitive.Close>
        ) : null}
      </Primitive.Content>
    </Primitive.Portal>
  );
}

export function DialogHeader({ className, ...props }: ComponentProps<"div">) {
  return <div className={cn("grid grid-cols-1 gap-1.5 pe-8", className)} {...props} />;
}

export function DialogTitle({ className, ...props }: ComponentProps<typeof Primitive.Title>) {
  return <Primitive.Title className={cn("text-lg leading-tight font-semibold", className)} {...props} />;
}

export function DialogDescription({ className, ...props }: ComponentProps<typeof Primitive.Description>) {
  return <Primitive.Description className={cn("text-sm text-ink-2", className)} {...props} />;
}
