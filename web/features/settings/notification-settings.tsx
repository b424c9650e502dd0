"use client";

import { useEffect, useState } from "react";
import { Button } from "@/components/ui/button";
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
import { Section } from "@/components/ui/section";
import { SettingSwitch } from "./controls/setting-switch";
import { useUpdateMe } from "./use-update-me";

const PERMISSIONS: Readonly<Record<NotificationPermissionState, string>> = {
  default: "Your browser has not been asked yet whether it may show notifications; switching this on asks.",
  granted: "Your browser may show notifications of this site.",
  denied:
    "Your browser blocks notifications of this site. Allow them in its settings for this site, usually behind the sign left of the address, then reload this page.",
  unsupported: "This browser cannot show notifications.",
};

/** How the person wants to be told of an answer. */
export function NotificationSettings({ user }: { user: User }) {
  const updateMe = useUpdateMe();
  const permission = usePermission();
  const stored = user.settings?.notification_preferences ?? {};
  const preferences = readPreferences(stored);

  const save = (changed: Partial<NotificationPreferences>) => {
    // The whole is replaced there, so what other versions of the app keep in it goes along.
    const changes = { settings: { notification_preferences: { ...stored, ...preferences, ...changed } } };
    updateMe.mutate(changes, { onError: (error) => toastError(error, "The setting could not be saved.") });
  };
  const changeAnswerReady = async (wanted: boolean) => {
    save({ answer_ready: wanted });
    if (wanted && permission.state === "default") permission.set(await askForNotifications());
  };

  return (
    <Section title="When an answer is ready" description="Only while you look at another tab or window.">
      <SettingSwitch
        label="Tell me when an answer is ready"
        hint={`Shows a notification with the name of the chat. ${permission.state ? PERMISSIONS[permission.state] : ""}`}
        checked={preferences.answer_ready}
        onChange={(wanted) => void changeAnswerReady(wanted)}
      />
      {preferences.answer_ready && permission.state === "default" ? (
        <div>
          <Button variant="outline" size="sm" onClick={() => void askForNotifications().then(permission.set)}>
            Ask this browser
          </Button>
        </div>
      ) : null}
      <SettingSwitch
        label="Play a sound"
        hint="Two soft notes."
        checked={preferences.sound}
        onChange={(wanted) => {
          save({ sound: wanted });
          if (wanted) playSound();
        }}
      />
      <p className="text-[0.8125rem] text-muted-foreground">
        The choices belong to your account; each browser has to be allowed to show notifications by itself.
      </p>
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
