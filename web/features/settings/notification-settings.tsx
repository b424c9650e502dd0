"use client";

import { useEffect, useState } from "react";
import { Button } from "@/components/ui/button";
import { Section } from "@/components/ui/section";
import { toastError } from "@/components/ui/toaster";
import type { User } from "@/lib/api/types";
import {
  askForNotifications,
  type NotificationPermissionState,
  type NotificationPreferences,
  notificationPermission,
  playSound,
  readPreferences,
} from "@/lib/notifications";
import { SettingSwitch } from "./controls/setting-switch";
import { sentences } from "./sentences";
import { useUpdateMe } from "./use-update-me";

const PERMISSIONS: Readonly<Record<NotificationPermissionState, string>> = sentences.notifications.permissions;

/** How the person wants to be told of an answer. */
export function NotificationSettings({ user }: { user: User }) {
  const updateMe = useUpdateMe();
  const permission = usePermission();
  const stored = user.settings?.notification_preferences ?? {};
  const preferences = readPreferences(stored);

  const save = (changed: Partial<NotificationPreferences>) => {
    // The whole is replaced there, so what other versions of the app keep in it goes along.
    const changes = { settings: { notification_preferences: { ...stored, ...preferences, ...changed } } };
    updateMe.mutate(changes, { onError: (error) => toastError(error, sentences.notifications.saveFailed) });
  };
  const changeAnswerReady = async (wanted: boolean) => {
    save({ answer_ready: wanted });
    if (wanted && permission.state === "default") permission.set(await askForNotifications());
  };

  return (
    <Section title={sentences.notifications.title} description={sentences.notifications.description}>
      <SettingSwitch
        label={sentences.notifications.answerReady}
        hint={sentences.notifications.answerReadyHint(permission.state ? PERMISSIONS[permission.state] : "")}
        checked={preferences.answer_ready}
        onChange={(wanted) => void changeAnswerReady(wanted)}
      />
      {preferences.answer_ready && permission.state === "default" ? (
        <div>
          <Button variant="outline" size="sm" onClick={() => void askForNotifications().then(permission.set)}>
            {sentences.notifications.askBrowser}
          </Button>
        </div>
      ) : null}
      <SettingSwitch
        label={sentences.notifications.sound}
        hint={sentences.notifications.soundHint}
        checked={preferences.sound}
        onChange={(wanted) => {
          save({ sound: wanted });
          if (wanted) playSound();
        }}
      />
      <p className="text-[0.8125rem] text-ink-2">{sentences.notifications.footer}</p>
    </Section>
  );
}

/** What the browser says about notifications, also after it was changed in the browser's own settings. */
function usePermission() {
  const [state, set] = useState<NotificationPermissionState>();
  useEffect(() => {
    const read = () => set(notificationPermission());
    read();
    window.addEventListener("focus", read);
    return () => window.removeEventListener("focus", read);
  }, []);
  return { state, set };
}
