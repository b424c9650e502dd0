"use client";

import { useEffect, useState } from "react";

function untilMidnight(now: Date): number {
  return new Date(now.getFullYear(), now.getMonth(), now.getDate() + 1).getTime() - now.getTime();
}

/** The present day; moves on at midnight and when a tab that slept is looked at again. */
export function useToday(): Date {
  const [today, setToday] = useState(() => new Date());
  useEffect(() => {
    const update = () => {
      const now = new Date();
      setToday((shown) => (shown.toDateString() === now.toDateString() ? shown : now));
    };
    const timer = setTimeout(update, untilMidnight(today) + 500);
    document.addEventListener("visibilitychange", update);
    return () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", update);
    };
  }, [today]);
  return today;
}
