import type { Paragraph, PhrasingContent } from "mdast";
import type { Extension as TreeExtension } from "mdast-util-from-markdown";
import type { Code, Construct, Extension, State, Tokenizer } from "micromark-util-types";
import { DISCLOSURE_TAG } from "./html-rules";

/**
 * A line that begins with a tag of <details> or <summary>: those tags, and the texts between them. Markdown's own rule
 * takes all lines up to an empty one for HTML, so that nothing in them would be read.
 */
export interface DisclosureLine {
  type: "disclosureLine";
  children: (DisclosureTag | Paragraph)[];
  data?: Paragraph["data"];
  position?: Paragraph["position"];
}

export interface DisclosureTag {
  type: "disclosureTag";
  value: string;
  data?: Paragraph["data"];
  position?: Paragraph["position"];
}

/** An element within a text that had an opening and a closing tag. */
export interface HtmlElement {
  type: "htmlElement";
  name: string;
  children: PhrasingContent[];
  data?: Paragraph["data"];
  position?: Paragraph["position"];
}

declare module "mdast" {
  interface RootContentMap {
    disclosureLine: DisclosureLine;
    disclosureTag: DisclosureTag;
    htmlElement: HtmlElement;
  }
  interface PhrasingContentMap {
    htmlElement: HtmlElement;
  }
}

declare module "micromark-util-types" {
  interface TokenTypeMap {
    disclosureLine: "disclosureLine";
    disclosureTag: "disclosureTag";
    disclosureText: "disclosureText";
  }
}

const LESS_THAN = 60;

/** Where the parts of a line of tags end, and which of them are tags; empty when it is none. */
function partsOf(line: string): { end: number; isTag: boolean }[] {
  if (!/^<\/?(?:details|summary)/i.test(line)) return [];
  // Tags in code are none.
  const bare = line.replaceAll(/(`+)(?!`).*?[^`]\1(?!`)/g, (code) => " ".repeat(code.length));
  const parts: { end: number; isTag: boolean }[] = [];
  let from = 0;
  for (const { index, 0: tag } of bare.matchAll(DISCLOSURE_TAG)) {
    if (from === 0 && index > 0) return [];
    addText(from, index);
    from = index + tag.length;
    parts.push({ end: from, isTag: true });
  }
  if (from > 0) addText(from, line.length);
  return parts;

  /** Spaces go with the tag before them. */
  function addText(start: number, end: number): void {
    const text = line.slice(start, end);
    const spaces = text.length - text.trimStart().length;
    if (spaces > 0) parts.push({ end: start + spaces, isTag: true });
    if (spaces < text.length) parts.push({ end, isTag: false });
  }
}

function lineTokenizer(source: string): Tokenizer {
  return function tokenize(effects, ok, nok) {
    const now = this.now.bind(this);
    const start = now().offset;
    const lineEnd = source.indexOf("\n", start);
    const parts = partsOf(source.slice(start, lineEnd < 0 ? undefined : lineEnd));
    if (parts.length === 0) return nok;
    let place = 0;

    return (code) => {
      effects.enter("disclosureLine");
      return begin(code);
    };

    function begin(code: Code): State | undefined {
      const part = parts[place];
      if (!part || code === null) {
        effects.exit("disclosureLine");
        return ok(code);
      }
      if (part.isTag) {
        effects.enter("disclosureTag");
      } else {
        effects.enter("disclosureText");
        effects.enter("chunkText", { contentType: "text" });
      }
      return inside(code);
    }

    function inside(code: Code): State | undefined {
      const part = parts[place];
      if (part && code !== null && code > -3 && now().offset < start + part.end) {
        effects.consume(code);
        return inside;
      }
      if (part?.isTag) {
        effects.exit("disclosureTag");
      } else {
        effects.exit("chunkText");
        effects.exit("disclosureText");
      }
      place += 1;
      return begin(code);
    }
  };
}

/** The syntax of such lines for one source. */
export function htmlSyntax(source: string): Extension {
  const construct: Construct = { name: "disclosureLine", tokenize: lineTokenizer(source) };
  return { flow: { [LESS_THAN]: construct } };
}

/** Makes nodes of them. */
export const htmlTree: TreeExtension = {
  enter: {
    disclosureLine(token) {
      this.enter({ type: "disclosureLine", children: [] }, token);
    },
    disclosureTag(token) {
      this.enter({ type: "disclosureTag", value: this.sliceSerialize(token) }, token);
    },
    disclosureText(token) {
      this.enter({ type: "paragraph", children: [] }, token);
    },
  },
  exit: {
    disclosureLine(token) {
      this.exit(token);
    },
    disclosureTag(token) {
      this.exit(token);
    },
    disclosureText(token) {
      this.exit(token);
    },
  },
};
