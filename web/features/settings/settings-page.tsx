"use client";

import dynamic from "next/dynamic";
import { useSearchParams } from "next/navigation";
import { ErrorNotice } from "@/components/ui/error-notice";
import { Skeleton } from "@/components/ui/skeleton";
import { useMe } from "@/lib/auth/use-auth";
import { paths, type SettingsSection } from "@/lib/paths";
import { AccountSettings } from "./account-settings";
import { AppearanceSettings } from "./appearance-settings";
import { Tabs, TabsContent, TabsList, TabsTrigger } from "./controls/tabs";
import { NotificationSettings } from "./notification-settings";
import { ProfileSettings } from "./profile/profile-settings";
import { sentences } from "./sentences";

const UsageSettings = dynamic(() => import("@/features/usage/usage-settings").then((module) => module.UsageSettings), {
  ssr: false,
  loading: () => <SectionSkeleton />,
});

const SECTIONS: readonly SettingsSection[] = ["profile", "appearance", "notifications", "usage", "account"];

/** Everything a person can set, in five sections that the address names. */
export function SettingsPage() {
  const wanted = useSearchParams().get("section");
  const section = SECTIONS.find((each) => each === wanted) ?? "profile";
  const me = useMe();
  const user = me.data;
  return (
    <div className="mx-auto grid w-full max-w-2xl grid-cols-1 gap-6 px-4 py-6 sm:px-6">
      <h1 className="type-title">{sentences.title}</h1>
      <Tabs
        className="grid-cols-1"
        value={section}
        // Replaces the address without another request: all sections are one page.
        onValueChange={(value) => window.history.replaceState(null, "", paths.settings(value as SettingsSection))}
      >
        {/* On narrow screens in two rows, so that none is out of sight. */}
        <TabsList
          aria-label={sentences.sectionsLabel}
          className="max-sm:flex-wrap max-sm:overflow-visible max-sm:border-b-0 max-sm:px-0"
        >
          {SECTIONS.map((each) => (
            <TabsTrigger key={each} value={each}>
              {sentences.sections[each]}
            </TabsTrigger>
          ))}
        </TabsList>
        {user?.profile && user.settings ? (
          <>
            {/* Stays mounted behind the others, with what was typed and is not saved. */}
            <TabsContent value="profile" forceMount className="data-[state=inactive]:hidden">
              <ProfileSettings user={user} />
            </TabsContent>
            <TabsContent value="appearance">
              <AppearanceSettings />
            </TabsContent>
            <TabsContent value="notifications">
              <NotificationSettings user={user} />
            </TabsContent>
            <TabsContent value="usage">
              <UsageSettings />
            </TabsContent>
            <TabsContent value="account" forceMount className="data-[state=inactive]:hidden">
              <AccountSettings user={user} />
            </TabsContent>
          </>
        ) : (
          <TabsContent value={section}>
            {me.isError ? (
              <ErrorNotice error={me.error} title={sentences.loadFailed} onRetry={() => void me.refetch()} />
            ) : (
              <SectionSkeleton />
            )}
          </TabsContent>
        )}
      </Tabs>
    </div>
  );
}

function SectionSkeleton() {
  return (
    <div aria-busy="true" className="grid gap-4">
      <Skeleton className="h-6 w-32" />
      <Skeleton className="h-9 w-full" />
      <Skeleton className="h-9 w-full" />
      <Skeleton className="h-9 w-2/3" />
    </div>
  );
}
