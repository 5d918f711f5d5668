"""The whole page by keyboard alone, and no key does anything that was not meant."""

import pytest
from playwright.sync_api import Page, expect

from factories.browser import (
    EXAMPLES,
    canvas_pixels,
    focused,
    read,
    read_example,
    settled,
    until_read,
    until_shown,
)

N_STOPS_AT_MOST = 80


def outlined(page: Page) -> bool:
    """Whether the focused element shows that it is focused."""
    return page.evaluate(
        """() => {
            const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
            return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
        }"""
    )


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element is focused; on the way, focus is always to be seen."""
    for _ in range(N_STOPS_AT_MOST):
        page.keyboard.press("Tab")
        if focused(page) != "body":
            assert outlined(page), f"{focused(page)} does not show its focus"
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} is not reached by Tab")


def selected(page: Page) -> str:
    return page.locator("#readings [aria-current=true] .name").inner_text()


def chosen_point(page: Page) -> str:
    return page.locator("#points input:checked").input_value()


def test_a_session_needs_nothing_but_a_keyboard(page: Page) -> None:
    page.on("filechooser", lambda _: None)  # from here on, or the first might open for real
    names = list(EXAMPLES)
    tab_to(page, f'[data-example="{names[0]}"]')
    page.keyboard.press("Enter")
    until_read(page, 1)
    until_shown(page)
    expect(page.locator("#label")).to_have_text("NORMAL")

    plain = canvas_pixels(page)
    page.keyboard.press("h")
    expect(page.locator("#heatmap")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("H")
    expect(page.locator("#heatmap")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("i")
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("+")
    page.keyboard.press("+")
    page.keyboard.press("-")
    settled(page)
    expect(page.locator("#readout")).to_contain_text("zoom 1.3×")
    page.keyboard.press("r")
    assert (canvas_pixels(page) == plain).all()

    points = page.locator("#points input").evaluate_all("(inputs) => inputs.map((i) => i.value)")
    for key, point in zip("123", points, strict=True):
        page.keyboard.press(key)
        assert chosen_point(page) == point
    page.keyboard.press("p")
    expect(page.locator("#tool-pan")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("w")
    expect(page.locator("#tool-window")).to_have_attribute("aria-pressed", "true")

    for key, dialog in [("?", "#help"), ("m", "#model-card")]:
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(dialog)).to_be_hidden()

    with page.expect_file_chooser():
        page.keyboard.press("o")

    tab_to(page, "#clear")
    page.keyboard.press("Enter")
    expect(page.locator("#readings button")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()


def test_j_and_k_and_the_arrows_go_through_the_list_and_stop_at_its_ends(page: Page) -> None:
    read(page, *EXAMPLES.items())
    names = list(EXAMPLES)
    for key, name in [
        ("j", names[1]),
        ("ArrowDown", names[2]),
        ("j", names[3]),
        ("j", names[3]),
        ("k", names[2]),
        ("ArrowUp", names[1]),
        ("K", names[0]),
        ("k", names[0]),
    ]:
        page.keyboard.press(key)
        assert selected(page) == name


def test_a_reading_is_chosen_by_tab_and_enter(page: Page) -> None:
    read(page, *EXAMPLES.items())
    tab_to(page, "#readings li:nth-child(3) button")
    page.keyboard.press("Enter")
    assert selected(page) == list(EXAMPLES)[2]
    assert focused(page) == "button"


def test_every_control_shows_its_focus_and_tab_is_no_trap(page: Page) -> None:
    read_example(page)
    controls = page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, [tabindex='0']")]
            .filter((e) => e.checkVisibility() && !e.disabled && !e.closest("dialog"))
            .filter((e) => !(e.type === "radio" && !e.checked)).length"""
    )
    forward = walk(page, "Tab")
    assert len(forward) == controls
    assert set(walk(page, "Shift+Tab")) == set(forward)


def walk(page: Page, key: str) -> list[int]:
    """The focused elements, each by a number of its own, once around and past the window's end."""
    stops: list[int] = []
    for _ in range(N_STOPS_AT_MOST):
        page.keyboard.press(key)
        if focused(page) == "body":
            continue
        stop = page.evaluate(
            "() => [...document.querySelectorAll('*')].indexOf(document.activeElement)"
        )
        if stop in stops:
            assert stop == stops[0], "Tab goes round in a part of the page"
            return stops
        assert outlined(page), f"{focused(page)} does not show its focus"
        stops.append(stop)
    pytest.fail("Tab does not come to an end")


def test_the_first_stop_leads_to_the_answer(page: Page) -> None:
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_focused()


@pytest.mark.parametrize(
    ("opener", "dialog"), [("#open-help", "#help"), ("#open-model-card", "#model-card")]
)
@pytest.mark.parametrize("by", ["Escape", "button"])
def test_focus_returns_to_what_opened_a_dialog(
    page: Page, opener: str, dialog: str, by: str
) -> None:
    expect(page.locator("#open-model-card")).to_be_enabled()
    tab_to(page, opener)
    page.keyboard.press("Enter")
    expect(page.locator(dialog)).to_be_visible()
    assert page.evaluate(
        "(dialog) => document.querySelector(dialog).contains(document.activeElement)", dialog
    )
    if by == "Escape":
        page.keyboard.press("Escape")
    else:
        tab_to(page, f"{dialog} [data-close]")
        page.keyboard.press("Enter")
    expect(page.locator(dialog)).to_be_hidden()
    expect(page.locator(opener)).to_be_focused()


def test_in_a_dialog_keys_do_nothing_to_the_page_behind(page: Page) -> None:
    read(page, *EXAMPLES.items())
    page.keyboard.press("?")
    before = selected(page), chosen_point(page)
    for key in "jhi13m":
        page.keyboard.press(key)
    expect(page.locator("#model-card")).to_be_hidden()
    page.keyboard.press("Escape")
    assert (selected(page), chosen_point(page)) == before
    for button in ("#heatmap", "#invert"):
        expect(page.locator(button)).to_have_attribute("aria-pressed", "false")


def test_the_help_names_every_key(page: Page) -> None:
    page.keyboard.press("?")
    text = page.locator("#keys").inner_text()
    for key in ("J", "K", "H", "I", "R", "+", "−", "W", "P", "1, 2, 3", "O", "M", "?"):
        assert key in text


def test_single_keys_can_be_switched_off(page: Page) -> None:
    read(page, *EXAMPLES.items())
    page.keyboard.press("?")
    page.locator("#single-keys").uncheck()
    page.keyboard.press("Escape")
    before = selected(page), chosen_point(page)
    for key in ("j", "ArrowDown", "h", "i", "w", "p", "1", "3", "+", "m", "?"):
        page.keyboard.press(key)
    assert (selected(page), chosen_point(page)) == before
    for button in ("#heatmap", "#invert", "#tool-pan"):
        expect(page.locator(button)).to_have_attribute("aria-pressed", "false")
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_keys_with_control_or_alt_are_the_browsers(page: Page) -> None:
    read_example(page)
    for key in ("Control+i", "Alt+h", "Meta+i"):
        page.keyboard.press(key)
    for button in ("#heatmap", "#invert"):
        expect(page.locator(button)).to_have_attribute("aria-pressed", "false")


def test_what_is_typed_into_the_prevalence_does_nothing_else(page: Page) -> None:
    read(page, *EXAMPLES.items())
    before = selected(page), chosen_point(page)
    field = page.locator("#prevalence")
    field.fill("")
    field.focus()
    page.keyboard.type("31")
    expect(field).to_have_value("31")
    page.keyboard.press("ArrowUp")
    expect(field).not_to_have_value("31")
    for key in "jkhimw?":
        page.keyboard.press(key)
    assert (selected(page), chosen_point(page)) == before
    for button in ("#heatmap", "#invert"):
        expect(page.locator(button)).to_have_attribute("aria-pressed", "false")
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_arrows_on_a_slider_or_an_operating_point_are_theirs(page: Page) -> None:
    read(page, *EXAMPLES.items())
    before = selected(page)
    page.locator("#window-width").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#window-width")).to_have_value("255")
    point = chosen_point(page)
    page.locator("#points input:checked").focus()
    page.keyboard.press("ArrowDown")
    assert chosen_point(page) != point
    assert selected(page) == before


def test_a_key_keeps_the_focus_where_it_is_in_the_list(page: Page) -> None:
    read(page, *EXAMPLES.items())
    tab_to(page, "#readings li:nth-child(1) button")
    page.locator("#order").select_option("probability")
    page.locator("#readings button").first.focus()
    page.keyboard.press("j")
    assert page.evaluate("() => document.activeElement.closest('#readings') !== null")


def test_without_any_radiograph_keys_change_nothing_that_is_seen(page: Page) -> None:
    expect(page.locator("#open-model-card")).to_be_enabled()
    before = page.locator("body").inner_text()
    for key in ("j", "k", "i", "r", "+", "-", "w", "1", "2", "3"):
        page.keyboard.press(key)
    settled(page)
    assert page.locator("body").inner_text() == before
