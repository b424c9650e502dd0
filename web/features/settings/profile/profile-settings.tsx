"use client";

import { useState } from "react";
import { Button } from "@/components/ui/button";
import { Field } from "@/components/ui/form/field";
import { FormError } from "@/components/ui/form/form-error";
import { Input } from "@/components/ui/form/input";
import { Section } from "@/components/ui/section";
import { toast } from "@/components/ui/toaster";
import type { User } from "@/lib/api/types";
import { useSubmit } from "@/lib/use-submit";
import { sentences } from "../sentences";
import { useLeaveWarning } from "../use-leave-warning";
import { useUpdateMe } from "../use-update-me";
import { AvatarSettings } from "./avatar-settings";
import { changesOf, fieldProblems, fieldsOf, type ProfileFields, USERNAME_RULE } from "./profile-fields";
import { StatusFields } from "./status-fields";

const FIELDS = ["display_name", "full_name", "username", "status_text", "status_emoji", "status_expires_at"] as const;

/** What others see of the person. */
export function ProfileSettings({ user }: { user: User }) {
  // Only what was typed: the rest follows the account, also when another tab changes it.
  const [typed, setTyped] = useState<Partial<ProfileFields>>({});
  const updateMe = useUpdateMe();
  const fields: ProfileFields = { ...fieldsOf(user, new Date()), ...typed };
  const isDirty = changesOf(user, fields, new Date()) !== null;
  useLeaveWarning(isDirty && !updateMe.isPending);

  const form = useSubmit({
    fields: FIELDS,
    check: () => fieldProblems(fields, new Date()),
    submit: async () => {
      const changes = changesOf(user, fields, new Date());
      if (!changes) return;
      await updateMe.mutateAsync(changes);
      // What was typed while it was being saved stays.
      setTyped((now) => (now === typed ? {} : now));
      toast.success(sentences.profile.saved);
    },
  });
  const change = (changed: Partial<ProfileFields>) => setTyped((before) => ({ ...before, ...changed }));

  return (
    <div className="grid gap-8">
      <Section title={sentences.picture.title}>
        <AvatarSettings user={user} />
      </Section>
      <form className="grid gap-8" onSubmit={form.onSubmit} noValidate>
        <Section title={sentences.profile.name}>
          <Field
            label={sentences.profile.displayName}
            hint={sentences.profile.displayNameHint}
            error={form.fieldErrors.display_name}
          >
            <Input
              autoComplete="nickname"
              maxLength={100}
              value={fields.display_name}
              onChange={(event) => change({ display_name: event.currentTarget.value })}
            />
          </Field>
          <Field label={sentences.profile.fullName} error={form.fieldErrors.full_name}>
            <Input
              autoComplete="name"
              maxLength={200}
              value={fields.full_name}
              onChange={(event) => change({ full_name: event.currentTarget.value })}
            />
          </Field>
          <Field label={sentences.profile.username} hint={USERNAME_RULE} error={form.fieldErrors.username}>
            <Input
              autoComplete="off"
              autoCapitalize="none"
              autoCorrect="off"
              spellCheck={false}
              maxLength={32}
              value={fields.username}
              onChange={(event) => change({ username: event.currentTarget.value.toLowerCase() })}
            />
          </Field>
        </Section>
        <Section title={sentences.status.title}>
          <StatusFields user={user} fields={fields} errors={form.fieldErrors} onChange={change} />
        </Section>
        <FormError error={form.error} waitSeconds={form.waitSeconds} />
        <div className="flex flex-wrap items-center gap-3">
          <Button type="submit" loading={form.pending} disabled={!isDirty && !form.pending}>
            {sentences.profile.save}
          </Button>
          {isDirty && !form.pending ? (
            <Button variant="ghost" onClick={() => setTyped({})}>
              {sentences.profile.discard}
            </Button>
          ) : null}
        </div>
      </form>
    </div>
  );
}
