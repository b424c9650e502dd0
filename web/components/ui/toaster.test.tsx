import { act, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ApiError } from "@/lib/api/errors";
import { Toaster, toast, toastError } from "./toaster";

beforeEach(() => {
  vi.useFakeTimers();
  render(<Toaster />);
});

afterEach(() => {
  act(() => toast.dismiss());
  vi.useRealTimers();
});

const wait = (milliseconds: number) => act(() => vi.advanceTimersByTime(milliseconds));
const pass = (run: () => void) => act(run);

test("a toast goes away by itself and says so; the newest stands first", () => {
  const gone = vi.fn();
  pass(() => void toast("First", { duration: 1000, onGone: gone }));
  pass(() => void toast("Second", { duration: 5000 }));
  expect(screen.getAllByText(/First|Second/).map((element) => element.textContent)).toEqual(["Second", "First"]);
  wait(1100);
  expect(screen.queryByText("First")).toBeNull();
  expect(gone).toHaveBeenCalledOnce();
  expect(screen.getByText("Second")).toBeVisible();
});

test("its action is done once and ends it, without it being gone by itself", () => {
  const [undo, gone] = [vi.fn(), vi.fn()];
  pass(() => void toast("Deleted", { duration: 1000, action: { label: "Undo", onClick: undo }, onGone: gone }));
  fireEvent.click(screen.getByRole("button", { name: "Undo" }));
  expect(screen.queryByText("Deleted")).toBeNull();
  wait(5000);
  expect(undo).toHaveBeenCalledOnce();
  expect(gone).not.toHaveBeenCalled();
});

test("putting it away means that its time is over", () => {
  const gone = vi.fn();
  pass(() => void toast("Deleted", { onGone: gone }));
  fireEvent.click(screen.getByRole("button", { name: "Dismiss" }));
  expect(gone).toHaveBeenCalledOnce();
});

test("time stands still while somebody points at it or has tabbed to it", () => {
  pass(() => void toast("Deleted", { duration: 1000, action: { label: "Undo", onClick: () => {} } }));
  const region = screen.getByRole("region", { name: "Notices" });
  fireEvent.pointerEnter(region, { pointerType: "mouse" });
  wait(10_000);
  expect(screen.getByText("Deleted")).toBeVisible();
  fireEvent.pointerLeave(region);
  fireEvent.keyDown(window, { altKey: true, code: "KeyT" });
  expect(screen.getByRole("button", { name: "Undo" })).toHaveFocus();
  wait(10_000);
  expect(screen.getByText("Deleted")).toBeVisible();
  act(() => screen.getByRole("button", { name: "Undo" }).blur());
  wait(2000);
  expect(screen.queryByText("Deleted")).toBeNull();
});

test("an error says what went wrong, with the request id, and whoever does not see it hears it", () => {
  const error = new ApiError("Not now.", { code: 503, status: "UNAVAILABLE", reason: "X", requestId: "request-1" });
  pass(() => toastError(error, "The chat could not be renamed."));
  expect(screen.getByText("The chat could not be renamed.")).toBeVisible();
  expect(screen.getByText("Not now. (request id request-1)")).toBeVisible();
  expect(screen.getByRole("region", { name: "Notices" })).toHaveAttribute("aria-live", "polite");
  pass(() => toastError("no error at all"));
  expect(screen.getByText("Something went wrong. Try again.")).toBeVisible();
});
