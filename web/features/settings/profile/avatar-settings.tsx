"use client";

import { type ChangeEvent, useEffect, useRef, useState } from "react";
import { Avatar } from "@/components/ui/avatar";
import { Button } from "@/components/ui/button";
import { toast, toastError } from "@/components/ui/toaster";
import type { User } from "@/lib/api/types";
import { sentences } from "../sentences";
import { useUpdateMe } from "../use-update-me";
import { removeStored, squarePicture, uploadAvatar } from "./avatar";

/** The person's picture, with ways to change and to remove it. */
export function AvatarSettings({ user }: { user: User }) {
  const file = useRef<HTMLInputElement>(null);
  const [preview, setPreview] = useState<string | null>(null);
  const [work, setWork] = useState<"change" | "remove" | null>(null);
  const updateMe = useUpdateMe();
  const stored = user.profile?.avatar_url || null;

  useEffect(() => {
    if (preview) return () => URL.revokeObjectURL(preview);
  }, [preview]);

  const change = async (chosen: File) => {
    setWork("change");
    let uploaded: string | null = null;
    try {
      const picture = await squarePicture(chosen);
      setPreview(URL.createObjectURL(picture));
      uploaded = await uploadAvatar(user.id, picture);
      await updateMe.mutateAsync({ profile: { avatar_url: uploaded } });
      toast.success(sentences.picture.changed);
      if (stored) void removeStored(user.id, stored).catch(() => undefined);
    } catch (error) {
      if (uploaded) void removeStored(user.id, uploaded).catch(() => undefined);
      toastError(error, sentences.picture.changeFailed);
    } finally {
      setPreview(null);
      setWork(null);
    }
  };

  const remove = async (address: string) => {
    setWork("remove");
    try {
      await updateMe.mutateAsync({ profile: { avatar_url: "" } });
      void removeStored(user.id, address).catch(() => undefined);
      toast.success(sentences.picture.removed);
    } catch (error) {
      toastError(error, sentences.picture.removeFailed);
    } finally {
      setWork(null);
    }
  };

  const onChange = (event: ChangeEvent<HTMLInputElement>) => {
    const [chosen] = event.currentTarget.files ?? [];
    // The same file can be chosen again.
    event.currentTarget.value = "";
    if (chosen) void change(chosen);
  };

  return (
    <div className="flex flex-wrap items-center gap-4">
      <Avatar name={user.display_name} src={preview ?? stored} className="size-20 text-xl" />
      <div className="grid gap-2">
        <div className="flex flex-wrap gap-2">
          <Button
            variant="outline"
            size="sm"
            loading={work === "change"}
            disabled={work !== null}
            onClick={() => file.current?.click()}
          >
            {stored ? sentences.picture.change : sentences.picture.add}
          </Button>
          {stored ? (
            <Button
              variant="ghost"
              size="sm"
              loading={work === "remove"}
              disabled={work !== null}
              onClick={() => void remove(stored)}
            >
              {sentences.picture.remove}
            </Button>
          ) : null}
        </div>
        <p className="text-[0.8125rem] text-ink-2">{sentences.picture.hint}</p>
      </div>
      <input
        ref={file}
        type="file"
        accept="image/jpeg,image/png,image/webp,image/gif,image/avif"
        aria-label={sentences.picture.file}
        className="hidden"
        onChange={onChange}
      />
    </div>
  );
}
