"use client";

import { Dialog, DialogContent, DialogDescription, DialogHeader, DialogTitle } from "./dialog";
import { Kbd } from "./kbd";
import { localShortcuts, type ShortcutName, shortcutKeys, shortcuts } from "@/lib/shortcuts";

type Group = { where: string; entries: { description: string; keys: readonly string[] }[] };

function groups(): Group[] {
  const everywhere = (Object.keys(shortcuts) as ShortcutName[]).map((name) => ({
    description: shortcuts[name].description,
    keys: shortcutKeys(name),
  }));
  const list: Group[] = [{ where: "Everywhere", entries: everywhere }];
  for (const { where, ...entry } of localShortcuts) {
    const group = list.find((other) => other.where === where);
    if (group) group.entries.push(entry);
    else list.push({ where, entries: [entry] });
  }
  return list;
}

/** Lists what the keyboard can do. */
export default function ShortcutsDialog({
  open,
  onOpenChange,
}: {
  open: boolean;
  onOpenChange: (open: boolean) => void;
}) {
  return (
    <Dialog open={open} onOpenChange={onOpenChange}>
      <DialogContent>
        <DialogHeader>
          <DialogTitle>Keyboard shortcuts</DialogTitle>
          <DialogDescription>Everything can be done without a mouse.</DialogDescription>
        </DialogHeader>
        {groups().map(({ where, entries }) => (
          <section key={where} className="grid gap-1">
            <h3 className="text-xs font-medium text-muted-foreground">{where}</h3>
            <dl className="grid gap-1">
              {entries.map(({ description, keys }) => (
                <div key={description} className="flex items-center justify-between gap-4 py-0.5 text-sm">
                  <dt>{description}</dt>
                  <dd className="flex shrink-0 gap-1">
                    {keys.map((key) => (
                      <Kbd key={key}>{key}</Kbd>
                    ))}
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </DialogContent>
    </Dialog>
  );
}
