import type { Metadata } from "next";
import { Suspense } from "react";
import { SearchPage } from "@/features/search/search-page";
import { SearchSkeleton } from "@/features/search/search-skeleton";

export const metadata: Metadata = { title: "Search" };

export default function Page() {
  return (
    <Suspense fallback={<SearchSkeleton />}>
      <SearchPage />
    </Suspense>
  );
}
