"""Answers in scripts that run from right to left, or have no spaces: where things stand, as a browser sees it."""

from playwright.async_api import Locator, expect

from tests.web.pages import Chat
from tests.web.world import Web, no_sideways_scroll

ARABIC = """## كيف تعمل الذاكرة المؤقتة

تحتفظ **الذاكرة المؤقتة** بنسخة من البيانات، انظر https://example.com/cache؟ نعم.

- البند الأول مع `get()`
- البند الثاني

1. أولاً

2. ثانياً

> اقتباس يبدأ من اليمين.

| الاسم | العدد |
|---|---|
| قلم | 12 |

<details>
<summary>المزيد</summary>

اضغط <kbd>Ctrl</kbd> ثم $x^2$.

</details>

```python
print("مرحبا")
```

- an English list
"""

CHINESE = r"""**重要：**请先看文档（https://example.com/docs）。然后按 <kbd>Ctrl</kbd> 键。

水是 H<sub>2</sub>O，也就是 $\ce{H2O}$。

这是**“重点”**，见www.example.com。

| 量 | 公式 |
|---|---|
| 模 | $|x|$ |
| 条件概率 | $P(A|B)$ |

\begin{align}
a &= b + c \\
d &= e
\end{align}

<details>
<summary>更多</summary>

- 隐藏的 **内容。**好
</details>
"""

MARKERS = "(item) => getComputedStyle(item).direction"
BORDER = "(quote) => getComputedStyle(quote).borderRightWidth"
INDENT = "(item) => parseFloat(getComputedStyle(item).marginRight) > 0"


async def left_of(one: Locator, other: Locator) -> bool:
    """Whether one stands to the left of the other."""
    first, second = await one.bounding_box(), await other.bounding_box()
    assert first
    assert second
    return first["x"] < second["x"]


async def test_an_answer_from_right_to_left_is_mirrored(web: Web) -> None:
    web.answer("اشرح", ARABIC)
    page = await web.visit(await web.person())
    chat = Chat(page)
    await chat.box.fill("اشرح")
    assert await chat.box.evaluate("(box) => getComputedStyle(box).direction") == "rtl"
    await chat.ask("اشرح")
    answer = chat.answer
    await expect(answer.get_by_role("heading", name="كيف تعمل الذاكرة المؤقتة")).to_have_css("direction", "rtl")
    await expect(chat.questions.last.get_by_text("اشرح")).to_have_css("direction", "rtl")
    for item in await answer.locator("li").filter(has_not_text="English").all():
        assert await item.evaluate(MARKERS) == "rtl"
        assert await item.evaluate(INDENT)
    await expect(answer.locator("li", has_text="English")).to_have_css("direction", "ltr")
    assert await answer.locator("blockquote").evaluate(BORDER) == "2px"
    cells = answer.get_by_role("cell")
    assert await left_of(cells.nth(1), cells.nth(0))
    await expect(cells.nth(1)).to_have_css("text-align", "right")
    await expect(answer.locator("pre")).to_have_css("direction", "ltr")
    await expect(answer.get_by_role("link")).to_have_attribute("href", "https://example.com/cache")
    await expect(answer.locator("kbd")).to_be_hidden()
    await answer.get_by_text("المزيد").click()
    await expect(answer.locator("kbd")).to_be_visible()
    await expect(answer.locator("details")).to_have_css("direction", "rtl")
    assert await no_sideways_scroll(page)


async def test_an_answer_without_spaces_keeps_its_emphasis_addresses_and_formulas(web: Web) -> None:
    web.answer("说明", CHINESE)
    page = await web.visit(await web.person())
    chat = Chat(page)
    await chat.ask("说明")
    answer = chat.answer
    await expect(answer.locator("strong")).to_have_text(["重要：", "“重点”", "内容。"])
    links = [await link.get_attribute("href") for link in await answer.get_by_role("link").all()]
    assert links == ["https://example.com/docs", "http://www.example.com/"]
    await expect(answer.locator(".katex")).to_have_count(4)
    await expect(answer.get_by_role("row")).to_have_count(3)
    await expect(answer.get_by_role("cell")).to_have_count(4)
    await expect(answer.locator("sub").first).to_have_text("2")
    await expect(answer.get_by_role("list")).to_be_hidden()
    await answer.get_by_text("更多").click()
    await expect(answer.get_by_role("list")).to_be_visible()
    # What is announced is what is read, without the source of formulas and marks of Markdown.
    announced = page.locator("[aria-live=polite]", has_text="The answer has ended.")
    await expect(announced).to_have_count(1)
    assert not {"*", "\\", "<", "|"} & set(await announced.inner_text())
