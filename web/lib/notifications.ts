/** Tells people that an answer has come while they look elsewhere: a desktop notification, a soft sound. */
import { paths } from "./paths";

/** What the person wants to be told; kept in the account's notification_preferences. */
export type NotificationPreferences = { answer_ready: boolean; sound: boolean };

/** Whether the browser may show notifications; "unsupported" where it cannot. */
export type NotificationPermissionState = NotificationPermission | "unsupported";

const NONE: NotificationPreferences = { answer_ready: false, sound: false };

let wanted = NONE;
let audio: AudioContext | undefined;

/** Reads the preferences out of what the account holds. */
export function readPreferences(stored: Readonly<Record<string, unknown>> | null | undefined): NotificationPreferences {
  return { answer_ready: stored?.answer_ready === true, sound: stored?.sound === true };
}

/** Sets what `notifyAnswerReady` does from now on. */
export function setNotificationPreferences(preferences: NotificationPreferences | null): void {
  wanted = preferences ?? NONE;
}

/** The browser's answer to whether this site may show notifications. */
export function notificationPermission(): NotificationPermissionState {
  return typeof Notification === "undefined" ? "unsupported" : Notification.permission;
}

/** Asks the person, through the browser, whether notifications may be shown. Only in answer to a click. */
export async function askForNotifications(): Promise<NotificationPermissionState> {
  return typeof Notification === "undefined" ? "unsupported" : Notification.requestPermission();
}

/** Says that a session's answer has come, in the ways the person has chosen. For pages that nobody looks at. */
export function notifyAnswerReady(sessionId: string, title: string, body: string): void {
  if (wanted.answer_ready && notificationPermission() === "granted") showNotification(sessionId, title, body);
  if (wanted.sound) playSound();
}

function showNotification(sessionId: string, title: string, body: string): void {
  try {
    // What was said stays out of it: others may see the screen.
    const notification = new Notification(title, {
      body,
      tag: `concerto-${sessionId}`,
      icon: "/concerto.svg",
    });
    notification.onclick = () => {
      window.focus();
      notification.close();
      if (new URLSearchParams(window.location.search).get("id") !== sessionId) {
        window.location.assign(paths.chat(sessionId));
      }
    };
    const close = () => {
      if (document.hidden) return;
      notification.close();
      document.removeEventListener("visibilitychange", close);
    };
    document.addEventListener("visibilitychange", close);
  } catch {
    // Some phones offer notifications to installed apps only, and say so by failing here.
  }
}

/** Plays two soft notes. Browsers stay silent until the person has clicked or typed something in the page. */
export function playSound(): void {
  if (typeof AudioContext === "undefined") return;
  audio ??= new AudioContext();
  const context = audio;
  const play = () => {
    playNote(context, 587.33, 0);
    playNote(context, 880, 0.14);
  };
  if (context.state === "running") play();
  else
    context.resume().then(play, () => {
      // Not allowed to sound; the answer is there all the same.
    });
}

function playNote(context: AudioContext, frequency: number, delaySeconds: number): void {
  const start = context.currentTime + delaySeconds;
  const volume = context.createGain();
  volume.gain.setValueAtTime(0, start);
  volume.gain.linearRampToValueAtTime(0.08, start + 0.02);
  volume.gain.exponentialRampToValueAtTime(0.0001, start + 0.5);
  const note = context.createOscillator();
  note.type = "sine";
  note.frequency.value = frequency;
  note.connect(volume).connect(context.destination);
  note.start(start);
  note.stop(start + 0.55);
}
