"""Made-up results for the reports, and what a page must be."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.accuracy.scores import Evaluation, Sums, quality_curve
from ragimpute.imputation.summary import ImputeSummary

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text()
        self.tags, self.open, self.words = [], [], []
        self.feed(self.text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def headings(self):
        return re.findall(r"<strong>(.*?)</strong>", self.text)


def check_alone(page):
    """Nothing from elsewhere, no scripts, and everything labelled."""
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert not page.all("script")
    assert not page.all("link")
    assert "@import" not in page.text
    for _, attrs in page.tags:
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith("#")
    assert page.all("html") == [{"lang": "en"}]
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for used in re.findall(r"(?:url\(|href=\")#([^\")]+)", page.text):
        assert used in ids, f"{used} is used and not there"
    for svg in page.all("svg"):
        assert svg["role"] == "img"
        assert len(svg["aria-label"]) > 10
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in attrs for attrs in page.all("th"))
    assert len(page.all("h1")) == 1


def evaluation(seed=1, *, with_dr2=True, num_sites=400):
    """Figures of random dosages."""
    rng = np.random.default_rng(seed)
    maf = rng.uniform(0, 0.5, num_sites) ** 2 * 2
    truth = rng.binomial(2, maf[:, None], (num_sites, 30)).astype(float)
    dosage = np.clip(truth + rng.normal(0, 0.3, truth.shape), 0, 2)
    sums = Sums()
    site = sums.add(dosage, truth, maf, np.full(30, 2))
    dr2 = np.clip(site + 0.05, 0, 1) if with_dr2 else np.full(num_sites, np.nan)
    bins, overall = sums.bin_scores(site, dr2, maf)
    return Evaluation(
        "truth.bcf", "out.vcf.gz", "panel.h5", "20", 1000, 900_000, bins, overall,
        sums.calibration.result(), sums.calibration.standard_error(),
        sums.calibration.expected_error(), quality_curve(dr2, site),
        {"samples": 30, "scored": num_sites, "made_up": 3}, [],
    )  # fmt: skip


def summary(**more):
    """A run's summary, made up."""
    rng = np.random.default_rng(2)
    size = 2_000
    given = {
        "num_samples": 50, "num_haplotypes": 500, "num_sites": size, "num_typed": 200,
        "counts": {"matched": 180, "swapped": 20, "not_in_panel": 7, "typed": 200},
        "position_bp": np.sort(rng.integers(1_000_000, 2_000_000, size)).astype(np.int32),
        "maf": (rng.random(size) / 2).astype(np.float32),
        "dr2": rng.random(size).astype(np.float32),
        "typed": np.arange(size) % 10 == 0,
        "seconds": {"read": 0.5, "impute": 3.25, "idle": 0.0},
        "wall_seconds": 3.75, "peak_rss_mb": 321.5,
        "settings": {"ne": 1e5, "fields": ["GT", "DS"]}, "versions": {"numpy": "2.0"},
        "warnings": ["20 records are swapped"],
    }  # fmt: skip
    return ImputeSummary("out.vcf.gz", "panel.h5", "target.vcf.gz", "default", **given | more)


def history(epochs=6):
    """Epochs of a run, made up."""
    rows = []
    for i in range(epochs):
        row = {"epoch": i + 1.0, "step": 100.0 * (i + 1), "train_loss": 1 / (i + 1),
               "val_loss": 1.1 / (i + 1), "lr": 1e-3 / (i + 1), "f1": 0.5 + 0.05 * i,
               "precision": 0.6, "recall": 0.7, "r2_all": 0.9, "ls_r2_all": 0.89,
               "r2_rare": 0.5, "ls_r2_rare": 0.45}  # fmt: skip
        for k, edge in enumerate(MAF_BINS[1:]):
            row[f"r2_<={edge:g}"], row[f"ls_r2_<={edge:g}"] = 0.1 * k + 0.1, 0.1 * k
        rows.append(row)
    return rows
