import type { List, ListItem, Nodes, Parents, RootContent, Table, TableRow } from "mdast";
import { Fragment, memo, type ReactNode } from "react";
import { cn } from "@/lib/utils";
import { CodeBlock } from "./code/code-block";
import { dirOf, isBareAddress } from "./direction";
import { DisclosureView } from "./disclosure-view";
import { Formula } from "./formula";
import { AnswerImage, AnswerLink, FootnoteMark, Footnotes } from "./links";
import { disclose, isDisclosure, mayDisclose, type Part, type Piece } from "./parsing/disclosures";
import { isInlineElement } from "./parsing/html-rules";
import type { References } from "./parsing/references";
import { ScrollBox } from "./scroll-box";
import { sentences } from "./sentences";

/** What a node stands within. */
export type RenderContext = {
  /** Whether the end of the block has not arrived yet. */
  open?: boolean;
  references?: References | null;
  /** Begins the ids of this text's footnotes. */
  idPrefix?: string;
  /** Within a link there can be no other. */
  inLink?: boolean;
  /** Within a paragraph there can be no blocks. */
  inText?: boolean;
  /** How many nodes this is within. */
  depth?: number;
};

/** No text means more levels; their words are shown without them, so that none can exhaust the stack. */
const DEEPEST = 100;

const HEADING_LOOKS = [
  "text-2xl font-semibold",
  "text-xl font-semibold",
  "text-lg font-semibold",
  "text-base font-semibold",
  "text-sm font-semibold",
  "text-sm font-semibold text-ink-2",
] as const;

const ALIGNED: Readonly<Record<string, string>> = { left: "text-left", center: "text-center", right: "text-right" };

const CODE_LOOKS = "rounded bg-well px-1 py-0.5 font-mono text-[0.875em]";

const ELEMENT_LOOKS: Readonly<Record<string, string>> = {
  b: "font-semibold",
  strong: "font-semibold",
  code: CODE_LOOKS,
  samp: CODE_LOOKS,
  kbd: "rounded border border-b-2 bg-well px-1.5 py-0.5 font-mono text-[0.8em]",
  mark: "rounded-sm px-0.5",
};

/** What stands between two blocks. */
export const BLOCKS = "space-y-4";

/**
 * Makes React elements of a syntax tree. Elements are only those written here and those on the list of HTML that only
 * formats words; attributes only those written here. All other HTML is text like any other.
 */
export function renderNode(node: Nodes, context: RenderContext): ReactNode {
  switch (node.type) {
    case "text":
      return node.value;
    case "html":
      if (/^<w?br\s*\/?>$/i.test(node.value)) return /^<w/i.test(node.value) ? <wbr /> : <br />;
      if (!context.inText && /^<hr\s*\/?>$/i.test(node.value.trim())) return <hr />;
      return context.inText ? (
        node.value
      ) : (
        <p dir="auto" className="whitespace-pre-wrap">
          {node.value}
        </p>
      );
    case "break":
      return <br />;
    case "emphasis":
      return <em>{renderChildren(node, context)}</em>;
    case "strong":
      return <strong className="font-semibold">{renderChildren(node, context)}</strong>;
    case "delete":
      return <del>{renderChildren(node, context)}</del>;
    case "inlineCode":
      return (
        <code dir="ltr" className={CODE_LOOKS}>
          {node.value}
        </code>
      );
    case "htmlElement": {
      const { name } = node;
      const children = renderChildren(node, context);
      if (!isInlineElement(name)) return children;
      const Tag = name;
      return <Tag className={ELEMENT_LOOKS[name]}>{children}</Tag>;
    }
    case "disclosureLine":
      return (
        <p dir="auto" className="whitespace-pre-wrap">
          {renderText(node, context)}
        </p>
      );
    case "disclosureTag":
      return node.value;
    case "inlineMath":
      return <Formula tex={node.value} display={node.display} />;
    case "math":
      return <Formula tex={node.value} display />;
    case "paragraph":
      return context.inText ? renderChildren(node, context) : <p dir="auto">{renderText(node, context)}</p>;
    case "heading": {
      const Tag = `h${node.data?.level ?? 2}` as const;
      return (
        <Tag dir="auto" className={cn("pt-1 leading-snug text-balance", HEADING_LOOKS[node.depth - 1])}>
          {renderText(node, context)}
        </Tag>
      );
    }
    case "blockquote":
      return (
        <blockquote dir={dirOf(node)} className={cn("border-s-2 border-line-2 ps-4 text-ink-2", BLOCKS)}>
          {renderChildren(node, context)}
        </blockquote>
      );
    case "thematicBreak":
      return <hr />;
    case "code":
      if (node.lang === "math" && !context.open) return <Formula tex={node.value} display />;
      return <CodeBlock code={node.value} language={node.lang ?? null} open={context.open ?? false} />;
    case "list":
      return renderList(node, context);
    case "table":
      return renderTable(node, context);
    case "link":
      return renderLink(node.url, node.title, node, context);
    case "linkReference": {
      const definition = context.references?.definitions.get(node.identifier);
      if (!definition) return renderChildren(node, context);
      return renderLink(definition.url, definition.title, node, context);
    }
    case "image":
      return <AnswerImage address={node.url} alt={node.alt} inLink={context.inLink} />;
    case "imageReference": {
      const definition = context.references?.definitions.get(node.identifier);
      return <AnswerImage address={definition?.url ?? ""} alt={node.alt} inLink={context.inLink} />;
    }
    case "footnoteReference": {
      const number = context.references?.numbers.get(node.identifier);
      return number ? (
        <FootnoteMark number={number} idPrefix={context.idPrefix ?? ""} />
      ) : (
        `[^${node.label ?? node.identifier}]`
      );
    }
    case "definition":
    case "footnoteDefinition":
    case "yaml":
      return null;
    default:
      return "children" in node ? renderChildren(node, context) : null;
  }
}

/** Renders nodes one after another; only the last one can be open. */
function renderAll<Each extends Nodes>(
  nodes: readonly Each[],
  context: RenderContext,
  render: (node: Each, context: RenderContext) => ReactNode = renderNode,
): ReactNode {
  const depth = (context.depth ?? 0) + 1;
  if (depth > DEEPEST) return nodes.map(textOf).join("\n");
  const last = { ...context, depth };
  const others = context.open ? { ...last, open: false } : last;
  if (mayDisclose(nodes)) {
    const pieces = nodes.map((node, key) => ({ key, node: node as RootContent, open: false }));
    const parts = disclose(pieces, context.open ?? false);
    return renderParts(parts, others, (piece) => render(piece.node as Each, others));
  }
  const rendered: ReactNode[] = [];
  for (const [place, node] of nodes.entries()) {
    const content = render(node, place < nodes.length - 1 ? others : last);
    // Nodes of a text have no other identity than their place.
    rendered.push(typeof content === "string" ? content : <Fragment key={place}>{content}</Fragment>);
  }
  return rendered;
}

/** The words of a node without their looks. */
function textOf(node: Nodes): string {
  if ("children" in node) return node.children.map(textOf).join("");
  return "value" in node ? node.value : "";
}

function renderChildren(node: Parents, context: RenderContext): ReactNode {
  return renderAll(node.children, context);
}

/** Blocks, some of which can be folded. */
export function renderParts(
  parts: readonly Part[],
  context: RenderContext,
  renderPiece: (piece: Piece) => ReactNode,
): ReactNode {
  return parts.map((part) => {
    if (!isDisclosure(part)) return <Fragment key={part.key}>{renderPiece(part)}</Fragment>;
    const summary = part.summary.map((piece, place) => (
      <Fragment key={piece.key}>
        {place > 0 ? " " : null}
        {renderNode(piece.node, { ...context, inText: true })}
      </Fragment>
    ));
    return (
      <DisclosureView key={part.key} disclosure={part} summary={summary.length > 0 ? summary : null}>
        <div className={cn("pt-3 pb-1", BLOCKS)}>{renderParts(part.parts, context, renderPiece)}</div>
      </DisclosureView>
    );
  });
}

/** The children of a node that holds text, not blocks. */
function renderText(node: Parents, context: RenderContext): ReactNode {
  return renderAll(node.children, { ...context, inText: true });
}

function renderLink(url: string, title: string | null | undefined, node: Parents, context: RenderContext): ReactNode {
  const children = renderChildren(node, { ...context, inLink: true });
  if (context.inLink) return children;
  return (
    <AnswerLink address={url} title={title} isAddress={isBareAddress(node)}>
      {children}
    </AnswerLink>
  );
}

function renderList(list: List, context: RenderContext): ReactNode {
  // Empty lines between items, or between the blocks of one, set all items apart.
  const loose = list.spread || list.children.some((item) => item.spread);
  const items = renderAll(list.children, context, (item, itemContext) => (
    <ItemView node={item} context={itemContext} loose={loose ?? false} />
  ));
  // The space is the items', each of which may be read in a direction of its own; the marks stand before them.
  const looks = cn("[&>li]:ms-7", loose ? "space-y-3" : "space-y-1");
  if (!list.ordered)
    return (
      <ul dir={dirOf(list)} className={cn("list-disc", looks)}>
        {items}
      </ul>
    );
  return (
    <ol dir={dirOf(list)} start={list.start ?? 1} className={cn("list-decimal", looks)}>
      {items}
    </ol>
  );
}

type PartProps<Part> = { node: Part; context: RenderContext };

/** Whether an item or row looks the same: those of a growing block stay the same nodes, their context does not. */
function isSamePart<Part>(before: PartProps<Part>, after: PartProps<Part>): boolean {
  return (
    before.node === after.node &&
    before.context.open === after.context.open &&
    before.context.references === after.context.references
  );
}

type ItemProps = PartProps<ListItem> & { loose: boolean };

const ItemView = memo(function ItemView({ node: item, context, loose }: ItemProps) {
  const task = typeof item.checked === "boolean";
  return (
    <li dir={dirOf(item)} className={cn("ps-1", loose ? "space-y-3" : "space-y-1", task && "relative list-none ps-0")}>
      {task ? (
        <input
          type="checkbox"
          checked={item.checked ?? false}
          disabled
          aria-label={item.checked ? sentences.done : sentences.toDo}
          className="absolute top-1.5 -start-6 size-4"
        />
      ) : null}
      {renderAll(item.children, context, (child, childContext) =>
        loose || child.type !== "paragraph" ? (
          renderNode(child, childContext)
        ) : (
          <div dir="auto">{renderText(child, childContext)}</div>
        ),
      )}
    </li>
  );
}, isSameItem);

function isSameItem(before: ItemProps, after: ItemProps): boolean {
  return before.loose === after.loose && isSamePart(before, after);
}

function renderTable(table: Table, context: RenderContext): ReactNode {
  const [head, ...rows] = table.children;
  const dir = dirOf(table);
  // As a text it is the same from one reading to the next.
  const align = (table.align ?? []).map((side) => side ?? (dir === "rtl" ? "right" : "left")).join();
  return (
    <ScrollBox label={sentences.table}>
      <table
        dir={dir}
        className={cn(
          "w-full border-collapse text-[0.9375rem] leading-6 tabular-nums wrap-normal [&_tbody_tr:last-child>td]:border-b-0",
          // The table's sides, as a cell's own direction may be another one.
          dir === "rtl"
            ? "[&_tr>:first-child]:pr-0 [&_tr>:last-child]:pl-0"
            : "[&_tr>:first-child]:pl-0 [&_tr>:last-child]:pr-0",
        )}
      >
        <thead>{head ? <RowView node={head} context={context} align={align} isHead /> : null}</thead>
        <tbody>
          {renderAll(rows, context, (row, rowContext) => (
            <RowView node={row} context={rowContext} align={align} />
          ))}
        </tbody>
      </table>
    </ScrollBox>
  );
}

type RowProps = PartProps<TableRow> & { align: string; isHead?: boolean };

const RowView = memo(function RowView({ node: row, context, align, isHead = false }: RowProps) {
  const columns = align.split(",");
  let column = 0;
  return (
    <tr>
      {renderAll(row.children, context, (cell, cellContext) => {
        const looks = cn(
          "max-w-96 min-w-20 border-b px-3 py-2 align-top",
          ALIGNED[columns[column] ?? ""] ?? ALIGNED.left,
        );
        column += 1;
        const content = renderText(cell, cellContext);
        if (!isHead) {
          return (
            <td dir="auto" className={looks}>
              {content}
            </td>
          );
        }
        return (
          <th scope="col" dir="auto" className={cn(looks, "border-line-2 text-[0.8125rem] font-medium text-ink-3")}>
            {content}
          </th>
        );
      })}
    </tr>
  );
}, isSameRow);

function isSameRow(before: RowProps, after: RowProps): boolean {
  return before.align === after.align && before.isHead === after.isHead && isSamePart(before, after);
}

/** The footnotes below a text. */
export function renderFootnotes(references: References, context: RenderContext): ReactNode {
  return (
    <Footnotes
      idPrefix={context.idPrefix ?? ""}
      dirs={references.footnotes.map((note) => dirOf(note))}
      notes={references.footnotes.map((note) => renderChildren(note, context))}
    />
  );
}
