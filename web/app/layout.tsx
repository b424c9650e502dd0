import type { Metadata, Viewport } from "next";
import type { ReactNode } from "react";
import { Providers } from "@/features/shell/providers";
import { APP_NAME, pageTitle } from "@/lib/app-name";
import { fontVariables } from "./fonts";
import { sentences } from "./sentences";
import "./globals.css";

export const metadata: Metadata = {
  title: { default: APP_NAME, template: pageTitle("%s") },
  description: sentences.description,
  applicationName: APP_NAME,
  manifest: "/manifest.webmanifest",
  robots: { index: false, follow: false },
  // Phones make links of numbers in answers otherwise.
  formatDetection: { telephone: false, date: false, address: false, email: false },
};

export const viewport: Viewport = {
  width: "device-width",
  initialScale: 1,
  interactiveWidget: "resizes-content",
  themeColor: [
    { media: "(prefers-color-scheme: light)", color: "#e9f0ed" },
    { media: "(prefers-color-scheme: dark)", color: "#0b100e" },
  ],
};

export default function RootLayout({ children }: { children: ReactNode }) {
  return (
    // theme.js changes the class before React sees it.
    <html lang="en" className={fontVariables} suppressHydrationWarning>
      <head>
        {/* Blocks on purpose: the theme is to be known before the first paint. A file, since the page's security policy
            allows no inline scripts of ours. */}
        <script src="/theme.js" />
      </head>
      <body>
        <noscript>
          <p className="p-4">{sentences.noScript}</p>
        </noscript>
        <Providers>{children}</Providers>
      </body>
    </html>
  );
}
