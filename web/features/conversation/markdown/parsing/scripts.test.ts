import type { Nodes } from "mdast";
import { describe, expect, it } from "vitest";
import { cpuTime } from "@/test/cpu-time";
import { parseBlocks } from "./syntax-tree";

const MARKS: Readonly<Record<string, string>> = { strong: "b", emphasis: "i", delete: "s" };

/** What has been read: <b>bold</b>, <i>italic</i>, <s>struck</s> and [links](by their address). */
function read(text: string): string {
  const show = (node: Nodes): string => {
    if (!("children" in node)) return "value" in node ? node.value : "";
    const content = node.children.map(show).join("");
    if (node.type === "link") return `[${content}](${node.url})`;
    const mark = MARKS[node.type];
    return mark ? `<${mark}>${content}</${mark}>` : content;
  };
  return parseBlocks(text).map(show).join("\n");
}

describe("emphasis", () => {
  it.each([
    ["**重要：**后面", "<b>重要：</b>后面"],
    ["这是**“重点”**吗", "这是<b>“重点”</b>吗"],
    ["**注意。**请看", "<b>注意。</b>请看"],
    ["これは**「強調」**です", "これは<b>「強調」</b>です"],
    ["**한국어(예)**는", "<b>한국어(예)</b>는"],
    ["*斜体（a）*文", "<i>斜体（a）</i>文"],
    ["***両方（注）***文", "<i><b>両方（注）</b></i>文"],
    ["~~删除。~~后", "<s>删除。</s>后"],
    ["**`a`**的", "<b>a</b>的"],
    ["他说**100%**对", "他说<b>100%</b>对"],
    ["a~b~c 和 ~约~", "a~b~c 和 ~约~"],
    ["2 * 3 * 4，a_b_c", "2 * 3 * 4，a_b_c"],
  ])("works beside punctuation of Chinese, Japanese and Korean: %s", (text, expected) => {
    expect(read(text)).toBe(expected);
  });
});

describe("a bare address", () => {
  it.each([
    ["见https://a.com。后面**重要**", "见[https://a.com](https://a.com)。后面<b>重要</b>"],
    ["（https://a.com/b）后", "（[https://a.com/b](https://a.com/b)）后"],
    ["https://a.com/x，https://b.com、后", "[https://a.com/x](https://a.com/x)，[https://b.com](https://b.com)、后"],
    ["“http://a.com”！", "“[http://a.com](http://a.com)”！"],
    ["https://a.com——好", "[https://a.com](https://a.com)——好"],
    ["《https://a.com》…", "《[https://a.com](https://a.com)》…"],
    ["https://a.com/?q=中文&b=1；好", "[https://a.com/?q=中文&b=1](https://a.com/?q=中文&b=1)；好"],
    ["请看www.a.com。", "请看[www.a.com](http://www.a.com)。"],
    ["www.a.com了解", "[www.a.com](http://www.a.com)了解"],
    ["https://a.com:80查看", "[https://a.com:80](https://a.com:80)查看"],
    ["**https://a.com**是", "<b>[https://a.com](https://a.com)</b>是"],
    ["**https://a.com**。好", "<b>[https://a.com](https://a.com)</b>。好"],
    ["(https://a.com/x)的", "([https://a.com/x](https://a.com/x))的"],
    ["https://a.com/x_(y)。", "[https://a.com/x_(y)](https://a.com/x_(y))。"],
    ["（见 https://a.com/x.)。", "（见 [https://a.com/x](https://a.com/x).)。"],
    ["[见 https://a.com。后", "[见 [https://a.com](https://a.com)。后"],
    ["[https://a.com。x](https://b.com)", "[https://a.com。x](https://b.com)"],
    ["انظر https://a.com؟ نعم", "انظر [https://a.com](https://a.com)؟ نعم"],
    ["邮箱a@b.com。", "邮箱[a@b.com](mailto:a@b.com)。"],
  ])("ends where its sentence goes on: %s", (text, expected) => {
    expect(read(text)).toBe(expected);
  });

  it.each([
    ["https://a.com/b_(c).", "[https://a.com/b_(c)](https://a.com/b_(c))."],
    ["https://zh.example.org/wiki/中国", "[https://zh.example.org/wiki/中国](https://zh.example.org/wiki/中国)"],
    ["https://a.org/ジョン・レノン", "[https://a.org/ジョン・レノン](https://a.org/ジョン・レノン)"],
    ["https://www.例.com/x。", "[https://www.例.com/x](https://www.例.com/x)。"],
    ["https://a.org/Michelson–Morley", "[https://a.org/Michelson–Morley](https://a.org/Michelson–Morley)"],
    ["https://。https://", "https://。https://"],
    ["awww.b.c。", "awww.b.c。"],
  ])("is as long as it was otherwise: %s", (text, expected) => {
    expect(read(text)).toBe(expected);
  });

  it("takes little work to be found", async () => {
    const took = await cpuTime(() => {
      for (const bit of ["http://a.b。", "[http://a.b。", "www.a", "见www.a", "https://a)", "**重"])
        parseBlocks(bit.repeat(3000));
    });
    expect(took).toBeLessThan(20_000);
  });
});
