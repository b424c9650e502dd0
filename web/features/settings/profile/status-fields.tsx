"use client";

import { Button } from "@/components/ui/button";
import { Field } from "@/components/ui/form/field";
import { Input } from "@/components/ui/form/input";
import type { User } from "@/lib/api/types";
import type { FieldErrors } from "@/lib/use-submit";
import { NativeSelect } from "../controls/native-select";
import { sentences } from "../sentences";
import { type ProfileFields, STATUS_CHOICES } from "./profile-fields";

type StatusFieldsProps = {
  user: User;
  fields: ProfileFields;
  errors: FieldErrors;
  onChange: (changed: Partial<ProfileFields>) => void;
};

const QUICK = [
  { emoji: "💬", text: sentences.status.quick.meeting },
  { emoji: "🎧", text: sentences.status.quick.concentrating },
  { emoji: "🏠", text: sentences.status.quick.home },
  { emoji: "🌴", text: sentences.status.quick.holiday },
] as const;

/** What the person is doing, with an emoji, and for how long it is to be shown. */
export function StatusFields({ user, fields, errors, onChange }: StatusFieldsProps) {
  const kept = user.profile?.status_expires_at ?? null;
  return (
    <>
      <div className="grid gap-4 sm:grid-cols-[7rem_1fr]">
        <Field label={sentences.status.emoji} error={errors.status_emoji}>
          <Input
            autoComplete="off"
            maxLength={32}
            value={fields.status_emoji}
            onChange={(event) => onChange({ status_emoji: event.currentTarget.value })}
          />
        </Field>
        <Field label={sentences.status.title} error={errors.status_text}>
          <Input
            autoComplete="off"
            maxLength={200}
            placeholder={sentences.status.placeholder}
            value={fields.status_text}
            onChange={(event) => onChange({ status_text: event.currentTarget.value })}
          />
        </Field>
      </div>
      <div className="flex flex-wrap gap-2">
        {QUICK.map(({ emoji, text }) => (
          <Button
            key={text}
            variant="outline"
            size="sm"
            onClick={() => onChange({ status_emoji: emoji, status_text: text })}
          >
            <span aria-hidden>{emoji}</span> {text}
          </Button>
        ))}
        {fields.status_text || fields.status_emoji ? (
          <Button
            variant="ghost"
            size="sm"
            onClick={() => onChange({ status_emoji: "", status_text: "", status_until: "never", status_custom: "" })}
          >
            {sentences.status.clear}
          </Button>
        ) : null}
      </div>
      <Field
        label={sentences.status.showIt}
        error={fields.status_until === "custom" ? undefined : errors.status_expires_at}
      >
        <NativeSelect
          value={fields.status_until}
          onChange={(event) => onChange({ status_until: event.currentTarget.value })}
        >
          {kept && new Date(kept) > new Date() ? (
            <option value="keep">{sentences.status.untilMoment(formatMoment(kept))}</option>
          ) : null}
          {STATUS_CHOICES.map(({ value, label }) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </NativeSelect>
      </Field>
      {fields.status_until === "custom" ? (
        <Field label={sentences.status.until} error={errors.status_expires_at}>
          <Input
            type="datetime-local"
            value={fields.status_custom}
            onChange={(event) => onChange({ status_custom: event.currentTarget.value })}
          />
        </Field>
      ) : null}
    </>
  );
}

function formatMoment(moment: string): string {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }).format(new Date(moment));
}
