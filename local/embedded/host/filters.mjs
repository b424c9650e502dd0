// Filters on texts, as PostgREST reads them: as texts. Lite takes what looks like a number, a truth value or null for one,
// which no text is equal to ("operator does not exist") or only nearly ("1.0", "007", a number of twenty digits). What
// stands between quotes it leaves alone, so such values are handed to it quoted.

const REST = "/rest/v1/";
const SCALAR = /^((?:not\.)?(?:eq|neq|gt|gte|lt|lte)\.)(.*)$/s;
const LIST = /^((?:not\.)?in\.)\((.*)\)$/s;
const GROUP = /^((?:not\.)?(?:and|or))$/;
const NESTED = /^((?:not\.)?(?:and|or))\((.*)\)$/s;
const CONDITION = /^("(?:[^"\\]|\\.)*"|[^".]*?)\.(.*)$/s;
const MISREAD = /^\s*(?:true|false|null|not_null|unknown|[-+]?[\d.].*|[0-9a-f]+|infinity|"[^]*"|\{[^]*\})\s*$/i;
const TEXTS = new Set(["text", "varchar", "character varying", "bpchar", "character", "citext", "name"]);

/** The address with filters on texts that Lite reads as such. introspect: returns what is known of tables and columns. */
export async function quoteTexts(request, url, introspect) {
  if (!url.pathname.startsWith(REST) || !/[=.(]n?(?:eq|ot|in|gt|lt)/.test(url.search)) return request;
  const relation = decodeURIComponent(url.pathname.slice(REST.length));
  if (relation === "" || relation.includes("/")) return request;
  const { headers, method } = request;
  const schema = headers.get(method === "GET" || method === "HEAD" ? "accept-profile" : "content-profile") ?? "public";
  const texts = textsOf(await introspect(), schema, relation);
  const isText = (column) => /->>[^>]*$/.test(column) || texts.has(column.replace(/^"(.*)"$/s, "$1"));
  const parameters = [...url.searchParams].map(([key, value]) => [key, quoted(key, value, isText)]);
  const search = new URLSearchParams(parameters);
  if (search.toString() === url.searchParams.toString()) return request;
  const changed = new URL(url);
  changed.search = search.toString();
  return new Request(changed, request);
}

const known = new WeakMap();

/** The names of a table's columns that hold texts. */
function textsOf(introspection, schema, relation) {
  if (!known.has(introspection)) known.set(introspection, new Map());
  const tables = known.get(introspection);
  const key = `${schema} ${relation}`;
  if (!tables.has(key)) {
    const columns = introspection.columns.filter(({ table, schema: its }) => table === relation && (its || "public") === schema);
    tables.set(key, new Set(columns.filter(({ pg_type, type }) => TEXTS.has((pg_type ?? type ?? "").toLowerCase())).map(({ name }) => name)));
  }
  return tables.get(key);
}

/** The value of a parameter, with what filters texts in quotes. */
function quoted(key, value, isText) {
  if (GROUP.test(key)) {
    return value.startsWith("(") && value.endsWith(")") ? `(${conditions(value.slice(1, -1), isText)})` : value;
  }
  return isText(key) ? condition(value, quote) : value;
}

function conditions(list, isText) {
  return split(list)
    .map((each) => {
      const [, group, inner] = NESTED.exec(each) ?? [];
      if (group) return `${group}(${conditions(inner, isText)})`;
      const [, column, rest] = CONDITION.exec(each) ?? [];
      // Within a list a value may stand in quotes already.
      return column !== undefined && isText(column) ? `${column}.${condition(rest, quoteInList)}` : each;
    })
    .join(",");
}

function condition(text, quoteScalar) {
  const [, operator, value] = SCALAR.exec(text) ?? [];
  if (operator) return MISREAD.test(value) ? `${operator}${quoteScalar(value)}` : text;
  const [, membership, list] = LIST.exec(text) ?? [];
  return membership ? `${membership}(${split(list).map(quoteInList).join(",")})` : text;
}

// Lite takes the outer quotes off and leaves the rest as it is.
const quote = (value) => `"${value}"`;

function quoteInList(value) {
  return value.startsWith('"') || !MISREAD.test(value) ? value : `"${value.replace(/[\\"]/g, "\\$&")}"`;
}

/** The parts of a list between its commas, those within quotes and parentheses aside. */
function split(list) {
  if (list === "") return [];
  const parts = [""];
  let depth = 0;
  for (const [token] of list.matchAll(/"(?:[^"\\]|\\.)*"|[^]/g)) {
    if (token === "(" || token === "{") depth += 1;
    else if (token === ")" || token === "}") depth -= 1;
    if (token === "," && depth === 0) parts.push("");
    else parts[parts.length - 1] += token;
  }
  return parts;
}
