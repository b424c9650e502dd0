"use client";

import { type ShortcutName, shortcutKeys, shortcuts } from "@/lib/shortcuts";
import { Dialog, DialogContent, DialogDescription, DialogHeader, DialogTitle } from "./dialog";
import { Kbd } from "./kbd";
import { sentences } from "./sentences";

type Entry = { description: string; keys: readonly string[] };
type Group = { where: string; entries: readonly Entry[] };

const { shortcuts: texts } = sentences;

function groups(): Group[] {
  const everywhere = (Object.keys(shortcuts) as ShortcutName[]).map((name) => ({
    description: texts.names[name],
    keys: shortcutKeys(name),
  }));
  return [
    { where: texts.everywhere, entries: [...everywhere, { description: texts.newestNotice, keys: ["Alt", "T"] }] },
    {
      where: texts.inList,
      entries: [
        { description: texts.fromChatToChat, keys: ["↑", "↓"] },
        { description: texts.rename, keys: ["F2"] },
        { description: texts.delete, keys: ["Delete"] },
      ],
    },
    {
      where: texts.inComposer,
      entries: [
        { description: texts.send, keys: ["Enter"] },
        { description: texts.newLine, keys: ["Shift", "Enter"] },
      ],
    },
  ];
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
          <DialogTitle>{texts.title}</DialogTitle>
          <DialogDescription>{texts.description}</DialogDescription>
        </DialogHeader>
        {groups().map(({ where, entries }) => (
          <section key={where} className="grid gap-1">
            <h3 className="text-xs font-medium text-ink-2">{where}</h3>
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
