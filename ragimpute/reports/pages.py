"""Reports as single HTML pages: plots inline as SVG, nothing loaded from elsewhere, no scripts.

``figures`` gives the same content to programs, as JSON; ``by_file_name`` chooses by the name of a
report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from ragimpute import __version__
from ragimpute.reports.figures import History, train_figures
from ragimpute.reports.files import write_json, write_text, writing
from ragimpute.reports.genome_section import genome_section
from ragimpute.reports.plots import save_png
from ragimpute.reports.sections import Section, evaluate_section, impute_section
from ragimpute.reports.training_section import train_section, training_plots

if TYPE_CHECKING:
    from ragimpute.accuracy.scores import Evaluation
    from ragimpute.imputation.summary import ImputeSummary
    from ragimpute.training.trainer import TrainResult


def render_evaluate(
    evaluation: Evaluation,
    path: str | Path,
    *,
    title: str = "Imputation accuracy",
    others: Mapping[str, Evaluation] | None = None,
) -> None:
    """Write a page of accuracy by MAF bin and calibration.

    Parameters
    ----------
    evaluation
        What the page is about.
    path
        The page; an existing one is replaced.
    title
        Heading; if there are others, also the name of the evaluation.
    others
        More evaluations of the same truth, by name, to be compared.
    """
    section = evaluate_section(evaluation, name=title, others=others or {})
    _write(path, title, f"{evaluation.imputed} against {evaluation.truth}", [section])


def render_impute(
    summary: ImputeSummary, path: str | Path, *, title: str = "Imputation run"
) -> None:
    """Write a page about a run: its input, estimated accuracy, time and settings."""
    subtitle = f"{summary.target} from {summary.panel}"
    _write(path, title, subtitle, [impute_section(summary)])


def render_genome(
    figures: Mapping[str, Any], path: str | Path, *, title: str = "Imputation of a genome"
) -> None:
    """Write a page about several runs: chromosomes side by side.

    Parameters
    ----------
    figures
        From :func:`ragimpute.reports.genome.genome_figures`.
    path
        The page; an existing one is replaced.
    """
    names = ", ".join(one["contig"] for one in figures["chromosomes"])
    noun = "Chromosome" if len(figures["chromosomes"]) == 1 else "Chromosomes"
    _write(path, title, f"{noun} {names}", [genome_section(figures)])


def render_train(
    history: History,
    config_text: str,
    provenance: Mapping[str, Any],
    path: str | Path,
    *,
    title: str = "Training",
) -> None:
    """Write a page of curves.

    Parameters
    ----------
    history
        One row for each epoch, of the names in metrics.csv; any may be absent or NaN.
    config_text, provenance
        config.yaml, and the content of provenance.json.
    path
        The page; an existing one is replaced.
    """
    _write(path, title, "", [train_section(history, config_text, provenance)])


def render_demo(
    path: str | Path,
    *,
    evaluation: Evaluation,
    summary: ImputeSummary,
    title: str = "ragimpute demo",
) -> None:
    """Write one page about a run and its accuracy.

    Parameters
    ----------
    path
        The page; an existing one is replaced.
    evaluation, summary
        The result of each step.
    """
    accuracy = evaluate_section(evaluation, name=summary.model, others={})
    accuracy.intro = (
        f"Model “{summary.model}”, compared with true genotypes at sites that were not typed. "
        + accuracy.intro
    )
    sections = [accuracy, impute_section(summary)]
    subtitle = f"prepare, impute and evaluate: {summary.target} from {summary.panel}"
    _write(path, title, subtitle, sections)


def report_training(result: TrainResult) -> Path:
    """Write report.html, report.json and the curves as PNG files into a trained model's folder.

    Parameters
    ----------
    result
        What the run came to; config.yaml and provenance.json are read from its folder.

    Returns
    -------
    The page.
    """
    page = result.folder / "report.html"
    title = f"Training of {result.folder.name}"
    render_train(result.history, *_how_made(result.folder), page, title=title)
    figures = train_figures(result.history, *_how_made(result.folder))
    write_json(result.folder / "report.json", figures)
    plot_curves(result.history, result.folder)
    return page


def _how_made(folder: Path) -> tuple[str, dict[str, Any]]:
    """The text of config.yaml and the provenance in a model folder; empty if missing."""
    config, made = folder / "config.yaml", folder / "provenance.json"
    config_text = config.read_text(encoding="utf-8") if config.is_file() else ""
    return config_text, json.loads(made.read_text(encoding="utf-8")) if made.is_file() else {}


def plot_curves(history: History, folder: str | Path) -> list[Path]:
    """Write the curves of a training run as PNG files.

    Parameters
    ----------
    history
        As for :func:`render_train`.
    folder
        Must exist.

    Returns
    -------
    The files; a curve without any figure is left out.
    """
    folder = Path(folder)
    drawn = [(name, figure) for name, figure, *_ in training_plots(history)]
    with writing(folder):
        return [
            save_png(figure, folder / f"{name}.png") for name, figure in drawn if figure is not None
        ]


@cache
def _page() -> jinja2.Template:
    """The template of pages, which escapes everything but our own SVG."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _write(path: str | Path, title: str, subtitle: str, sections: list[Section]) -> None:
    """Write a page."""
    page = _page().render(title=title, subtitle=subtitle, sections=sections, version=__version__)
    write_text(Path(path), page)
