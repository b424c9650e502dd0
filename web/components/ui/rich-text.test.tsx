import { render } from "@testing-library/react";
import { expect, test } from "vitest";
import { RichText } from "./rich-text";

test("elements stand where the sentence has their places, also at its ends", () => {
  const { container } = render(
    <p>
      <RichText sentence="{who} wrote to {whom}." parts={{ who: <strong>Ada</strong>, whom: <em>Clara</em> }} />
    </p>,
  );
  expect(container.innerHTML).toBe("<p><strong>Ada</strong> wrote to <em>Clara</em>.</p>");
});

test("what stands in a part is no place of its own", () => {
  const { container } = render(<RichText sentence="To {name}" parts={{ name: "{name}" }} />);
  expect(container).toHaveTextContent("To {name}");
});
