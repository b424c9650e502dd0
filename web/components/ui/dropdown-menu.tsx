"use client";

import { Check } from "lucide-react";
import * as Slot from "radix-ui/slot";
import {
  type ComponentProps,
  createContext,
  type KeyboardEvent,
  type MouseEvent,
  useContext,
  useEffect,
  useRef,
  useState,
} from "react";
import { cn } from "@/lib/utils";
import type * as Radix from "./dropdown-menu-library";
import { sentences } from "./sentences";
import { toast } from "./toaster";

// Menus are a large part of a page's code, and none is open when a page begins: until one is about to be used, there is
// only its button.
type Library = typeof Radix;
type Menu = {
  library: Library | null;
  place: HTMLElement | null;
  open: (button: Element) => void;
};

const load = () => import("./dropdown-menu-library");

/** Loads what menus are made of, for when one is opened. Only fetched: another button in its place would lose the focus. */
export const prepareMenus = (): void => void load().catch(() => undefined);

const Context = createContext<Menu | null>(null);

function useMenu(): Menu {
  const menu = useContext(Context);
  if (!menu) throw new Error("Parts of a menu belong into a DropdownMenu.");
  return menu;
}

export type DropdownMenuProps = Omit<ComponentProps<typeof Radix.Root>, "open" | "defaultOpen">;

/** A menu; its trigger and its content stand inside. It opens itself. */
export function DropdownMenu({ children, ...props }: DropdownMenuProps) {
  const [library, setLibrary] = useState<Library | null>(null);
  // Menus float within the part of the page that they belong to, so that they are not outside of all landmarks.
  const [place, setPlace] = useState<HTMLElement | null>(null);
  const isMounted = useRef(true);
  useEffect(() => {
    isMounted.current = true;
    return () => {
      isMounted.current = false;
    };
  }, []);

  const menu: Menu = {
    library,
    place,
    open: (button) => {
      setPlace(button.closest<HTMLElement>("nav, main, header"));
      load().then(
        (loaded) => {
          if (isMounted.current) setLibrary(loaded);
        },
        () => toast.error(sentences.menuNotLoaded),
      );
    },
  };
  return (
    <Context.Provider value={menu}>
      {library ? (
        <library.Root {...props} defaultOpen>
          {children}
        </library.Root>
      ) : (
        children
      )}
    </Context.Provider>
  );
}

export function DropdownMenuTrigger({ asChild, ...props }: ComponentProps<typeof Radix.Trigger>) {
  const { library, open } = useMenu();
  if (library) return <library.Trigger asChild={asChild} {...props} />;
  const Element = asChild ? Slot.Root : "button";
  return (
    <Element
      {...(asChild ? {} : { type: "button" as const })}
      {...props}
      aria-haspopup="menu"
      aria-expanded={false}
      onClick={(event: MouseEvent) => open(event.currentTarget)}
      onPointerEnter={prepareMenus}
      onFocus={prepareMenus}
      onKeyDown={(event: KeyboardEvent) => {
        if (event.key !== "ArrowDown") return;
        event.preventDefault();
        open(event.currentTarget);
      }}
    />
  );
}

const row =
  "relative flex min-h-8 cursor-default items-center gap-2 rounded-md px-2 py-1.5 text-sm outline-none select-none data-[disabled]:pointer-events-none data-[disabled]:opacity-60 data-[highlighted]:bg-active data-[highlighted]:text-ink [&_svg]:pointer-events-none [&_svg]:shrink-0 [&_svg:not([class*='size-'])]:size-4";

export function DropdownMenuContent({
  className,
  sideOffset = 4,
  collisionPadding = 8,
  ...props
}: ComponentProps<typeof Radix.Content>) {
  const { library, place } = useMenu();
  if (!library) return null;
  return (
    <library.Portal container={place}>
      <library.Content
        sideOffset={sideOffset}
        collisionPadding={collisionPadding}
        className={cn(
          "z-50 max-h-(--radix-dropdown-menu-content-available-height) min-w-40 overflow-x-hidden overflow-y-auto rounded-xl bg-raised forced-colors:border p-1 text-ink shadow-2 data-[state=closed]:animate-out data-[state=closed]:fade-out-0 data-[state=open]:animate-in data-[state=open]:fade-in-0",
          className,
        )}
        {...props}
      />
    </library.Portal>
  );
}

export type DropdownMenuItemProps = ComponentProps<typeof Radix.Item> & { variant?: "default" | "destructive" };

export function DropdownMenuItem({ className, variant = "default", ...props }: DropdownMenuItemProps) {
  const { library } = useMenu();
  if (!library) return null;
  const colour = variant === "destructive" && "text-danger-text data-[highlighted]:text-danger-text";
  return <library.Item className={cn(row, colour, className)} {...props} />;
}

export function DropdownMenuRadioGroup(props: ComponentProps<typeof Radix.RadioGroup>) {
  const { library } = useMenu();
  return library && <library.RadioGroup {...props} />;
}

export function DropdownMenuRadioItem({ className, children, ...props }: ComponentProps<typeof Radix.RadioItem>) {
  const { library } = useMenu();
  if (!library) return null;
  return (
    <library.RadioItem className={cn(row, "ps-8", className)} {...props}>
      <library.ItemIndicator className="absolute start-2">
        <Check aria-hidden />
      </library.ItemIndicator>
      {children}
    </library.RadioItem>
  );
}

export function DropdownMenuLabel({ className, ...props }: ComponentProps<typeof Radix.Label>) {
  const { library } = useMenu();
  return library && <library.Label className={cn("px-2 py-1.5 text-xs text-ink-2", className)} {...props} />;
}

export function DropdownMenuSeparator({ className, ...props }: ComponentProps<typeof Radix.Separator>) {
  const { library } = useMenu();
  return library && <library.Separator className={cn("-mx-1 my-1 h-px bg-line", className)} {...props} />;
}
