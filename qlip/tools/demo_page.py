"""The page of ``qlip demo``, with Gradio."""

from collections.abc import Callable
from typing import Any

import gradio as gr
from PIL import Image

from qlip.core.criteria import CRITERIA
from qlip.evaluation.cell import Vision
from qlip.tools.config import DemoConfig
from qlip.tools.demo import Demo, Reply, first

TITLES = {
    "leaves": "Leaves",
    "held": "What these tokens hold",
    "downscaled": "What a plain downscale of the same price holds",
}
SHARPER = 2  # times the size that the model was made for: what a budget buys is sharpness
FONT = ["system-ui", "sans-serif"]  # Gradio's own is fetched from elsewhere


def build_page(demo: Demo, first: Image.Image | None = None, asked: str = "") -> gr.Blocks:
    """The page: a picture, the settings, three panels, a question and two answers.

    Args:
        demo: The model.
        first: Picture to begin with.
        asked: Question to begin with.
    """

    def look(picture: Image.Image | None, *settings: Any) -> list[Any]:
        if picture is None:
            return ["", None, None, None]
        panels = demo.look(picture, _vision(*settings))
        rows, columns = panels.grid
        share = 100 * panels.tokens / (rows * columns)
        told = f"**{panels.tokens} tokens**, {share:.0f} % of the whole grid of {columns} x {rows}"
        return [told, panels.leaves, panels.held, panels.downscaled]

    def ask(picture: Image.Image | None, question: str, *settings: Any) -> list[str]:
        if picture is None or not question.strip():
            raise gr.Error("Choose a picture and write a question first")
        stock, converted = demo.ask(picture, question.strip(), _vision(*settings))
        return [stock.text, _price(stock), converted.text, _price(converted)]

    with gr.Blocks(title="qlip", analytics_enabled=False) as page:
        gr.Markdown(f"# qlip: {demo.config.model}")
        with gr.Row():
            picture = gr.Image(first, label="Picture", type="pil", sources=["upload", "clipboard"], height=360)
            with gr.Column():
                settings = _settings(demo)
        told = gr.Markdown(elem_id="told")
        panels = _panels()
        with gr.Row():
            question = gr.Textbox(asked, label="Question", elem_id="question", scale=4, min_width=300)
            button = gr.Button("Ask both", variant="primary", elem_id="ask", scale=1)
        with gr.Row():
            answers: list[Any] = []
            for name in ("stock", "converted"):
                with gr.Column():
                    answers.append(gr.Textbox(label=f"Answer, {name}", interactive=False, elem_id=name))
                    answers.append(gr.Markdown(elem_id=f"{name}-price"))
        changed = [page.load, *(part.change for part in (picture, *settings))]
        shown = {
            "show_progress": "hidden",
            "trigger_mode": "always_last",
        }  # a slider that moves is not drawn at every step
        gr.on(changed, _told(look), [picture, *settings], [told, *panels], **shown)
        gr.on([button.click, question.submit], _told(ask), [picture, question, *settings], answers)
    return page


def _panels() -> list[Any]:
    """Three pictures under their titles, side by side where there is room."""
    panels = []
    with gr.Row():
        for name, title in TITLES.items():
            with gr.Column(min_width=300):
                gr.Markdown(f"**{title}**")
                panels.append(gr.Image(show_label=False, interactive=False, buttons=["fullscreen"], elem_id=name))
    return panels


def _settings(demo: Demo) -> list[Any]:
    """Sliders and choices, in the order of `_vision`."""
    patch, size, stock = demo.settings.quadtree.patch_size, demo.settings.size or 0, demo.stock_tokens
    return [
        gr.Slider(0, max(4 * size, 96 * patch), SHARPER * size, step=patch, label="Size", info="Shortest edge in pixels; 0: its own"),
        gr.Slider(0, 4 * stock, stock, step=1, label="Budget", info=f"Tokens at most; stock spends {stock}; 0: alpha decides"),
        gr.Radio(["prune", "scale"], value="prune", label="Fit", info="prune merges more, scale scales the picture down"),
        gr.Slider(0, 3, 0.1, step=0.05, label="Alpha", info="Blocks that vary less merge; with a budget and prune without effect"),
        gr.Dropdown([name for name in CRITERIA if name != "random"], value="derivative", label="Criterion"),
    ]  # fmt: skip


def _vision(size: float, budget: float, fit: Any, alpha: float, criterion: str) -> Vision:
    return Vision(
        size=int(size) or None, max_tokens=int(budget) or None, fit=fit, alpha=float(alpha), criterion=criterion
    )


def _told(function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """The function with its errors shown on the page."""

    def shown(*values: Any) -> list[Any]:
        try:
            return function(*values)
        except ValueError as error:
            raise gr.Error(str(error)) from error

    return shown


def _price(reply: Reply) -> str:
    return f"{reply.tokens} image tokens, {reply.seconds:.2g} s"


def serve(config: DemoConfig) -> None:
    """Load the model and serve the page until the program is stopped.

    Raises:
        OSError: if there is no such model, or the port is taken.
        ValueError: if the model cannot be converted.
    """
    launch(build_page(Demo(config), *first(config.model)), config.port)


def launch(page: gr.Blocks, port: int | None = None, wait: bool = True) -> str:
    """Serve the page on this machine alone; returns its address, at once unless it is to wait until stopped."""
    theme = gr.themes.Default(font=FONT, font_mono=["ui-monospace", "monospace"])
    theme.set(
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
    )  # the default is too pale
    _, address, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        theme=theme,
        prevent_thread_lock=not wait,
        quiet=not wait,
        footer_links=[],
    )
    return address
