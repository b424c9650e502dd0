"use client";

import { Button } from "@/components/ui/button";
import { type SocialProvider, useConfig } from "@/lib/config";
import { paths } from "@/lib/paths";
import { beginSignIn } from "../links/begun";
import { sentences } from "../sentences";

const NAMES: Readonly<Record<SocialProvider, string>> = { github: "GitHub", google: "Google" };

/** Buttons of the providers that the project has switched on; nothing where it has none. */
export function SocialButtons({ next }: { next: string }) {
  const config = useConfig();
  const providers = (config?.providers ?? []).filter((provider) => provider in NAMES);
  if (providers.length === 0) return null;
  return (
    <div className="grid gap-3">
      <div className="flex items-center gap-3 text-sm text-ink-2">
        <span className="h-px flex-1 bg-line" aria-hidden />
        {sentences.social.or}
        <span className="h-px flex-1 bg-line" aria-hidden />
      </div>
      {providers.map((provider) => (
        <Button key={provider} variant="outline" onClick={() => window.location.assign(addressOf(provider, next))}>
          {sentences.social.continueWith(NAMES[provider])}
        </Button>
      ))}
    </div>
  );
}

// The gateway sends the browser to the provider and from there to the callback page.
function addressOf(provider: SocialProvider, next: string): string {
  const query = new URLSearchParams({ ...(next === paths.home ? {} : { next }), mark: beginSignIn() });
  return `/auth/social?${new URLSearchParams({ provider, redirect_to: `${paths.callback}?${query}` })}`;
}
