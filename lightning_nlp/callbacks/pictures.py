"""Pictures of what a model does: the confusion matrix of classes, and where attention looks."""

from __future__ import annotations

import hashlib
import math
import warnings
from importlib.util import find_spec
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_nlp.errors import ConfigError

Figures = dict[str, Any]
"""``{name: matplotlib figure}``."""
MOST_CLASSES, NUMBERED_CLASSES, WIDEST = 50, 25, 16.0
NEVER = "~"
"""Comes after every hash: of a padding row."""


class Pictures(Callback):
    """Draws at every validation, into TensorBoard; without a logger (validate, test), into the run's ``reports/``.

    Args:
        attention: how many examples, chosen by the hash of their ids, have their attention drawn; 0: none.
        layers: which layers, counted from 0, or from the last with negative numbers.
        most_tokens: tokens drawn of a row.
        confusion: draw the confusion matrix of a classification.

    Raises:
        ConfigError: matplotlib is not installed, or a number that cannot be.
    """

    def __init__(
        self,
        attention: int = 2,
        layers: list[int] = [-1],  # noqa: B006 - not changed
        most_tokens: int = 40,
        confusion: bool = True,
    ) -> None:
        if find_spec("matplotlib") is None:
            raise ConfigError("the callback Pictures needs matplotlib: pip install 'lightning_nlp[pictures]'")
        if attention < 0 or most_tokens < 1:
            raise ConfigError("Pictures: attention must be 0 or more, and most_tokens at least 1")
        self.attention, self.layers, self.most_tokens, self.confusion = attention, layers, most_tokens, confusion
        self._rows: list[tuple[str, dict[str, Any]]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Before anything is trained: a layer that is not there.

        Raises:
            ConfigError: likewise.
        """
        config: Any = getattr(pl_module, "config", None)  # a module of one's own has none
        count = getattr(config, "n_layers", 0)
        for layer in self.layers if count else []:
            if not -count <= layer < count:
                raise ConfigError(f"Pictures: there is no layer {layer}, the model has {count}")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        if not self.attention or not isinstance(batch, dict) or "example_ids" not in batch:
            return
        for row, ids in enumerate(batch["example_ids"]):
            order = hashlib.blake2b(ids[0].encode("utf-8", "surrogatepass")).hexdigest() if ids else NEVER
            if len(self._rows) < self.attention or order < self._rows[-1][0]:
                self._rows = sorted([*self._rows, (order, one_row(batch, row))], key=lambda kept: kept[0])
                del self._rows[self.attention :]

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, pl_module, "validation")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Any, module: Any, split: str) -> None:
        if trainer.sanity_checking or not hasattr(module, "heads"):
            return
        figures: Figures = {}
        for name, head in module.heads.items():
            if self.confusion and (found := head.confusion()) is not None:
                figures[f"{name}/confusion"] = draw_confusion(*found)
        rows, self._rows = [batch for _, batch in self._rows], []
        for number in range(self.attention if rows else 0):  # as often on every rank: the backbone may be sharded
            figures |= self._attention(module, rows[min(number, len(rows) - 1)], number, trainer.is_global_zero)
        if not trainer.is_global_zero:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a letter the font lacks becomes a box
            self._hand_over(trainer, figures, split)

    def _hand_over(self, trainer: Any, figures: Figures, split: str) -> None:
        for title, figure in figures.items():
            for logger in trainer.loggers:
                writer = getattr(logger, "experiment", None)
                if hasattr(writer, "add_figure"):
                    writer.add_figure(title, figure, trainer.global_step)  # type: ignore[union-attr]
            if not trainer.loggers:
                path = trainer.run_directory.reports / f"{split}.{title.replace('/', '.')}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, dpi=120)

    def _attention(self, module: Any, batch: dict[str, Any], number: int, draws: bool) -> Figures:
        """Figures of the only row of ``batch``."""
        from lightning_nlp.backbone.attention_maps import recorded
        from lightning_nlp.decoding.generate import evaluating

        head, (ids,) = module.heads[batch["task"]], batch["example_ids"]
        with torch.no_grad(), evaluating(module), recorded(module.backbone) as maps:
            head(module.backbone, batch)
        if not draws or not ids or head.tokenizer is None:
            return {}
        figures: Figures = {}
        for one in maps:
            if one.layer not in [layer % one.layers for layer in self.layers]:
                continue
            of_source = "source_tokens" in batch and one.stack == "encoder"
            side = "source_" if of_source else ""
            other = "source_" if one.kind == "cross" else side
            down, across = self._shown(head.tokenizer, batch, side), self._shown(head.tokenizer, batch, other)
            weights = one.weights[0, :, : len(down), : len(across)].cpu()
            name = f"{batch['task']}/attention_{one.stack}_{one.kind}_layer_{one.layer}/{number}"
            title = f"{one.stack} {one.kind}-attention, layer {one.layer}: {ids[0]}"
            figures[name] = draw_attention(weights, down, across, title)
        return figures

    def _shown(self, tokenizer: Any, batch: dict[str, Any], side: str) -> list[str]:
        """The first tokens of the first text in the row, as a person reads them."""
        tokens = batch[f"{side}tokens"][0][batch[f"{side}segments"][0] == 1]
        return [tokenizer.shown(token) for token in tokens[: self.most_tokens].tolist()]


def one_row(batch: dict[str, Any], row: int) -> dict[str, Any]:
    """A row as a batch of its own."""
    rows = len(batch["example_ids"])

    def of(value: Any) -> Any:
        by_row = isinstance(value, (list, Tensor)) and len(value) == rows
        return value[row : row + 1] if by_row else value

    return {name: of(value) for name, value in batch.items()}


def draw_confusion(matrix: Tensor, labels: list[str]) -> Any:
    """Right classes down, predicted ones across, coloured by the share of a class; counts ``[C, C]``.

    Of many classes, those with the most texts.
    """
    from matplotlib.figure import Figure

    matrix, title = matrix.cpu(), "right class (rows) and predicted class"
    if len(labels) > MOST_CLASSES:
        kept = sorted(matrix.sum(1).topk(MOST_CLASSES).indices.tolist())
        title += f": {MOST_CLASSES} of {len(labels)} classes"
        matrix, labels = matrix[kept][:, kept], [labels[number] for number in kept]
    share = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    side = max(4.0, 0.34 * len(labels) + 2)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the right class", shrink=0.8)
    axes.set_xticks(range(len(labels)), labels, rotation=90)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("right")
    axes.set_title(title, fontsize="medium")
    if len(labels) <= NUMBERED_CLASSES:
        for row, column in matrix.nonzero().tolist():
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{int(matrix[row, column])}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def draw_attention(weights: Tensor, queries: list[str], keys: list[str], title: str) -> Any:
    """A map a head: queries down, keys across, ``weights [H, T, S]``, coloured by their square roots."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    width, height = (0.17 * len(keys) + 1.0, 0.17 * len(queries) + 1.0)
    columns = min(max(int(WIDEST / width), 1), len(weights))
    rows = math.ceil(len(weights) / columns)
    size = (max(columns * width, 5.0), rows * height + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if number >= len(weights):
            axes.axis("off")
            continue
        axes.imshow(weights[number], cmap="Greens", norm=PowerNorm(0.5, vmin=0, vmax=1), aspect="auto")
        axes.set_title(f"head {number}", fontsize=8)
        axes.set_xticks(range(len(keys)), [plain(key) for key in keys], rotation=90, fontsize=6)
        axes.set_yticks(range(len(queries)), [plain(query) for query in queries], fontsize=6)
    return figure


def plain(text: str) -> str:
    """matplotlib reads what is between two dollar signs as mathematics."""
    return text.replace("$", r"\$")
