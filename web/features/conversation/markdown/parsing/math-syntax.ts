import type { Literal } from "mdast";
import type { Extension as TreeExtension } from "mdast-util-from-markdown";
import type { Code, Construct, Extension, State, Tokenizer } from "micromark-util-types";
import { closesOnItsOwnLines, commandAt, isPlausibleFormula } from "./math-rules";

/** A formula in lines of its own. */
export interface MathBlock extends Literal {
  type: "math";
}

/** A formula within a text; `display` for those between $$ or \[ \], which are set large. */
export interface MathInline extends Literal {
  type: "inlineMath";
  display: boolean;
}

declare module "mdast" {
  interface RootContentMap {
    math: MathBlock;
    inlineMath: MathInline;
  }
  interface PhrasingContentMap {
    inlineMath: MathInline;
  }
}

declare module "micromark-util-types" {
  interface TokenTypeMap {
    mathBlock: "mathBlock";
    mathBlockMarker: "mathBlockMarker";
    mathBlockLine: "mathBlockLine";
    mathInline: "mathInline";
    mathInlineText: "mathInlineText";
  }
}

const DOLLAR = 36;
const BACKSLASH = 92;
const PARENTHESIS_OPEN = 40;
const PARENTHESIS_CLOSE = 41;
const BRACKET_OPEN = 91;
const BRACKET_CLOSE = 93;

/** No formula within a text is longer; also bounds how far the parser looks for the end of one. */
const LONGEST_INLINE = 2000;

function isLineEnding(code: Code): boolean {
  return code !== null && code < -2;
}

function isBlank(code: Code): boolean {
  return code === null || code < 0 || code === 32;
}

const nextLine: Construct = {
  partial: true,
  tokenize(effects, ok, nok) {
    const { parser } = this;
    const now = this.now.bind(this);
    return (code) => {
      if (code === null) return nok(code);
      effects.enter("lineEnding");
      effects.consume(code);
      effects.exit("lineEnding");
      // A lazy line belongs to the paragraph of a list or quotation that has ended, never to a formula.
      return (next) => (parser.lazy[now().line] ? nok(next) : ok(next));
    };
  },
};

/**
 * Formulas in lines of their own: $$ … $$, \[ … \] and \begin{align} … \end{align}. The parser cannot look ahead over
 * lines, so that the source tells whether and where one that begins here ends.
 */
function blockTokenizer(source: string): Tokenizer {
  return function tokenize(effects, ok, nok) {
    const now = this.now.bind(this);
    const interrupts = this.interrupt;
    const formula = closesOnItsOwnLines(source, now().offset);
    if (formula === null) return nok;
    const { opener, closing, areKept } = formula;
    const start = now().offset;
    const end = formula.end + (areKept ? closing.length : 0);

    return (code) => {
      effects.enter("mathBlock");
      if (areKept) return interrupts ? ok(code) : line(code);
      effects.enter("mathBlockMarker");
      return marker(code);
    };

    function marker(code: Code): State | undefined {
      effects.consume(code);
      if (now().offset < start + opener.length) return marker;
      effects.exit("mathBlockMarker");
      return interrupts ? ok : line;
    }

    function line(code: Code): State | undefined {
      if (code === null) return done(code);
      if (now().offset === end) return close(code);
      if (isLineEnding(code)) return effects.attempt(nextLine, line, done)(code);
      effects.enter("mathBlockLine");
      return inLine(code);
    }

    function inLine(code: Code): State | undefined {
      if (code === null || isLineEnding(code) || now().offset === end) {
        effects.exit("mathBlockLine");
        return line(code);
      }
      effects.consume(code);
      return inLine;
    }

    function close(code: Code): State | undefined {
      if (code === null || isLineEnding(code)) return done(code);
      effects.enter("mathBlockMarker");
      return rest(code);
    }

    function rest(code: Code): State | undefined {
      if (code === null || isLineEnding(code)) {
        effects.exit("mathBlockMarker");
        return done(code);
      }
      effects.consume(code);
      return rest;
    }

    function done(code: Code): State | undefined {
      effects.exit("mathBlock");
      return ok(code);
    }
  };
}

/** Consumes a formula within a text: tokens of text, between them the line endings. */
function inlineConsumer(effects: Parameters<Tokenizer>[0]) {
  let open = false;
  function end(): void {
    if (open) effects.exit("mathInlineText");
    open = false;
  }
  function take(code: Code): void {
    if (isLineEnding(code)) {
      end();
      effects.enter("lineEnding");
      effects.consume(code);
      effects.exit("lineEnding");
      return;
    }
    if (!open) effects.enter("mathInlineText");
    open = true;
    effects.consume(code);
  }
  return { take, end };
}

/** $ … $ by Pandoc's rules and some more, so that prices stay prices, and $$ … $$. */
function dollarTokenizer(source: string): Tokenizer {
  return function tokenize(effects, ok, nok) {
    const before = this.previous;
    const start = this.now().offset;
    if (before === DOLLAR) return nok;
    const next = source.indexOf("$", start + 1);
    if (next < 0 || next - start > LONGEST_INLINE) return nok;

    const formula = inlineConsumer(effects);
    let content = "";
    let double = false;
    return (code) => {
      effects.enter("mathInline");
      formula.take(code);
      return (second) => {
        if (second !== DOLLAR) return isBlank(second) ? nok(second) : inside(second);
        double = true;
        formula.take(second);
        return (third) => (third === DOLLAR ? nok(third) : inside(third));
      };
    };

    function inside(code: Code): State | undefined {
      if (code === null || content.length > LONGEST_INLINE) return nok(code);
      if (code === DOLLAR) return closing(code);
      content += code < 0 ? " " : String.fromCharCode(code);
      formula.take(code);
      return code === BACKSLASH ? escaped : inside;
    }

    function escaped(code: Code): State | undefined {
      if (code === null) return nok(code);
      content += code < 0 ? " " : String.fromCharCode(code);
      formula.take(code);
      return inside;
    }

    function closing(code: Code): State | undefined {
      formula.take(code);
      if (!double) return (after) => (isPlausibleFormula(content, before, after) ? finish(after) : nok(after));
      return (second) => {
        if (second !== DOLLAR || content.trim() === "") return nok(second);
        formula.take(second);
        return finish;
      };
    }

    function finish(code: Code): State | undefined {
      formula.end();
      effects.exit("mathInline");
      return ok(code);
    }
  };
}

/** \( … \) and \[ … \], as models write formulas. */
function bracketTokenizer(source: string): Tokenizer {
  return function tokenize(effects, ok, nok) {
    const start = this.now().offset;
    const large = source[start + 1] === "[";
    const last = source.indexOf(large ? "\\]" : "\\)", start + 2);
    if (last < 0 || last - start > LONGEST_INLINE) return nok;

    const formula = inlineConsumer(effects);
    let content = "";
    return (code) => {
      effects.enter("mathInline");
      formula.take(code);
      return (second) => {
        if (second !== PARENTHESIS_OPEN && second !== BRACKET_OPEN) return nok(second);
        formula.take(second);
        return inside;
      };
    };

    function inside(code: Code): State | undefined {
      if (code === null || content.length > LONGEST_INLINE) return nok(code);
      formula.take(code);
      if (code === BACKSLASH) return escaped;
      content += code < 0 ? " " : String.fromCharCode(code);
      return inside;
    }

    function escaped(code: Code): State | undefined {
      if (code === null) return nok(code);
      formula.take(code);
      if (code === (large ? BRACKET_CLOSE : PARENTHESIS_CLOSE)) return closed;
      content += code < 0 ? " " : String.fromCharCode(code);
      return inside;
    }

    function closed(code: Code): State | undefined {
      // \[text\](address) is a link that somebody has escaped.
      if (content.trim() === "" || (large && code === PARENTHESIS_OPEN)) return nok(code);
      formula.end();
      effects.exit("mathInline");
      return ok(code);
    }
  };
}

/**
 * Formulas within a text that a command begins and ends: \ce{…}, \begin{align} … \end{align}. They are as long as the
 * source says, which in quotations and lists holds the beginnings of lines too.
 */
function commandTokenizer(source: string): Tokenizer {
  return function tokenize(effects, ok, nok) {
    const now = this.now.bind(this);
    const found = commandAt(source, now().offset)?.end ?? null;
    if (found === null) return nok;
    const end: number = found;
    const formula = inlineConsumer(effects);
    return (code) => {
      effects.enter("mathInline");
      return inside(code);
    };

    function inside(code: Code): State | undefined {
      if (now().offset >= end) {
        formula.end();
        effects.exit("mathInline");
        return ok(code);
      }
      if (code === null) return nok(code);
      formula.take(code);
      return inside;
    }
  };
}

/** The syntax of formulas for one source. */
export function mathSyntax(source: string): Extension {
  const block: Construct = { name: "mathBlock", concrete: true, tokenize: blockTokenizer(source) };
  return {
    flow: { [DOLLAR]: block, [BACKSLASH]: block },
    text: {
      [DOLLAR]: { name: "mathDollar", tokenize: dollarTokenizer(source) },
      [BACKSLASH]: [
        { name: "mathBracket", tokenize: bracketTokenizer(source) },
        { name: "mathCommand", tokenize: commandTokenizer(source) },
      ],
    },
  };
}

/** Makes nodes of formulas. */
export const mathTree: TreeExtension = {
  enter: {
    mathBlock(token) {
      this.enter({ type: "math", value: "" }, token);
    },
    mathInline(token) {
      this.enter({ type: "inlineMath", value: "", display: false }, token);
    },
  },
  exit: {
    mathBlockLine(token) {
      const node = this.stack.at(-1);
      if (node?.type === "math") node.value += (node.value && "\n") + this.sliceSerialize(token);
    },
    mathBlock(token) {
      this.exit(token);
    },
    mathInline(token) {
      const node = this.stack.at(-1);
      if (node?.type === "inlineMath") {
        const source = this.sliceSerialize(token);
        const isCommand = /^\\[a-z]/.test(source);
        const marker = isCommand ? 0 : source.startsWith("$") && !source.startsWith("$$") ? 1 : 2;
        node.value = source.slice(marker, source.length - marker).trim();
        node.display = source.startsWith("$$") || source.startsWith("\\[") || source.startsWith("\\begin");
      }
      this.exit(token);
    },
  },
};
